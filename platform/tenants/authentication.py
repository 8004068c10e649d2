"""Authentication: a signed request, a JWT or an API key becomes an `Identity`, or an error that reveals nothing.

Unknown and wrong credentials take the same path, in constant time: an unknown site is checked against decoy secrets, an
unknown key against a decoy hash, and a site's secrets are padded with decoys, so that the same work is done for all.
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
import msgspec
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
from tenants.grant import UNRESTRICTED, Grant, to_json
from tenants.minted_jwts import JwtPurpose
from tenants.models import Site, UsedNonce

TIMESTAMP_TOLERANCE_SECONDS = 60
#: Longer than any signature is accepted: the tolerance on both sides, and clocks that differ.
NONCE_RETENTION = timedelta(minutes=5)
NONCE_PATTERN = re.compile(r"[\x21-\x7e]{8,128}")
SIGNATURE_PATTERN = re.compile(r"(v1=)?[0-9a-f]{64}")
TIMESTAMP_PATTERN = re.compile(r"0|[1-9][0-9]{0,11}")

JWT_ALGORITHM = "HS256"
JWT_MAX_LIFETIME_SECONDS = 3600
JWT_LEEWAY_SECONDS = 30
#: More than any valid JWT needs; longer ones are not parsed.
JWT_MAX_LENGTH = 4096
#: Times are checked here, against the clock that tests can set.
PYJWT_OPTIONS = Options(verify_exp=False, verify_iat=False, verify_nbf=False, verify_aud=False)
SCOPE_PATTERN = re.compile(r"[a-z]+:[a-z]+")

DECOY_SECRETS = tuple(LiveSecret("", secrets.token_urlsafe(48)) for _ in range(cached_lookups.MAX_LIVE_CREDENTIALS))
DECOY_KEY_HASH = secrets.token_bytes(32)
BLOCKING_LOOKUPS = cached_lookups.BlockingLookups()


class AuthMethod(StrEnum):
    """How a request was authenticated."""

    SIGNED_REQUEST = "signed_request"
    LEGACY_SIGNATURE = "legacy_signature"
    JWT = "jwt"
    #: A narrow JWT that Nightdesk minted (`tenants.narrow_tokens`).
    TOKEN = "token"  # noqa: S105 (a kind, not a secret)
    API_KEY = "api_key"


@dataclass(frozen=True, slots=True)
class PresentedRequest:
    """The parts of a request that authentication reads."""

    method: str
    #: Path and query exactly as sent.
    target: str
    #: By lower-case name.
    headers: Mapping[str, str]
    body: bytes | signing.BodyDigest


@dataclass(frozen=True, slots=True)
class Identity:
    """An authenticated caller, with the restrictions of its credential. None: not restricted."""

    site: Site
    auth_method: AuthMethod
    credential_id: str
    scopes: frozenset[str] | None = None
    grant: Grant = UNRESTRICTED
    origin: str | None = None
    #: The id of the narrow token, since one credential may mint many.
    token_id: str | None = None
    #: The user that the narrow token was minted for, as the site's front end names them.
    user: str | None = None

    @property
    def idempotency_scope(self) -> str:
        """Separates the idempotency keys of restricted credentials; empty for the others, which share the site's.

        A key must not hand the answer of a wider caller to a narrower one, nor let a narrow one claim the site's key.
        """
        if self.token_id is not None:
            return self.token_id
        if self.scopes is None and self.grant == UNRESTRICTED and self.origin is None:
            return ""
        # Stored with jobs and batches: names of our classes, and restrictions not in effect, must not change it.
        scopes = None if self.scopes is None else sorted(map(str, self.scopes))
        restrictions = {"scopes": scopes, "grant": to_json(self.grant), "origin": self.origin}
        return hashlib.sha256(msgspec.json.encode(restrictions, order="sorted")).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Authenticated:
    """A verified caller whose nonce is not consumed yet: in Postgres (`authenticate`) or in Redis (live requests)."""

    identity: Identity
    #: The digest of a value that the site may use once; None: there is none.
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


def authenticate(request: PresentedRequest) -> Identity:
    """Authenticate a request, and consume its nonce.

    Raises:
        Unauthenticated: there are no credentials, or they are invalid, or they are right but cannot be used now.
    """
    authenticated = verify_credentials(request)
    if authenticated.nonce is not None:
        consume_nonce(authenticated.identity.site, authenticated.nonce)
    return authenticated.identity


def verify_credentials(request: PresentedRequest, lookups: Lookups = BLOCKING_LOOKUPS) -> Authenticated:
    """Verify a request's credentials. The caller has to consume the nonce, which admits a signed request once.

    Raises:
        Unauthenticated: as `authenticate` does, except `ReplayedRequest`.
        CacheMiss: from `CachedLookups`.
    """
    authenticated = _verify_by_kind(find_credentials(request.headers), request, lookups)
    site_header = request.headers.get("x-site-id")
    if site_header and site_header not in (authenticated.identity.site.public_id, authenticated.identity.site.slug):
        raise ConflictingCredentials
    return authenticated


def preauthenticate(request: PresentedRequest) -> Identity:
    """Return the claimed identity of a signed request before its body is read. It verifies and consumes nothing.

    It rejects what no body can make valid, so that a long body is not read needlessly. An unknown site is rejected
    earlier than a wrong signature, which reveals whether a site exists. So this is only for long bodies.

    Raises:
        Unauthenticated: the request cannot be authenticated, whatever its body.
    """
    signature = find_credentials(request.headers)
    if not isinstance(signature, RequestSignature) or not SIGNATURE_PATTERN.fullmatch(signature.text):
        raise InvalidCredentials
    _check_timestamp(signature.timestamp)
    digest = _digest(_single_use_value(signature))
    claimed = _find_signing_site(signature, request, BLOCKING_LOOKUPS)
    if claimed is None:
        raise InvalidCredentials
    if UsedNonce.objects.filter(site=claimed.site, digest=digest).exists():
        raise ReplayedRequest
    return Identity(claimed.site, _auth_method_of(signature), credential_id="")


def find_credentials(headers: Mapping[str, str]) -> PresentedCredentials:
    """Return the credentials in the headers. Raises `MissingCredentials` or `ConflictingCredentials`."""
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
    """Delete the nonces of requests that are too old to be replayed; return how many."""
    return UsedNonce.objects.filter(used_at__lt=Now() - NONCE_RETENTION).delete()[0]


def _bearer_token(headers: Mapping[str, str]) -> str | None:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _verify_by_kind(credentials: PresentedCredentials, request: PresentedRequest, lookups: Lookups) -> Authenticated:
    match credentials:
        case RequestSignature():
            return _verify_signature(credentials, request, lookups)
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


# Signed requests: the signature, then the time, then the nonce. Only a holder of the secret can consume a nonce.


def _verify_signature(signature: RequestSignature, request: PresentedRequest, lookups: Lookups) -> Authenticated:
    claimed = _find_signing_site(signature, request, lookups)
    signed = request if signature.is_legacy else _with_hashed_body(request)
    live_secret = _first_match(
        _candidate_secrets(claimed),
        lambda secret: signing.signatures_match(signature.text, _sign(secret, signature, signed)),
    )
    if claimed is None or live_secret is None:
        raise InvalidCredentials
    _check_timestamp(signature.timestamp)
    return Authenticated(
        Identity(claimed.site, _auth_method_of(signature), live_secret.credential_id),
        _digest(_single_use_value(signature)),
    )


def _with_hashed_body(request: PresentedRequest) -> PresentedRequest:
    """Hash the body once: it is signed again with every secret that is tried."""
    if isinstance(request.body, signing.BodyDigest):
        return request
    return replace(request, body=signing.BodyDigest(hashlib.sha256(request.body).hexdigest()))


def _find_signing_site(signature: RequestSignature, request: PresentedRequest, lookups: Lookups) -> SiteSecrets | None:
    """Return the claimed site, if it exists and accepts signatures of this form."""
    site_secrets, is_legacy = lookups.find_site_secrets(signature.site), signature.is_legacy
    # The legacy signature covers the body itself, so it cannot be verified from a digest.
    has_body = isinstance(request.body, bytes)
    return (
        site_secrets
        if site_secrets and (not is_legacy or (site_secrets.site.accepts_legacy_signature and has_body))
        else None
    )


def _auth_method_of(signature: RequestSignature) -> AuthMethod:
    return AuthMethod.LEGACY_SIGNATURE if signature.is_legacy else AuthMethod.SIGNED_REQUEST


def _sign(secret: str, signature: RequestSignature, request: PresentedRequest) -> str:
    if signature.is_legacy:
        body = request.body if isinstance(request.body, bytes) else b""
        return signing.sign_request_legacy(secret, timestamp=signature.timestamp, body=body)
    return signing.sign_request(
        secret,
        timestamp=signature.timestamp,
        nonce=signature.nonce,
        method=request.method,
        target=request.target,
        body=request.body,
    )


def _candidate_secrets(site_secrets: SiteSecrets | None, kid: str | None = None) -> tuple[LiveSecret, ...]:
    """Return the live secrets (with a `kid`, only the one with that id), padded with decoys to a fixed number."""
    live = site_secrets.secrets if site_secrets else ()
    padded = (*live, *DECOY_SECRETS[len(live) :])
    return tuple(
        each if kid in (None, each.credential_id) else decoy for each, decoy in zip(padded, DECOY_SECRETS, strict=True)
    )


def _first_match(candidates: Iterable[LiveSecret], fits: Callable[[str], bool]) -> LiveSecret | None:
    """Return the first candidate that fits. All are tried, in constant time; a decoy never fits."""
    matches = [each for each in candidates if fits(each.secret)]
    return matches[0] if matches else None


def _check_timestamp(text: str) -> None:
    if not TIMESTAMP_PATTERN.fullmatch(text):
        raise StaleTimestamp("X-Timestamp must be the time in whole seconds since 1970.")
    now = clock.unix_seconds()
    if abs(now - int(text)) > TIMESTAMP_TOLERANCE_SECONDS:
        raise StaleTimestamp(
            f"X-Timestamp is {int(text)}, but it is {now} here: more than {TIMESTAMP_TOLERANCE_SECONDS} s apart. "
            "Check the clock, and sign every attempt again."
        )


def _single_use_value(signature: RequestSignature) -> str:
    """Return the value that may be used once: the nonce, or a legacy signature itself."""
    if signature.is_legacy:
        return f"legacy\n{signature.text}"
    if not NONCE_PATTERN.fullmatch(signature.nonce):
        raise MalformedCredentials("X-Nonce must be 8 to 128 printable ASCII characters without spaces.")
    return f"v1\n{signature.nonce}"


def consume_nonce(site: Site, digest: bytes) -> None:
    """Consume a nonce. The unique row admits one request, over all processes."""
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
    unverified = _decode_unverified(token)
    claimed, kid = _claimed_site(unverified, lookups)
    content = token.rpartition(".")[0].encode()
    live_secret = _first_match(
        _candidate_secrets(claimed, kid), lambda secret: _is_valid_mac(unverified["signature"], secret, content)
    )
    if claimed is None or live_secret is None:
        raise InvalidCredentials
    return _restrict(
        Identity(claimed.site, AuthMethod.JWT, live_secret.credential_id), _verify_claims(token, live_secret.secret)
    )


def _decode_unverified(token: str) -> Mapping[str, Any]:
    """Decode a token into `header`, `payload` and `signature`, none of them verified."""
    if len(token) > JWT_MAX_LENGTH or not token.isascii():
        raise InvalidCredentials
    try:
        return jwt.decode_complete(token, options={"verify_signature": False})
    except jwt.InvalidTokenError as error:
        raise InvalidCredentials from error


def _claimed_site(unverified: Mapping[str, Any], lookups: Lookups) -> tuple[SiteSecrets | None, str | None]:
    """Return the site and the secret's id (`kid`) that an unverified token claims, if any."""
    subject, kid = unverified["payload"].get("sub"), unverified["header"].get("kid")
    site_secrets = lookups.find_site_secrets(subject) if isinstance(subject, str) else None
    # A subject is a slug. A public id would find the site too, but there is one way to write a subject.
    return (site_secrets if site_secrets and site_secrets.site.slug == subject else None), kid


