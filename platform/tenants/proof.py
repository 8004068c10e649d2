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
from tenants import directory, minted
from tenants.credentials import KEY_FORM, hash_key
from tenants.directory import LiveSecret, Lookups, SiteSecrets
from tenants.errors import Contradicting, Missing, NotProven, Replayed, Stale, Unfit
from tenants.grant import UNRESTRICTED, Grant
from tenants.minted import Use
from tenants.models import Site, UsedNonce

WINDOW_SECONDS = 60
#: Longer than any signature could still be accepted: the window on both sides, and clocks that differ.
NONCES_KEPT = timedelta(minutes=5)
NONCE_FORM = re.compile(r"[\x21-\x7e]{8,128}")
SIGNATURE_FORM = re.compile(r"(v1=)?[0-9a-f]{64}")
TIMESTAMP_FORM = re.compile(r"0|[1-9][0-9]{0,11}")

JWT_ALGORITHM = "HS256"
JWT_LONGEST_SECONDS = 3600
JWT_LEEWAY_SECONDS = 30
#: What a JWT of ours could need; nobody makes us parse more.
JWT_LONGEST_TEXT = 4096
#: Times are checked here, against the clock that tests can set.
OUR_OWN_CHECKS = Options(verify_exp=False, verify_iat=False, verify_nbf=False, verify_aud=False)
SCOPE_FORM = re.compile(r"[a-z]+:[a-z]+")

DECOYS = tuple(LiveSecret("", secrets.token_urlsafe(48)) for _ in range(directory.MAX_LIVE))
DECOY_HASH = secrets.token_bytes(32)
ASKING = directory.Asking()


class Means(StrEnum):
    """What was proved with."""

    SIGNED_REQUEST = "signed_request"
    OLDER_SIGNATURE = "older_signature"
    JWT = "jwt"
    #: A narrow JWT that the desk minted (`tenants.tokens`).
    TOKEN = "token"  # noqa: S105 (a kind, not a secret)
    API_KEY = "api_key"


