"""Provisioning of sites and credentials: create, issue, rotate, revoke. A secret is returned once, on creation."""

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.utils.text import slugify

from tenants import cached_lookups
from tenants.audit import COMMAND_LINE, Actor, audit
from tenants.errors import ProvisioningError, SlugTaken, TooManyLiveCredentials
from tenants.models import Credential, CredentialKind, Site

#: 0-9A-Za-z: 40 of these characters have 238 bits.
BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
KEY_PREFIX_LENGTH = 10
KEY_RANDOM_LENGTH = 40
API_KEY_PATTERN = re.compile(rf"nd_([0-9A-Za-z]{{{KEY_PREFIX_LENGTH}}})_[0-9A-Za-z]{{{KEY_RANDOM_LENGTH}}}")
#: Lower-case words joined by hyphens. No underscore, so that a slug is never taken for a public id.
SLUG_PATTERN = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
SLUG_LENGTH = 63
HINT_LENGTH = 4


@dataclass(frozen=True, slots=True)
class IssuedCredential:
    """A new credential with its secret, which cannot be shown again."""

    credential: Credential
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class NewSite:
    site: Site
    signing_secret: IssuedCredential
    api_key: IssuedCredential


def create_site(
    name: str, slug: str | None = None, origins: Sequence[str] = (), *, actor: Actor = COMMAND_LINE
) -> NewSite:
    """Create a site with one signing secret and one API key. `origins` as `access.normalize_origin` returns them.

    Raises:
        SlugTaken: another site has the requested slug.
        ProvisioningError: the name or slug is not valid.
    """
    name = name.strip()
    if not name or len(name) > 200 or not name.isprintable():
        raise ProvisioningError("A site's name is 1 to 200 printable characters.")
    if slug is not None and (len(slug) > SLUG_LENGTH or not SLUG_PATTERN.fullmatch(slug)):
        raise ProvisioningError(
            f"A slug is up to {SLUG_LENGTH} lower-case letters, digits and single hyphens; got {slug!r}."
        )
    with transaction.atomic():
        site = _insert_site(name, slug, list(origins))
        audit(actor, "site.create", site.public_id, site, {"slug": site.slug})
        return NewSite(
            site,
            issue(site, CredentialKind.SIGNING_SECRET, actor=actor),
            issue(site, CredentialKind.API_KEY, actor=actor),
        )


def _insert_site(name: str, slug: str | None, origins: list[str]) -> Site:
    """Insert with the requested slug, or one derived from the name, with a random suffix if that is taken."""
    base = slug or re.sub(r"[^a-z0-9]+", "-", slugify(name))[: SLUG_LENGTH - 9].strip("-")
    suffix = secrets.token_hex(4)
    for candidate in (base, None if slug else f"{base}-{suffix}".lstrip("-")):
        if candidate and SLUG_PATTERN.fullmatch(candidate):
            try:
                with transaction.atomic():
                    return Site.objects.create(name=name, slug=candidate, origins=origins)
            except IntegrityError:
                continue
    raise SlugTaken(f"There is a site with the slug {base!r} already.")


def issue(site: Site, kind: str, *, actor: Actor = COMMAND_LINE) -> IssuedCredential:
    """Create one more live credential. Raises `TooManyLiveCredentials`."""
    with transaction.atomic():
        _lock_site(site)
        issued = _create_credential(site, kind)
        audit(actor, f"{kind}.issue", issued.credential.public_id, site)
    return issued


def rotate(site: Site, kind: str, overlap: timedelta, *, actor: Actor = COMMAND_LINE) -> IssuedCredential:
    """Create a credential; the live ones of its kind expire after the overlap, if not before."""
    if overlap < timedelta(0):
        raise ProvisioningError("The overlap cannot be negative.")
    with transaction.atomic():
        _lock_site(site)
        expires_at = Now() + overlap
        live_credentials(site, kind).filter(Q(expires_at=None) | Q(expires_at__gt=expires_at)).update(
            expires_at=expires_at
        )
        issued = _create_credential(site, kind)
        details = {"overlap_seconds": int(overlap.total_seconds())}
        audit(actor, f"{kind}.rotate", issued.credential.public_id, site, details)
    return issued


def revoke(credential: Credential, *, actor: Actor = COMMAND_LINE) -> bool:
    """Revoke a credential, in effect everywhere within a second. False if it was revoked before."""
    with transaction.atomic():
        if not Credential.objects.filter(id=credential.id, revoked_at=None).update(revoked_at=Now()):
            return False
        audit(actor, f"{credential.kind}.revoke", credential.public_id, credential.site)
    transaction.on_commit(cached_lookups.clear_caches)
    return True


def live_credentials(site: Site, kind: str) -> QuerySet[Credential]:
    """Return the credentials that still authenticate."""
    return Credential.objects.filter(cached_lookups.IS_LIVE, site=site, kind=kind)


def hash_key(key: str) -> bytes:
    """Hash an API key for storage.

    A slow hash protects guessable passwords. These keys have 238 random bits, which cannot be guessed at any speed,
    and the hash is computed for every request.
    """
    return hashlib.sha256(key.encode()).digest()


def _lock_site(site: Site) -> None:
    """Lock the site's row, so that two concurrent rotations count each other's credentials."""
    Site.objects.select_for_update().only("id").get(id=site.id)


def _create_credential(site: Site, kind: str) -> IssuedCredential:
    if live_credentials(site, kind).count() >= cached_lookups.MAX_LIVE_CREDENTIALS:
        raise TooManyLiveCredentials(
            f"{site.slug} has {cached_lookups.MAX_LIVE_CREDENTIALS} live credentials of this kind. "
            "Revoke one that is not used."
        )
    # The caches of this process would be at most a second old; a new credential should work immediately.
    transaction.on_commit(cached_lookups.clear_caches)
    return _new_signing_secret(site) if kind == CredentialKind.SIGNING_SECRET else _new_api_key(site)


def _new_signing_secret(site: Site) -> IssuedCredential:
    # Logs redact texts that begin with `nd_`. An API key has another form.
    secret = f"nd_sig_{_random_base62(43)}"
    credential = Credential.objects.create(
        site=site,
        kind=CredentialKind.SIGNING_SECRET,
        secret=secret.encode(),
        hint=secret[-HINT_LENGTH:],
    )
    return IssuedCredential(credential, secret)


def _new_api_key(site: Site) -> IssuedCredential:
    prefix = _random_base62(KEY_PREFIX_LENGTH)
    key = f"nd_{prefix}_{_random_base62(KEY_RANDOM_LENGTH)}"
    credential = Credential.objects.create(
        site=site, kind=CredentialKind.API_KEY, key_prefix=prefix, key_hash=hash_key(key), hint=key[-HINT_LENGTH:]
    )
    return IssuedCredential(credential, key)


def _random_base62(length: int) -> str:
    return "".join(secrets.choice(BASE62) for _ in range(length))
