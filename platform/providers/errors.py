"""Errors of a provider call: the only exceptions that leave `providers` (docs/reference/wire-formats.md, 18).

* ProviderError
  + RequestRejected       the request is wrong, for every target
    - ModelNotFound       … but another target may have the model
    - ContextTooLong      … but another target may have a larger context window
    - UnsupportedFeature  … but another target may support it: this one's dialect or model cannot express the request
    - ContentRefused      the provider's policy forbids the content
  + ProviderKeyRejected   the key does not work until a person acts: invalid, forbidden, or out of quota or credit
  + ProviderRateLimited   the key must wait; carries `retry_after_seconds`
  + ProviderOverloaded    the provider must recover; back off
  + TransientFailure      a temporary fault before any answer: 5xx, connect, reset
  + AmbiguousOutcome      the request was sent and no answer came: the provider may have processed and billed it
    - ProviderTimeout     no byte, no byte for too long, or past the deadline
  + ResponseInterrupted   cut off after the first token; what was received is not the complete answer
  + BadResponse           the response violates the provider's documentation
"""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(eq=False)
class ProviderError(Exception):
    """`message` is the provider's, or ours if it sent none; it never contains the prompt."""

    message: str
    #: HTTP status of the response; None if there was none.
    status: int | None = None
    #: The provider's code (`error.code`, or its type), if it sent one.
    code: str | None = None
    retry_after_seconds: float | None = None

    #: The same target may be called again.
    retryable: ClassVar[bool] = False
    #: The next target may be called.
    failover: ClassVar[bool] = True
    #: The provider may have done, and billed, the work.
    maybe_billed: ClassVar[bool] = False
    #: Stable name of the class, stored in rows and shown in responses.
    kind: ClassVar[str] = "provider_error"

    def __str__(self) -> str:
        return self.message


class RequestRejected(ProviderError):
    failover = False
    kind = "rejected"


class ModelNotFound(RequestRejected):
    failover = True
    kind = "model_not_found"


class ContextTooLong(RequestRejected):
    failover = True
    kind = "context_too_long"


class UnsupportedFeature(RequestRejected):
    failover = True
    kind = "unsupported"


class ContentRefused(RequestRejected):
    kind = "content_refused"


class ProviderKeyRejected(ProviderError):
    kind = "provider_key_rejected"


class ProviderRateLimited(ProviderError):
    retryable = True
    kind = "rate_limited"


class ProviderOverloaded(ProviderError):
    retryable = True
    kind = "overloaded"


class TransientFailure(ProviderError):
    retryable = True
    kind = "transient"


class AmbiguousOutcome(ProviderError):
    # A queued job may be retried safely: it bills one call, however many were made (docs/promises.md).
    retryable = True
    maybe_billed = True
    kind = "ambiguous"


class ProviderTimeout(AmbiguousOutcome):
    kind = "timeout"


class ResponseInterrupted(ProviderError):
    retryable = True
    maybe_billed = True
    kind = "interrupted"


class BadResponse(ProviderError):
    retryable = True
    maybe_billed = True
    kind = "bad_response"
