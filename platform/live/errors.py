"""Why a live request is rejected or ends early. Their HTTP statuses are in `api.errors`.

* LiveError
  + RateLimitExceeded           a rate limit of the site is used up for now; carries `retry_after_seconds`
    - ConcurrencyLimitExceeded  the site runs as many requests as its concurrency limit allows
  + RateLimiterUnavailable      Redis is unavailable and LIVE_FAIL_MODE is `closed`
  + ShuttingDown                this process drains and admits no more requests
    - InterruptedByShutdown     the process stopped before the response ended
  + ResponseCanceled            the client or an operator canceled the response, or it had no reader
"""


class LiveError(Exception): ...


class RateLimitExceeded(LiveError):
    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class ConcurrencyLimitExceeded(RateLimitExceeded): ...


class RateLimiterUnavailable(LiveError):
    def __init__(self) -> None:
        super().__init__("Rate limiting is unavailable and this gateway is configured to fail closed. Retry later.")


class ShuttingDown(LiveError):
    def __init__(
        self, message: str = "This server process is shutting down. Retry: another process will serve the request."
    ) -> None:
        super().__init__(message)


class InterruptedByShutdown(ShuttingDown):
    def __init__(self) -> None:
        super().__init__("The server is shutting down; this response was interrupted.")


class ResponseCanceled(LiveError):
    def __init__(self) -> None:
        super().__init__("The stream was canceled.")