def _is_valid_mac(mac: bytes, secret: str, content: bytes) -> bool:
    # Not PyJWT's own check, whose work depends on the secret. PyJWT verifies the token again in `_verify_claims`,
    # where it also rejects every algorithm but ours.
    return hmac.compare_digest(mac, hmac.digest(secret.encode(), content, "sha256"))


def _verify_claims(token: str, secret: str) -> Mapping[str, Any]:
    """Return the claims of a token signed with the secret, after checking its times."""
    try:
        claims: Mapping[str, Any] = jwt.decode(token, secret, algorithms=[JWT_ALGORITHM], options=PYJWT_OPTIONS)
    except jwt.InvalidTokenError as error:
        raise InvalidCredentials from error
    if "aud" in claims:
        raise MalformedCredentials("The token has an audience (aud); remove it.")
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
    # The bounds also exclude NaN, and integers too long to become a float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        raise MalformedCredentials(f"The token's {claim} must be a number of seconds since 1970.")
    return float(value)


def _restrict(identity: Identity, claims: Mapping[str, Any]) -> Identity:
    """Return the identity with the restrictions that the claims of its token state."""
    max_tokens = claims.get("max_tokens")
    if max_tokens is not None and (type(max_tokens) is not int or not 1 <= max_tokens < 2**31):
        raise MalformedCredentials("The token's max_tokens must be a positive whole number.")
    return replace(
        identity,
        scopes=_parse_scopes(claims.get("scope")),
        # Premium tiers are not for tokens, which browsers hold.
        grant=Grant(
            _text_claim(claims, "model"), max_tokens, allows_premium_tiers=identity.auth_method is not AuthMethod.TOKEN
        ),
        origin=_text_claim(claims, "origin"),
    )


