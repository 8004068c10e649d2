"""Rate limits as providers have them: token buckets of requests and of tokens, refilled evenly over a minute."""

from dataclasses import dataclass

MINUTE = 60.0

DEFAULT_REQUESTS = 10_000
DEFAULT_TOKENS = 30_000_000


@dataclass(frozen=True, slots=True)
class Level:
    """A bucket at one moment."""

    limit: int
    remaining: int
    #: Seconds until it is full again.
    reset: float


@dataclass(frozen=True, slots=True)
class Standing:
    """How much of its limits a caller has left."""

    requests: Level
    tokens: Level
    #: Seconds until this request would be let through; 0 if it has been.
    wait: float = 0.0

    @property
    def lacking(self) -> str:
        """Which of the two is used up."""
        return "requests" if self.requests.remaining == 0 else "tokens"


#: Where no limit is set, everybody is always at the beginning of a huge one.
UNLIMITED = Standing(
    Level(DEFAULT_REQUESTS, DEFAULT_REQUESTS - 1, 0.006), Level(DEFAULT_TOKENS, DEFAULT_TOKENS - 100, 0.001)
)


class Bucket:
    def __init__(self, limit: int, now: float) -> None:
        self.limit = limit
        self._filled = float(limit)
        self._seen_at = now

    def wait_for(self, amount: int, now: float) -> float:
        """Seconds until so much is there. More than the limit never will be: then until it is full."""
        self._refill(now)
        return max(0.0, (min(amount, self.limit) - self._filled) * MINUTE / self.limit)

    def take(self, amount: int) -> None:
        self._filled -= amount

    def level(self) -> Level:
        return Level(self.limit, max(0, int(self._filled)), (self.limit - self._filled) * MINUTE / self.limit)

    def _refill(self, now: float) -> None:
        self._filled = min(self.limit, self._filled + (now - self._seen_at) * self.limit / MINUTE)
        self._seen_at = now


class Limits:
    """The buckets of all callers: one pair for each key and model."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[str, str, str, int], Bucket] = {}

    def admit(
        self, key_hash: str, model: str, tokens: int, *, rate_limit: int | None, token_limit: int | None, now: float
    ) -> Standing:
        """Take one request and its tokens, or nothing if either is lacking; where it then stands."""
        requests = self._bucket("requests", key_hash, model, rate_limit or DEFAULT_REQUESTS, now)
        budget = self._bucket("tokens", key_hash, model, token_limit or DEFAULT_TOKENS, now)
        wait = max(requests.wait_for(1, now), budget.wait_for(tokens, now))
        if wait == 0:
            requests.take(1)
            budget.take(min(tokens, budget.limit))
        return Standing(requests.level(), budget.level(), wait)

    def clear(self) -> None:
        self._buckets.clear()

    def _bucket(self, kind: str, key_hash: str, model: str, limit: int, now: float) -> Bucket:
        return self._buckets.setdefault((kind, key_hash, model, limit), Bucket(limit, now))
