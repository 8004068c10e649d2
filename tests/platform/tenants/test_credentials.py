"""Provisioning: creating sites, and issuing, rotating and revoking credentials."""

import hashlib
from datetime import timedelta

import pytest
from django.db import connection

from tenants import cached_lookups
from tenants.audit import Actor
from tenants.credentials import API_KEY_PATTERN, NewSite, create_site, issue, live_credentials, revoke, rotate
from tenants.errors import ProvisioningError, SlugTaken, TooManyLiveCredentials
from tenants.models import AuditEntry, Credential, CredentialKind, Site

SECRET, KEY = CredentialKind.SIGNING_SECRET, CredentialKind.API_KEY


def test_a_new_site_can_sign_and_has_a_key(bakery: NewSite) -> None:
    assert bakery.site.slug == "bakery"
    assert len(bakery.signing_secret.secret) >= 40
    assert API_KEY_PATTERN.fullmatch(bakery.api_key.secret)


def test_secrets_do_not_show_in_a_repr(bakery: NewSite) -> None:
    assert bakery.api_key.secret not in repr(bakery)
    assert bakery.signing_secret.secret not in repr(bakery)


def test_only_the_hash_of_an_api_key_is_stored(bakery: NewSite) -> None:
    row = Credential.objects.get(id=bakery.api_key.credential.id)

    assert row.secret is None
    assert bytes(row.key_hash or b"") == hashlib.sha256(bakery.api_key.secret.encode()).digest()
    assert bakery.api_key.secret == f"nd_{row.key_prefix}_{bakery.api_key.secret[14:]}"
    assert bakery.api_key.secret.endswith(row.hint)


def test_a_signing_secret_is_encrypted_in_the_database(bakery: NewSite) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT secret FROM tenants_credential WHERE kind = 'signing_secret'")
        stored = bytes(cursor.fetchone()[0])

    assert bakery.signing_secret.secret.encode() not in stored
    assert Credential.objects.get(kind=SECRET).secret == bakery.signing_secret.secret.encode()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("name", "slug"),
    [("Corner Bakery", "corner-bakery"), ("Crème  Brûlée!", "creme-brulee"), ("a_-b", "a-b"), ("x" * 150, "x" * 54)],
)
def test_a_slug_is_derived_from_the_name(name: str, slug: str) -> None:
    assert create_site(name).site.slug == slug


@pytest.mark.django_db
def test_a_name_without_latin_letters_still_gets_a_slug() -> None:
    assert len(create_site("パン屋").site.slug) == 8


def test_a_derived_slug_that_is_taken_gets_a_suffix(bakery: NewSite) -> None:
    assert create_site("Bakery").site.slug.startswith("bakery-")


def test_a_requested_slug_that_is_taken_is_rejected(bakery: NewSite) -> None:
    with pytest.raises(SlugTaken, match="'bakery'"):
        create_site("Another", "bakery")

    assert Site.objects.count() == 1


@pytest.mark.django_db
@pytest.mark.parametrize("slug", ["", "Bakery", "site_01k", "a--b", "-a", "a b", "x" * 64])
def test_an_invalid_slug_is_rejected(slug: str) -> None:
    with pytest.raises(ProvisioningError, match="slug"):
        create_site("Bakery", slug)


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["", "   ", "x" * 201, "a\nb", "a\0b"])
def test_an_invalid_name_is_rejected(name: str) -> None:
    with pytest.raises(ProvisioningError, match="name"):
        create_site(name)


def test_after_a_rotation_old_and_new_are_live_until_the_overlap_ends(bakery: NewSite) -> None:
    new = rotate(bakery.site, SECRET, timedelta(hours=1))

    assert set(live_credentials(bakery.site, SECRET)) == {bakery.signing_secret.credential, new.credential}
    assert live_credentials(bakery.site, SECRET).get(expires_at=None) == new.credential
    Credential.objects.filter(id=bakery.signing_secret.credential.id).update(expires_at="2026-01-01T00:00:00Z")
    assert set(live_credentials(bakery.site, SECRET)) == {new.credential}


def test_a_rotation_without_overlap_expires_the_old_one_immediately(bakery: NewSite) -> None:
    new = rotate(bakery.site, KEY, timedelta(0))

    assert set(live_credentials(bakery.site, KEY)) == {new.credential}


def test_a_rotation_touches_only_its_kind_and_site(bakery: NewSite, florist: NewSite) -> None:
    rotate(bakery.site, KEY, timedelta(0))

    assert live_credentials(bakery.site, SECRET).count() == 1
    assert live_credentials(florist.site, KEY).count() == 1


def test_a_second_rotation_does_not_prolong_a_credential_that_expires_sooner(bakery: NewSite) -> None:
    rotate(bakery.site, KEY, timedelta(minutes=1))
    ends_at = Credential.objects.get(id=bakery.api_key.credential.id).expires_at

    rotate(bakery.site, KEY, timedelta(days=1))

    assert Credential.objects.get(id=bakery.api_key.credential.id).expires_at == ends_at


def test_a_negative_overlap_is_rejected(bakery: NewSite) -> None:
    with pytest.raises(ProvisioningError):
        rotate(bakery.site, KEY, timedelta(seconds=-1))


def test_there_are_never_more_live_credentials_than_authentication_tries(bakery: NewSite) -> None:
    for _ in range(cached_lookups.MAX_LIVE_CREDENTIALS - 1):
        issue(bakery.site, SECRET)

    with pytest.raises(TooManyLiveCredentials):
        issue(bakery.site, SECRET)
    with pytest.raises(TooManyLiveCredentials):
        rotate(bakery.site, SECRET, timedelta(hours=1))

    assert live_credentials(bakery.site, SECRET).filter(expires_at=None).count() == cached_lookups.MAX_LIVE_CREDENTIALS


def test_revoking_twice_changes_nothing(bakery: NewSite) -> None:
    assert revoke(bakery.api_key.credential) is True
    assert revoke(bakery.api_key.credential) is False

    assert not live_credentials(bakery.site, KEY).exists()
    assert AuditEntry.objects.filter(action="api_key.revoke").count() == 1


@pytest.mark.django_db
def test_every_action_is_audited_with_its_actor_and_without_secrets() -> None:
    ada = Actor("ada", "192.0.2.1")
    made = create_site("Bakery", actor=ada)
    rotated = rotate(made.site, KEY, timedelta(hours=1), actor=ada)
    issued = issue(made.site, SECRET, actor=ada)
    revoke(issued.credential, actor=ada)

    entries = list(AuditEntry.objects.order_by("id"))

    assert [entry.action for entry in entries] == [
        "site.create",
        "signing_secret.issue",
        "api_key.issue",
        "api_key.rotate",
        "signing_secret.issue",
        "signing_secret.revoke",
    ]
    assert {(entry.actor, entry.address, entry.site_id) for entry in entries} == {("ada", "192.0.2.1", made.site.id)}
    assert entries[3].details == {"overlap_seconds": 3600}
    assert entries[-1].subject == issued.credential.public_id
    written = repr([vars(entry) for entry in entries])
    assert not any(each.secret in written for each in (made.signing_secret, made.api_key, rotated, issued))