@dataclass(frozen=True, slots=True)
class Presented:
    """A request, as far as it can prove something."""

    method: str
    #: Path and query exactly as sent.
    target: str
    #: Found by lower-case name.
    headers: Mapping[str, str]
    body: bytes | signing.Hashed


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks, and how narrow the proof is. None means: not narrowed."""

    site: Site
    means: Means
    credential_id: str
    scopes: frozenset[str] | None = None
    grant: Grant = UNRESTRICTED
    origin: str | None = None
    #: Which narrow token it was, for there are many of one credential.
    token_id: str | None = None
    #: Who the narrow token is for, in the words of the site's front end.
    user: str | None = None


@dataclass(frozen=True, slots=True)
class Proven:
    """A proof that holds, once its nonce is used up: here (`prove`), or in Redis (the live path)."""

    identity: Identity
    #: What may be used once by the site: a digest. None: nothing.
    nonce: bytes | None = None


@dataclass(frozen=True, slots=True)
class Signature:
    """The headers of a signed request. Absent ones are empty."""

    site: str
    timestamp: str
    nonce: str
    text: str

    @property
    def is_older(self) -> bool:
        return not self.text.startswith("v1=")


@dataclass(frozen=True, slots=True)
class Token:
    """A JWT or an API key."""

    text: str


Proof: TypeAlias = Signature | Token


def prove(asked: Presented) -> Identity:
    """Return who asks.

    Raises:
        Unauthenticated: nothing was given, or it proves nothing, or it was right but may not be used now.
    """
    proven = check(asked)
    if proven.nonce is not None:
        use_up(proven.identity.site, proven.nonce)
    return proven.identity


def check(asked: Presented, lookups: Lookups = ASKING) -> Proven:
    """Return who asks, and what is left to do: to use up the nonce, which lets a signed request in once.

    Raises:
        Unauthenticated: as `prove` does, but for `Replayed`.
        NotRemembered: with lookups that are `directory.Remembered`.
    """
    proven = _check(find_proof(asked.headers), asked, lookups)
    named = asked.headers.get("x-site-id")
    if named and named not in (proven.identity.site.public_id, proven.identity.site.slug):
        raise Contradicting
    return proven


def foresee(asked: Presented) -> Identity:
    """Return who a signed request whose body is not here yet would be from. It proves nothing, and uses nothing up.

    What no body can mend is refused: for a long one that is not read costs nobody anything. That an unknown site is
    refused earlier than a wrong signature tells who is known here. So this is for long bodies alone.

    Raises:
        Unauthenticated: the request cannot be proven, whatever its body.
    """
    given = find_proof(asked.headers)
    if not isinstance(given, Signature) or not SIGNATURE_FORM.fullmatch(given.text):
        raise NotProven
    _check_timestamp(given.timestamp)
    digest = _digest_of(_nonce_of(given))
    named = _usable(given, asked, ASKING)
    if named is None:
        raise NotProven
    if UsedNonce.objects.filter(site=named.site, digest=digest).exists():
        raise Replayed
    return Identity(named.site, _means_of(given), credential_id="")


def find_proof(headers: Mapping[str, str]) -> Proof:
    """Pick the one proof that the headers carry. Raises `Missing` or `Contradicting`."""
    tokens = {token for token in (_bearer(headers), headers.get("x-api-key")) if token}
    signature = headers.get("x-signature")
    if len(tokens) + bool(signature) > 1:
        raise Contradicting
    if signature:
        site, timestamp, nonce = (headers.get(name, "") for name in ("x-site-id", "x-timestamp", "x-nonce"))
        return Signature(site, timestamp, nonce, signature)
    if tokens:
        return Token(tokens.pop())
    raise Missing


def forget_nonces() -> int:
    """Delete the nonces that are too old to be of use; return how many. Run it now and then."""
    return UsedNonce.objects.filter(used_at__lt=Now() - NONCES_KEPT).delete()[0]


def _bearer(headers: Mapping[str, str]) -> str | None:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _check(proof: Proof, asked: Presented, lookups: Lookups) -> Proven:
    match proof:
        case Signature():
            return _check_signature(proof, asked, lookups)
        case Token(text) if text.startswith("nd_"):
            return Proven(_check_key(text, lookups))
        case Token(text) if minted.is_minted(Use.TOKEN, text):
            return Proven(_check_minted(text, lookups))
        case Token(text) if minted.is_minted(Use.TICKET, text):
            raise _refusal_of_ticket(text)
        case Token(text) if text.count(".") == 2:
            return Proven(_check_jwt(text, lookups))
        case Token(text):
            return Proven(_check_key(text, lookups))


# Signed requests: the signature, then the time, then the nonce. Only who holds the secret gets to use up a nonce.


def _check_signature(given: Signature, asked: Presented, lookups: Lookups) -> Proven:
    usable = _usable(given, asked, lookups)
    signed = asked if given.is_older else _hashed(asked)
    live = _first_that_fits(_to_try(usable), lambda secret: signing.same(given.text, _sign(secret, given, signed)))
    if usable is None or live is None:
        raise NotProven
    _check_timestamp(given.timestamp)
    return Proven(Identity(usable.site, _means_of(given), live.credential_id), _digest_of(_nonce_of(given)))


def _hashed(asked: Presented) -> Presented:
    """Hash the body once, for it is signed anew with every secret that is tried."""
    if isinstance(asked.body, signing.Hashed):
        return asked
    return replace(asked, body=signing.Hashed(hashlib.sha256(asked.body).hexdigest()))


def _usable(given: Signature, asked: Presented, lookups: Lookups) -> SiteSecrets | None:
    """Return the site that is named, if it exists and takes signatures of this form."""
    known, is_older = lookups.find_site(given.site), given.is_older
    # The older form covers the body itself, so it proves nothing of one that is not held.
    is_held = isinstance(asked.body, bytes)
    return known if known and (not is_older or (known.site.accepts_older_signature and is_held)) else None


def _means_of(given: Signature) -> Means:
    return Means.OLDER_SIGNATURE if given.is_older else Means.SIGNED_REQUEST


def _sign(secret: str, given: Signature, asked: Presented) -> str:
    if given.is_older:
        body = asked.body if isinstance(asked.body, bytes) else b""
        return signing.sign_request_older(secret, timestamp=given.timestamp, body=body)
    return signing.sign_request(
        secret,
        timestamp=given.timestamp,
        nonce=given.nonce,
        method=asked.method,
        target=asked.target,
        body=asked.body,
    )


def _to_try(known: SiteSecrets | None, kid: str | None = None) -> tuple[LiveSecret, ...]:
    """Return the live secrets (with a `kid`: the one with that id), and a decoy in every place that is left."""
    live = known.secrets if known else ()
    filled_up = (*live, *DECOYS[len(live) :])
    return tuple(
        each if kid in (None, each.credential_id) else decoy for each, decoy in zip(filled_up, DECOYS, strict=True)
    )


def _first_that_fits(tried: Iterable[LiveSecret], fits: Callable[[str], bool]) -> LiveSecret | None:
    """Try all of them, whichever fits; no decoy ever does."""
    fitting = [live for live in tried if fits(live.secret)]
    return fitting[0] if fitting else None


def _check_timestamp(text: str) -> None:
    if not TIMESTAMP_FORM.fullmatch(text):
        raise Stale("X-Timestamp must be the time in whole seconds since 1970.")
    now = clock.unix_seconds()
    if abs(now - int(text)) > WINDOW_SECONDS:
        raise Stale(
            f"X-Timestamp is {int(text)}, and it is {now} here: more than {WINDOW_SECONDS} s apart. "
            "Check the clock, and sign every try anew."
        )


def _nonce_of(given: Signature) -> str:
    """Return what may be used once: the nonce, or in the older form the signature itself."""
    if given.is_older:
        return f"older\n{given.text}"
    if not NONCE_FORM.fullmatch(given.nonce):
        raise Unfit("X-Nonce must be 8 to 128 printable ASCII characters without spaces.")
    return f"v1\n{given.nonce}"


def use_up(site: Site, digest: bytes) -> None:
    """Use up a nonce. The unique row lets one request in, over all processes."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO tenants_usednonce (site_id, digest) VALUES (%s, %s) ON CONFLICT DO NOTHING",
                [site.id, digest],
            )
            used = cursor.rowcount == 1
    except IntegrityError as error:
        raise NotProven from error  # the site was deleted within the last second
    if not used:
        raise Replayed


