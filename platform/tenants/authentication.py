"""Proving who asks: a signed request, a JWT or an API key becomes an identity, or an error that tells nothing.

Unknown and wrong take the same way. An unknown site is checked against decoy secrets, an unknown key against a decoy
hash, and a site's secrets are filled up with decoys, so that the same work is done for all of them.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import Any, TypeAlias

import jwt
from django.db import IntegrityError, connection
from django.db.models.functions import Now
from jwt.types import Options

from core import clock, signing
from tenants import cached_lookups, minted_jwts
from tenants.cached_lookups import LiveSecret, Lookups, SiteSecrets
from tenants.credentials import API_KEY_PATTERN, hash_key
from tenants.errors import (
    ConflictingCredentials,
    ExpiredCredentials,
    InvalidCredentials,
    MalformedCredentials,
    MissingCredentials,
    ReplayedRequest,
    StaleTimestamp,
)
from tenants.grant import UNRESTRICTED, Grant
from tenants.minted_jwts import JwtPurpose
from tenants.models import Site, UsedNonce

TIMESTAMP_TOLERANCE_SECONDS = 60
#: Longer than any signature could still be accepted: the window on both sides, and clocks that differ.
NONCE_RETENTION = timedelta(minutes=5)
NONCE_PATTERN = re.compile(r"[\x21-\x7e]{8,128}")
SIGNATURE_PATTERN = re.compile(r"(v1=)?[0-9a-f]{64}")
TIMESTAMP_PATTERN = re.compile(r"0|[1-9][0-9]{0,11}")

JWT_ALGORITHM = "HS256"
JWT_MAX_LIFETIME_SECONDS = 3600
JWT_LEEWAY_SECONDS = 30
#: What a JWT of ours could need; nobody makes us parse more.
JWT_MAX_LENGTH = 4096
#: Times are checked here, against the clock that tests can set.
PYJWT_OPTIONS = Options(verify_exp=False, verify_iat=False, verify_nbf=False, verify_aud=False)
SCOPE_PATTERN = re.compile(r"[a-z]+:[a-z]+")

DECOY_SECRETS = tuple(LiveSecret("", secrets.token_urlsafe(48)) for _ in range(cached_lookups.MAX_LIVE_CREDENTIALS))
DECOY_KEY_HASH = secrets.token_bytes(32)
BLOCKING_LOOKUPS = cached_lookups.BlockingLookups()


class AuthMethod(StrEnum):
    """What was proved with."""

    SIGNED_REQUEST = "signed_request"
    LEGACY_SIGNATURE = "legacy_signature"
    JWT = "jwt"
    #: A narrow JWT that the desk minted (`tenants.narrow_tokens`).
    TOKEN = "token"  # noqa: S105 (a kind, not a secret)
    API_KEY = "api_key"


@dataclass(frozen=True, slots=True)
class PresentedRequest:
    """A request, as far as it can prove something."""

    method: str
    #: Path and query exactly as sent.
    target: str
    #: Found by lower-case name.
    headers: Mapping[str, str]
    body: bytes | signing.BodyDigest


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks, and how narrow the proof is. None means: not narrowed."""

    site: Site
    auth_method: AuthMethod
    credential_id: str
    scopes: frozenset[str] | None = None
    grant: Grant = UNRESTRICTED
    origin: str | None = None
    #: Which narrow token it was, for there are many of one credential.
    token_id: str | None = None
    #: Who the narrow token is for, in the words of the site's front end.
    user: str | None = None


@dataclass(frozen=True, slots=True)
class Authenticated:
    """A proof that holds, once its nonce is used up: here (`authenticate`), or in Redis (the live path)."""

    identity: Identity
    #: What may be used once by the site: a digest. None: nothing.
    nonce: bytes | None = None


@dataclass(frozen=True, slots=True)
class RequestSignature:
    """The headers of a signed request. Absent ones are empty."""

    site: str
    timestamp: str
    nonce: str
    text: str

    @property
    def is_legacy(self) -> bool:
        return not self.text.startswith("v1=")


@dataclass(frozen=True, slots=True)
class BearerToken:
    """A JWT or an API key."""

    text: str


PresentedCredentials: TypeAlias = RequestSignature | BearerToken


def authenticate(asked: PresentedRequest) -> Identity:
    """Return who asks.

    Raises:
        Unauthenticated: nothing was given, or it proves nothing, or it was right but may not be used now.
    """
    authenticated = verify_credentials(asked)
    if authenticated.nonce is not None:
        consume_nonce(authenticated.identity.site, authenticated.nonce)
    return authenticated.identity