def _parse_scopes(claim: object) -> frozenset[str] | None:
    """Parse `jobs:read jobs:write`, or a list of such scopes. An empty claim allows nothing."""
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
    if value is None or (isinstance(value, str) and value and _is_encodable(value)):
        return value
    raise MalformedCredentials(f"The token's {claim} must be text.")


def _is_encodable(text: str) -> bool:
    """JSON may hold half a surrogate pair, which is not text."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


# Tokens and tickets that Nightdesk minted


def _verify_narrow_token(token: str, lookups: Lookups) -> Identity:
    claims = minted_jwts.verify(JwtPurpose.TOKEN, token)
    # It is valid as long as its site is active and the credential that requested it is live.
    site = lookups.site_for_credential(claims["cred"])
    if site is None or site.public_id != claims["site"]:
        raise InvalidCredentials
    return _restrict(
        Identity(site, AuthMethod.TOKEN, claims["cred"], token_id=claims["jti"], user=claims.get("user")), claims
    )


def _ticket_refusal(text: str) -> MalformedCredentials:
    """Explain to the holder of a valid ticket what it is for; to anyone else, nothing."""
    minted_jwts.verify(JwtPurpose.TICKET, text)
    return MalformedCredentials("A ticket reads the events of its own stream or job, and nothing else.")


# API keys


def _verify_api_key(key: str, lookups: Lookups) -> Identity:
    match = API_KEY_PATTERN.fullmatch(key)
    if match is None:
        raise InvalidCredentials
    owner = lookups.find_key_owner(match[1])
    if not hmac.compare_digest(hash_key(key), owner.key_hash if owner else DECOY_KEY_HASH) or owner is None:
        raise InvalidCredentials
    return Identity(owner.site, AuthMethod.API_KEY, owner.credential_id)