def _digest_of(nonce: str) -> bytes:
    return hashlib.sha256(nonce.encode()).digest()


# JWT


def _check_jwt(token: str, lookups: Lookups) -> Identity:
    unproven = _read_jwt(token)
    named, kid = _named_in(unproven, lookups)
    content = token.rpartition(".")[0].encode()
    live = _first_that_fits(_to_try(named, kid), lambda secret: _is_mac(unproven["signature"], secret, content))
    if named is None or live is None:
        raise NotProven
    return _narrowed(Identity(named.site, Means.JWT, live.credential_id), _claims_of(token, live.secret))


def _read_jwt(token: str) -> Mapping[str, Any]:
    """Take a token apart, into `header`, `payload` and `signature`, none of them proven."""
    if len(token) > JWT_LONGEST_TEXT or not token.isascii():
        raise NotProven
    try:
        return jwt.decode_complete(token, options={"verify_signature": False})
    except jwt.InvalidTokenError as error:
        raise NotProven from error


def _named_in(unproven: Mapping[str, Any], lookups: Lookups) -> tuple[SiteSecrets | None, str | None]:
    """Return the site and the secret's id (`kid`) that an unproven token names, as far as it names any."""
    subject, kid = unproven["payload"].get("sub"), unproven["header"].get("kid")
    known = lookups.find_site(subject) if isinstance(subject, str) else None
    # A subject is a slug. A public id would find the site too, and there should be one way to say it.
    return (known if known and known.site.slug == subject else None), kid


def _is_mac(given: bytes, secret: str, content: bytes) -> bool:
    # Not PyJWT's own check, whose work depends on what the secret looks like. It has its say in `_claims_of`,
    # where it also refuses every other algorithm than ours.
    return hmac.compare_digest(given, hmac.digest(secret.encode(), content, "sha256"))