def verify_credentials(asked: PresentedRequest, lookups: Lookups = BLOCKING_LOOKUPS) -> Authenticated:
    """Return who asks, and what is left to do: to use up the nonce, which lets a signed request in once.

    Raises:
        Unauthenticated: as `authenticate` does, but for `ReplayedRequest`.
        NotRemembered: with lookups that are `directory.Remembered`.
    """
    authenticated = _verify_by_kind(find_credentials(asked.headers), asked, lookups)
    named = asked.headers.get("x-site-id")
    if named and named not in (authenticated.identity.site.public_id, authenticated.identity.site.slug):
        raise ConflictingCredentials
    return authenticated


def preauthenticate(asked: PresentedRequest) -> Identity:
    """Return who a signed request whose body is not here yet would be from. It proves nothing, and uses nothing up.

    What no body can mend is refused: for a long one that is not read costs nobody anything. That an unknown site is
    refused earlier than a wrong signature tells who is known here. So this is for long bodies alone.

    Raises:
        Unauthenticated: the request cannot be proven, whatever its body.
    """
    given = find_credentials(asked.headers)
    if not isinstance(given, RequestSignature) or not SIGNATURE_PATTERN.fullmatch(given.text):
        raise InvalidCredentials
    _check_timestamp(given.timestamp)
    digest = _digest(_single_use_value(given))
    named = _find_signing_site(given, asked, BLOCKING_LOOKUPS)
    if named is None:
        raise InvalidCredentials
    if UsedNonce.objects.filter(site=named.site, digest=digest).exists():
        raise ReplayedRequest
    return Identity(named.site, _auth_method_of(given), credential_id="")


def find_credentials(headers: Mapping[str, str]) -> PresentedCredentials:
    """Pick the one proof that the headers carry. Raises `MissingCredentials` or `ConflictingCredentials`."""
    tokens = {token for token in (_bearer_token(headers), headers.get("x-api-key")) if token}
    signature = headers.get("x-signature")
    if len(tokens) + bool(signature) > 1:
        raise ConflictingCredentials
    if signature:
        site, timestamp, nonce = (headers.get(name, "") for name in ("x-site-id", "x-timestamp", "x-nonce"))
        return RequestSignature(site, timestamp, nonce, signature)
    if tokens:
        return BearerToken(tokens.pop())
    raise MissingCredentials


def purge_nonces() -> int:
    """Delete the nonces that are too old to be of use; return how many. Run it now and then."""
    return UsedNonce.objects.filter(used_at__lt=Now() - NONCE_RETENTION).delete()[0]


def _bearer_token(headers: Mapping[str, str]) -> str | None:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _verify_by_kind(proof: PresentedCredentials, asked: PresentedRequest, lookups: Lookups) -> Authenticated:
    match proof:
        case RequestSignature():
            return _verify_signature(proof, asked, lookups)
        case BearerToken(text) if text.startswith("nd_"):
            return Authenticated(_verify_api_key(text, lookups))
        case BearerToken(text) if minted_jwts.is_minted(JwtPurpose.TOKEN, text):
            return Authenticated(_verify_narrow_token(text, lookups))
        case BearerToken(text) if minted_jwts.is_minted(JwtPurpose.TICKET, text):
            raise _ticket_refusal(text)
        case BearerToken(text) if text.count(".") == 2:
            return Authenticated(_verify_jwt(text, lookups))
        case BearerToken(text):
            return Authenticated(_verify_api_key(text, lookups))


# Signed requests: the signature, then the time, then the nonce. Only who holds the secret gets to use up a nonce.


def _verify_signature(given: RequestSignature, asked: PresentedRequest, lookups: Lookups) -> Authenticated:
    usable = _find_signing_site(given, asked, lookups)
    signed = asked if given.is_legacy else _with_hashed_body(asked)
    live = _first_match(
        _candidate_secrets(usable), lambda secret: signing.signatures_match(given.text, _sign(secret, given, signed))
    )
    if usable is None or live is None:
        raise InvalidCredentials
    _check_timestamp(given.timestamp)
    return Authenticated(
        Identity(usable.site, _auth_method_of(given), live.credential_id), _digest(_single_use_value(given))
    )


def _with_hashed_body(asked: PresentedRequest) -> PresentedRequest:
    """Hash the body once, for it is signed anew with every secret that is tried."""
    if isinstance(asked.body, signing.BodyDigest):
        return asked
    return replace(asked, body=signing.BodyDigest(hashlib.sha256(asked.body).hexdigest()))


def _find_signing_site(given: RequestSignature, asked: PresentedRequest, lookups: Lookups) -> SiteSecrets | None:
    """Return the site that is named, if it exists and takes signatures of this form."""
    known, is_legacy = lookups.find_site_secrets(given.site), given.is_legacy
    # The older form covers the body itself, so it proves nothing of one that is not held.
    is_held = isinstance(asked.body, bytes)
    return known if known and (not is_legacy or (known.site.accepts_legacy_signature and is_held)) else None


