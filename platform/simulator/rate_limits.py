"""Rate limits as providers have them: token buckets of requests and of tokens, refilled evenly over a minute."""

from dataclasses import dataclass

WINDOW_SECONDS = 60.0

DEFAULT_REQUESTS = 10_000
DEFAULT_TOKENS = 30_000_000


@dataclass(frozen=True, slots=True)
class BucketLevel:
    """A bucket at one moment."""

    limit: int
    remaining: int
    #: Seconds until it is full again.
    reset: float


@dataclass(frozen=True, slots=True)
class RateLimitStatus:
    """How much of its limits a caller has left."""

    requests: BucketLevel
    tokens: BucketLevel
    #: Seconds until this request would be admitted; 0 if it was.
    wait_seconds: float = 0.0

    @property
    def exhausted(self) -> str:
        """Which of the two is used up."""
        return "requests" if self.requests.remaining == 0 else "tokens"


#: Without a configured limit every caller has an unused huge one.
UNLIMITED = RateLimitStatus(
    BucketLevel(DEFAULT_REQUESTS, DEFAULT_REQUESTS - 1, 0.006), BucketLevel(DEFAULT_TOKENS, DEFAULT_TOKENS - 100, 0.001)
)


class TokenBucket:
    def __init__(self, limit: int, now: float) -> None:
        self.limit = limit
        self._available = float(limit)
        self._refilled_at = now

    def wait_for(self, amount: int, now: float) -> float:
        """Return the seconds until `amount` is available; for more than the limit, until the bucket is full."""
        self._refill(now)
        return max(0.0, (min(amount, self.limit) - self._available) * WINDOW_SECONDS / self.limit)

    def take(self, amount: int) -> None:
        self._available -= amount

    def level(self) -> BucketLevel:
        return BucketLevel(
            self.limit, max(0, int(self._available)), (self.limit - self._available) * WINDOW_SECONDS / self.limit
        )

    def _refill(self, now: float) -> None:
        self._available = min(self.limit, self._available + (now - self._refilled_at) * self.limit / WINDOW_SECONDS)
        self._refilled_at = now


class RateLimiter:
    """The buckets of all callers: one pair for each key and model."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[str, str, str, int], TokenBucket] = {}

    def admit(
        self, key_hash: str, model: str, tokens: int, *, rate_limit: int | None, token_limit: int | None, now: float
    ) -> RateLimitStatus:
        """Take one request and its tokens, or nothing if either is exhausted; return the status after it."""
        requests = self._bucket("requests", key_hash, model, rate_limit or DEFAULT_REQUESTS, now)
        budget = self._bucket("tokens", key_hash, model, token_limit or DEFAULT_TOKENS, now)
        wait = max(requests.wait_for(1, now), budget.wait_for(tokens, now))
        if wait == 0:
            requests.take(1)
            budget.take(min(tokens, budget.limit))
        return RateLimitStatus(requests.level(), budget.level(), wait)

    def clear(self) -> None:
        self._buckets.clear()

    def _bucket(self, kind: str, key_hash: str, model: str, limit: int, now: float) -> TokenBucket:
        return self._buckets.setdefault((kind, key_hash, model, limit), TokenBucket(limit, now))
