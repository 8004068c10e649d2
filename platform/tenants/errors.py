"""Why a request is not let in.

* TenantError
  + Unauthenticated       nobody proved to be anybody
    - Missing             no credential was given
    - NotProven           unknown or wrong: one wording for both, for the answer must not tell which sites exist
    - Contradicting       credentials that do not belong together
    - Stale               the secret is right, the time is not      (these three may be helpful:
    - Replayed            the secret is right, the nonce was used    the caller holds the secret)
    - Unfit               the secret is right, what was signed cannot be used
  + Forbidden             we know who it is, and it may not
    - AddressNotAllowed
    - OriginNotAllowed
    - ModelNotAllowed
    - ScopeMissing
    - WiderThanProof    a narrowed proof asks for a token or ticket that is wider than itself
  + IdempotencyConflict   the idempotency key was used for another request
  + Unissuable            a site or credential cannot be made as asked (commands and the admin)
    - SlugTaken
    - TooManyLive
"""

from typing import ClassVar


class TenantError(Exception):
    """The message is safe to show to whoever asked."""

    #: Our word for the class, stable, for answers.
    code: ClassVar[str]


class Unauthenticated(TenantError): ...


class MissingCredentials(Unauthenticated):
    code = "missing_credentials"

    def __init__(self) -> None:
        super().__init__(
            "Authentication required: sign the request, or send a JWT or an API key (Authorization: Bearer …)."
        )


class InvalidCredentials(Unauthenticated):
    code = "invalid_credentials"

    def __init__(self) -> None:
        super().__init__("The credentials are not valid: check the site, the secret or key, and what was signed.")


class ConflictingCredentials(Unauthenticated):
    code = "conflicting_credentials"

    def __init__(self) -> None:
        super().__init__("The request carries conflicting credentials; send one kind, for one site.")


class StaleTimestamp(Unauthenticated):
    code = "stale_timestamp"


class ExpiredCredentials(Unauthenticated):
    code = "expired_credentials"


class ReplayedRequest(Unauthenticated):
    code = "replayed_request"

    def __init__(self) -> None:
        super().__init__("This signed request was already used; sign every attempt again, with a new X-Nonce.")


class MalformedCredentials(Unauthenticated):
    code = "malformed_credentials"


class Forbidden(TenantError): ...


class AddressNotAllowed(Forbidden):
    code = "address_not_allowed"


class OriginNotAllowed(Forbidden):
    code = "origin_not_allowed"


class ModelNotAllowed(Forbidden):
    code = "model_not_allowed"


class InsufficientScope(Forbidden):
    code = "insufficient_scope"


class ScopeExceedsGrant(Forbidden):
    code = "scope_exceeds_grant"


class IdempotencyConflict(TenantError):
    code = "idempotency_key_reused"

    def __init__(self) -> None:
        super().__init__(
            "This Idempotency-Key was used for a different request. Send the same request, or use a new key."
        )


class ProvisioningError(TenantError):
    code = "provisioning_failed"


class SlugTaken(ProvisioningError):
    code = "slug_taken"


class TooManyLiveCredentials(ProvisioningError):
    code = "too_many_live_credentials"