def _auth_method_of(given: RequestSignature) -> AuthMethod:
    return AuthMethod.LEGACY_SIGNATURE if given.is_legacy else AuthMethod.SIGNED_REQUEST


def _sign(secret: str, given: RequestSignature, asked: PresentedRequest) -> str:
    if given.is_legacy:
        body = asked.body if isinstance(asked.body, bytes) else b""
        return signing.sign_request_legacy(secret, timestamp=given.timestamp, body=body)
    return signing.sign_request(
        secret,
        timestamp=given.timestamp,
        nonce=given.nonce,
        method=asked.method,
        target=asked.target,
        body=asked.body,
    )


def _candidate_secrets(known: SiteSecrets | None, kid: str | None = None) -> tuple[LiveSecret, ...]:
    """Return the live secrets (with a `kid`: the one with that id), and a decoy in every place that is left."""
    live = known.secrets if known else ()
    filled_up = (*live, *DECOY_SECRETS[len(live) :])
    return tuple(
        each if kid in (None, each.credential_id) else decoy
        for each, decoy in zip(filled_up, DECOY_SECRETS, strict=True)
    )


def _first_match(tried: Iterable[LiveSecret], fits: Callable[[str], bool]) -> LiveSecret | None:
    """Try all of them, whichever fits; no decoy ever does."""
    fitting = [live for live in tried if fits(live.secret)]
    return fitting[0] if fitting else None


def _check_timestamp(text: str) -> None:
    if not TIMESTAMP_PATTERN.fullmatch(text):
        raise StaleTimestamp("X-Timestamp must be the time in whole seconds since 1970.")
    now = clock.unix_seconds()
    if abs(now - int(text)) > TIMESTAMP_TOLERANCE_SECONDS:
        raise StaleTimestamp(
            f"X-Timestamp is {int(text)}, and it is {now} here: more than {TIMESTAMP_TOLERANCE_SECONDS} s apart. "
            "Check the clock, and sign every attempt again."
        )


def _single_use_value(given: RequestSignature) -> str:
    """Return what may be used once: the nonce, or in the older form the signature itself."""
    if given.is_legacy:
        return f"legacy\n{given.text}"
    if not NONCE_PATTERN.fullmatch(given.nonce):
        raise MalformedCredentials("X-Nonce must be 8 to 128 printable ASCII characters without spaces.")
    return f"v1\n{given.nonce}"


def consume_nonce(site: Site, digest: bytes) -> None:
    """Use up a nonce. The unique row lets one request in, over all processes."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO tenants_usednonce (site_id, digest) VALUES (%s, %s) ON CONFLICT DO NOTHING",
                [site.id, digest],
            )
            used = cursor.rowcount == 1
    except IntegrityError as error:
        raise InvalidCredentials from error  # the site was deleted within the last second
    if not used:
        raise ReplayedRequest


def _digest(nonce: str) -> bytes:
    return hashlib.sha256(nonce.encode()).digest()


# JWT


def _verify_jwt(token: str, lookups: Lookups) -> Identity:
    unproven = _decode_unverified(token)
    named, kid = _claimed_site(unproven, lookups)
    content = token.rpartition(".")[0].encode()
    live = _first_match(
        _candidate_secrets(named, kid), lambda secret: _is_valid_mac(unproven["signature"], secret, content)
    )
    if named is None or live is None:
        raise InvalidCredentials
    return _restrict(Identity(named.site, AuthMethod.JWT, live.credential_id), _verify_claims(token, live.secret))


def _decode_unverified(token: str) -> Mapping[str, Any]:
    """Take a token apart, into `header`, `payload` and `signature`, none of them proven."""
    if len(token) > JWT_MAX_LENGTH or not token.isascii():
        raise InvalidCredentials
    try:
        return jwt.decode_complete(token, options={"verify_signature": False})
    except jwt.InvalidTokenError as error:
        raise InvalidCredentials from error


def _claimed_site(unproven: Mapping[str, Any], lookups: Lookups) -> tuple[SiteSecrets | None, str | None]:
    """Return the site and the secret's id (`kid`) that an unproven token names, as far as it names any."""
    subject, kid = unproven["payload"].get("sub"), unproven["header"].get("kid")
    known = lookups.find_site_secrets(subject) if isinstance(subject, str) else None
    # A subject is a slug. A public id would find the site too, and there should be one way to say it.
    return (known if known and known.site.slug == subject else None), kid


