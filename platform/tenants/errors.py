"""Errors of authentication, authorization and provisioning.

* TenantError
  + Unauthenticated           the caller could not be authenticated
    - MissingCredentials      there are none
    - InvalidCredentials      unknown or wrong: one wording for both, which must not reveal which sites exist
    - ConflictingCredentials  of more than one kind or site
    - StaleTimestamp          the secret is right, but the clocks differ   (these four may explain themselves:
    - ExpiredCredentials      the secret is right, but exp has passed       the caller holds the secret)
    - ReplayedRequest         the secret is right, but the nonce was used before
    - MalformedCredentials    the secret is right, but a signed value is not valid
  + Forbidden                 the caller is authenticated, and not allowed to do this
    - AddressNotAllowed
    - OriginNotAllowed
    - ModelNotAllowed
    - InsufficientScope
    - ScopeExceedsGrant       a narrowed credential requests a token or ticket that allows more than itself
  + IdempotencyConflict       the idempotency key was used for another request
  + ProvisioningError         a site or credential cannot be created as requested (commands and the admin)
    - SlugTaken
    - TooManyLiveCredentials
"""

from typing import ClassVar


class TenantError(Exception):
    """The message is safe to show to the caller."""

    #: The error code in responses; it never changes.
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
