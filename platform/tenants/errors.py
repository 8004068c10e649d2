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


class Missing(Unauthenticated):
    code = "missing_credentials"

    def __init__(self) -> None:
        super().__init__("Prove who you are: sign the request, or send a JWT or an API key (Authorization: Bearer …).")


class NotProven(Unauthenticated):
    code = "invalid_credentials"

    def __init__(self) -> None:
        super().__init__("The credentials are not valid: check the site, the secret or key, and what was signed.")


class Contradicting(Unauthenticated):
    code = "contradicting_credentials"

    def __init__(self) -> None:
        super().__init__("The request carries credentials that contradict each other; send one kind, of one site.")


class Stale(Unauthenticated):
    code = "stale_timestamp"


class Replayed(Unauthenticated):
    code = "replayed_request"

    def __init__(self) -> None:
        super().__init__("This signed request was received before; sign every try anew, with a fresh X-Nonce.")


class Unfit(Unauthenticated):
    code = "unfit_credentials"


class Forbidden(TenantError): ...


class AddressNotAllowed(Forbidden):
    code = "address_not_allowed"


class OriginNotAllowed(Forbidden):
    code = "origin_not_allowed"


class ModelNotAllowed(Forbidden):
    code = "model_not_allowed"


class ScopeMissing(Forbidden):
    code = "scope_missing"


class WiderThanProof(Forbidden):
    code = "wider_than_proof"


class Unissuable(TenantError):
    code = "unissuable"


class SlugTaken(Unissuable):
    code = "slug_taken"


class TooManyLive(Unissuable):
    code = "too_many_live_credentials"
