"""What can go wrong with a provider's call, and what may be done about it (wire formats, 18).

* ProviderError
  + Rejected              the request is wrong; it is wrong everywhere
    - ModelNotFound       … but another target may have the model
    - ContextTooLong      … but another target may have a bigger window
    - Unsupported         … but another target may know how: this one cannot express what was asked
    - ContentRefused      the provider's policy forbids it
  + CredentialDead        this key will not work again by itself: wrong, forbidden, out of quota or money
  + RateLimited           this key must wait; carries `retry_after_seconds`
  + Overloaded            the provider must recover; slow down
  + Transient             a passing fault before anything was answered: 5xx, connect, reset
  + Ambiguous             the request was sent and nothing came back: it may have been done, and billed
    - TimedOut            no byte, or none for too long, or the deadline
  + Interrupted           cut after the first token; what was received is not the answer
  + BadResponse           the answer is not what the provider's documentation promises
"""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(eq=False)
class ProviderError(Exception):
    """`message` is the provider's own words, or ours where it had none; never the prompt."""

    message: str
    #: HTTP status of the answer; None where there was none.
    status: int | None = None
    #: The provider's code (`error.code`, or its type), as far as it gave one.
    code: str | None = None
    retry_after_seconds: float | None = None

    #: May the same target be asked again?
    retryable: ClassVar[bool] = False
    #: May the next target be asked?
    failover: ClassVar[bool] = True
    #: May the provider have done, and billed, the work?
    maybe_billed: ClassVar[bool] = False
    #: Our word for the class, stable, for rows and answers.
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
    # A queued job is idempotent by design: it bills one call, whatever was spent (promises, DESIGN 6).
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
