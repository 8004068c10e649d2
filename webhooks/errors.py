"""Errors of webhooks.

* WebhookError
  + UnsafeUrl            the URL may not be called (SSRF) or is not valid; the message says why
  + UnknownEventType     carries `unknown` and `known`
  + TooManyEndpoints     carries `limit`
  + NoLiveSecret         every secret of the endpoint has expired; events are never sent unsigned
"""

from collections.abc import Sequence


class WebhookError(Exception): ...


class UnsafeUrl(WebhookError): ...


class UnknownEventType(WebhookError):
    def __init__(self, unknown: str, known: Sequence[str]) -> None:
        super().__init__(f"There is no event type {unknown[:60]!r}. Known types: {', '.join(known)}.")
        self.unknown = unknown
        self.known = known


class TooManyEndpoints(WebhookError):
    def __init__(self, limit: int) -> None:
        super().__init__(
            f"A site has at most {limit} webhook endpoints, and this site has reached that limit. "
            "Contact your administrator."
        )
        self.limit = limit


class NoLiveSecret(WebhookError): ...