def _claims_of(token: str, secret: str) -> Mapping[str, Any]:
    """Return the claims of a token that is signed with the secret, once its times are checked too."""
    try:
        claims: Mapping[str, Any] = jwt.decode(token, secret, algorithms=[JWT_ALGORITHM], options=OUR_OWN_CHECKS)
    except jwt.InvalidTokenError as error:
        raise NotProven from error
    if "aud" in claims:
        raise Unfit("The token has an audience (aud); tokens for this desk have none.")
    now = clock.now().timestamp()
    expires_at = _moment(claims, "exp")
    if expires_at is None:
        raise Unfit("The token needs an end (exp), within an hour.")
    if expires_at <= now - JWT_LEEWAY_SECONDS:
        raise Stale("The token has expired.")
    if expires_at > now + JWT_LONGEST_SECONDS + JWT_LEEWAY_SECONDS:
        raise Unfit("The token's end (exp) must be within an hour.")
    for claim in ("iat", "nbf"):
        if (_moment(claims, claim) or 0) > now + JWT_LEEWAY_SECONDS:
            raise Stale(f"The token's {claim} is in the future; check the clock.")
    return claims


def _moment(claims: Mapping[str, Any], claim: str) -> float | None:
    value = claims.get(claim)
    if value is None:
        return None
    # The bounds also keep out NaN, and whole numbers too long to become a float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        raise Unfit(f"The token's {claim} must be a number of seconds since 1970.")
    return float(value)


def _narrowed(identity: Identity, claims: Mapping[str, Any]) -> Identity:
    """Return the identity as narrow as the claims of its token say."""
    max_tokens = claims.get("max_tokens")
    if max_tokens is not None and (type(max_tokens) is not int or not 1 <= max_tokens < 2**31):
        raise Unfit("The token's max_tokens must be a positive whole number.")
    return replace(
        identity,
        scopes=_scopes(claims.get("scope")),
        # Premium tiers are not for a token in a browser's hands.
        grant=Grant(_words(claims, "model"), max_tokens, allows_premium_tiers=identity.means is not Means.TOKEN),
        origin=_words(claims, "origin"),
    )


def _scopes(claim: object) -> frozenset[str] | None:
    """Read `jobs:read jobs:write`, or a list of such words. An empty claim allows nothing."""
    if claim is None:
        return None
    words = claim.split() if isinstance(claim, str) else claim
    if not isinstance(words, list) or not all(isinstance(word, str) and SCOPE_FORM.fullmatch(word) for word in words):
        raise Unfit("The token's scope must be words like jobs:write, separated by spaces.")
    return frozenset(words)


def _words(claims: Mapping[str, Any], claim: str) -> str | None:
    value = claims.get(claim)
    if value is None or (isinstance(value, str) and value):
        return value
    raise Unfit(f"The token's {claim} must be text.")


# What the desk minted itself


def _check_minted(token: str, lookups: Lookups) -> Identity:
    claims = minted.read(Use.TOKEN, token)
    # It ends with its site, and with the credential that it was asked for with.
    site = lookups.find_voucher(claims["cred"])
    if site is None or site.public_id != claims["site"]:
        raise NotProven
    return _narrowed(
        Identity(site, Means.TOKEN, claims["cred"], token_id=claims["jti"], user=claims.get("user")), claims
    )


def _refusal_of_ticket(text: str) -> Unfit:
    """Tell who holds a ticket of ours what it is for; anybody else, nothing."""
    minted.read(Use.TICKET, text)
    return Unfit("A ticket opens the events of its own stream or job, and nothing else.")


# API keys


def _check_key(key: str, lookups: Lookups) -> Identity:
    form = KEY_FORM.fullmatch(key)
    if form is None:
        raise NotProven
    owner = lookups.find_key(form[1])
    if not hmac.compare_digest(hash_key(key), owner.key_hash if owner else DECOY_HASH) or owner is None:
        raise NotProven
    return Identity(owner.site, Means.API_KEY, owner.credential_id)