def _is_valid_mac(given: bytes, secret: str, content: bytes) -> bool:
    # Not PyJWT's own check, whose work depends on what the secret looks like. It has its say in `_verify_claims`,
    # where it also refuses every other algorithm than ours.
    return hmac.compare_digest(given, hmac.digest(secret.encode(), content, "sha256"))


def _verify_claims(token: str, secret: str) -> Mapping[str, Any]:
    """Return the claims of a token that is signed with the secret, once its times are checked too."""
    try:
        claims: Mapping[str, Any] = jwt.decode(token, secret, algorithms=[JWT_ALGORITHM], options=PYJWT_OPTIONS)
    except jwt.InvalidTokenError as error:
        raise InvalidCredentials from error
    if "aud" in claims:
        raise MalformedCredentials("The token has an audience (aud); tokens for this desk have none.")
    now = clock.now().timestamp()
    expires_at = _numeric_date(claims, "exp")
    if expires_at is None:
        raise MalformedCredentials("The token needs an expiry (exp) within an hour.")
    if expires_at <= now - JWT_LEEWAY_SECONDS:
        raise ExpiredCredentials("The token has expired.")
    if expires_at > now + JWT_MAX_LIFETIME_SECONDS + JWT_LEEWAY_SECONDS:
        raise MalformedCredentials("The token's expiry (exp) must be within an hour.")
    for claim in ("iat", "nbf"):
        if (_numeric_date(claims, claim) or 0) > now + JWT_LEEWAY_SECONDS:
            raise StaleTimestamp(f"The token's {claim} is in the future; check the clock.")
    return claims


def _numeric_date(claims: Mapping[str, Any], claim: str) -> float | None:
    value = claims.get(claim)
    if value is None:
        return None
    # The bounds also keep out NaN, and whole numbers too long to become a float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        raise MalformedCredentials(f"The token's {claim} must be a number of seconds since 1970.")
    return float(value)


def _restrict(identity: Identity, claims: Mapping[str, Any]) -> Identity:
    """Return the identity as narrow as the claims of its token say."""
    max_tokens = claims.get("max_tokens")
    if max_tokens is not None and (type(max_tokens) is not int or not 1 <= max_tokens < 2**31):
        raise MalformedCredentials("The token's max_tokens must be a positive whole number.")
    return replace(
        identity,
        scopes=_parse_scopes(claims.get("scope")),
        # Premium tiers are not for a token in a browser's hands.
        grant=Grant(
            _text_claim(claims, "model"), max_tokens, allows_premium_tiers=identity.auth_method is not AuthMethod.TOKEN
        ),
        origin=_text_claim(claims, "origin"),
    )


def _parse_scopes(claim: object) -> frozenset[str] | None:
    """Read `jobs:read jobs:write`, or a list of such words. An empty claim allows nothing."""
    if claim is None:
        return None
    words = claim.split() if isinstance(claim, str) else claim
    if not isinstance(words, list) or not all(
        isinstance(word, str) and SCOPE_PATTERN.fullmatch(word) for word in words
    ):
        raise MalformedCredentials("The token's scope must be words like jobs:write, separated by spaces.")
    return frozenset(words)


def _text_claim(claims: Mapping[str, Any], claim: str) -> str | None:
    value = claims.get(claim)
    if value is None or (isinstance(value, str) and value):
        return value
    raise MalformedCredentials(f"The token's {claim} must be text.")


# What the desk minted itself


def _verify_narrow_token(token: str, lookups: Lookups) -> Identity:
    claims = minted_jwts.verify(JwtPurpose.TOKEN, token)
    # It ends with its site, and with the credential that it was asked for with.
    site = lookups.site_for_credential(claims["cred"])
    if site is None or site.public_id != claims["site"]:
        raise InvalidCredentials
    return _restrict(
        Identity(site, AuthMethod.TOKEN, claims["cred"], token_id=claims["jti"], user=claims.get("user")), claims
    )


def _ticket_refusal(text: str) -> MalformedCredentials:
    """Tell who holds a ticket of ours what it is for; anybody else, nothing."""
    minted_jwts.verify(JwtPurpose.TICKET, text)
    return MalformedCredentials("A ticket opens the events of its own stream or job, and nothing else.")


# API keys


def _verify_api_key(key: str, lookups: Lookups) -> Identity:
    form = API_KEY_PATTERN.fullmatch(key)
    if form is None:
        raise InvalidCredentials
    owner = lookups.find_key_owner(form[1])
    if not hmac.compare_digest(hash_key(key), owner.key_hash if owner else DECOY_KEY_HASH) or owner is None:
        raise InvalidCredentials
    return Identity(owner.site, AuthMethod.API_KEY, owner.credential_id)
