"""Cached look-ups: at most a second old, and of live credentials of active sites only."""

from dataclasses import dataclass

import psycopg
import pytest
from django.db import connection

from core.ids import to_public
from core.ttl_cache import TTLCache
from tenants import cached_lookups
from tenants.cached_lookups import CachedLookups, KeyOwner, SiteSecrets, with_cached_lookups
from tenants.credentials import NewSite, issue, revoke
from tenants.errors import InvalidCredentials
from tenants.models import Credential, CredentialKind, Site
from tests.counting_threads import CountingThreads


@dataclass
class Clock:
    seconds: float = 100.0

    def __call__(self) -> float:
        return self.seconds


async def test_a_decision_from_cached_values_runs_again_after_each_miss(threads: CountingThreads) -> None:
    cache: TTLCache[str, str] = TTLCache(str.upper)
    runs = 0

    def decide(lookups: CachedLookups) -> str:
        nonlocal runs
        runs += 1
        return lookups.peek(cache, "a") + lookups.peek(cache, "b")

    assert await with_cached_lookups(decide, threads) == "AB"
    assert (runs, threads.calls) == (3, ["load", "load"])
    assert await with_cached_lookups(decide, threads) == "AB"
    assert (runs, threads.calls) == (4, ["load", "load"])


async def test_a_cache_that_drops_every_entry_does_not_loop_for_ever(threads: CountingThreads) -> None:
    cache: TTLCache[str, str] = TTLCache(str.upper, ttl_seconds=0)

    with pytest.raises(InvalidCredentials):
        await with_cached_lookups(lambda lookups: lookups.peek(cache, "a"), threads)


def test_live_credentials_of_both_kinds_lead_to_their_site(bakery: NewSite, florist: NewSite) -> None:
    for made in (bakery, florist):
        for issued in (made.api_key, made.signing_secret):
            assert cached_lookups.site_for_credential(issued.credential.public_id) == made.site
    assert cached_lookups.site_for_credential("key_01ka2m7v5xf3v8k0q9r6t4w2ye") is None
    assert cached_lookups.site_for_credential(bakery.site.public_id) is None


def test_a_revoked_credential_or_an_inactive_site_leads_to_no_site(bakery: NewSite) -> None:
    revoke(bakery.api_key.credential)
    assert cached_lookups.load_site_for_credential(bakery.api_key.credential.public_id) is None
    assert cached_lookups.load_site_for_credential(bakery.signing_secret.credential.public_id) == bakery.site

    Site.objects.update(is_active=False)
    assert cached_lookups.load_site_for_credential(bakery.signing_secret.credential.public_id) is None


def test_a_site_is_found_by_id_and_by_slug_with_its_live_secrets(bakery: NewSite) -> None:
    second = issue(bakery.site, CredentialKind.SIGNING_SECRET)
    cached_lookups.clear_caches()

    by_slug, by_id = cached_lookups.find_site_secrets("bakery"), cached_lookups.find_site_secrets(bakery.site.public_id)

    assert by_slug is not None
    assert by_slug == by_id
    assert by_slug.site == bakery.site
    assert {each.secret for each in by_slug.secrets} == {bakery.signing_secret.secret, second.secret}


def test_only_live_credentials_of_active_sites_are_found(bakery: NewSite, florist: NewSite) -> None:
    revoke(bakery.signing_secret.credential)
    Credential.objects.filter(id=bakery.api_key.credential.id).update(expires_at="2026-01-01T00:00:00Z")
    Site.objects.filter(id=florist.site.id).update(is_active=False)

    assert cached_lookups.find_site_secrets("bakery") is None
    assert cached_lookups.find_key_owner(prefix_of(bakery)) is None
    assert cached_lookups.find_site_secrets("florist") is None
    assert cached_lookups.find_key_owner(prefix_of(florist)) is None


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["", "nobody", "a\0b", "\ud800", "ünder", "x" * 64, "site_zzz", "site_" + "z" * 26])
def test_a_malformed_name_finds_no_site(name: str) -> None:
    assert cached_lookups.find_site_secrets(name) is None


@pytest.mark.django_db
def test_an_unknown_id_finds_no_site(bakery: NewSite) -> None:
    assert cached_lookups.find_site_secrets(to_public("site", bakery.api_key.credential.id)) is None


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE tenants_credential SET revoked_at = now()",
        "UPDATE tenants_site SET is_active = false",
        "UPDATE tenants_credential SET expires_at = now()",
    ],
)
def test_a_change_by_another_process_takes_effect_within_a_second(bakery: NewSite, change: str) -> None:
    clock = Clock()
    keys: TTLCache[str, KeyOwner | None] = TTLCache(cached_lookups.load_key_owner, clock=clock)
    sites: TTLCache[str, SiteSecrets | None] = TTLCache(cached_lookups.load_site_secrets, clock=clock)
    assert keys.get(prefix_of(bakery)) is not None
    assert sites.get("bakery") is not None

    with elsewhere() as other:
        other.execute(change)
    clock.seconds += 1

    assert keys.get(prefix_of(bakery)) is None
    assert sites.get("bakery") is None


@pytest.mark.django_db(transaction=True)
def test_a_changed_allowlist_takes_effect_within_a_second(bakery: NewSite) -> None:
    clock = Clock()
    sites: TTLCache[str, SiteSecrets | None] = TTLCache(cached_lookups.load_site_secrets, clock=clock)
    sites.get("bakery")

    with elsewhere() as other:
        other.execute("UPDATE tenants_site SET ip_allowlist = '{10.0.0.0/8}'")
    clock.seconds += 1

    found = sites.get("bakery")
    assert found is not None
    assert found.site.ip_allowlist == ["10.0.0.0/8"]


@pytest.mark.django_db(transaction=True)
def test_a_revocation_takes_effect_immediately_in_its_own_process(bakery: NewSite) -> None:
    assert cached_lookups.find_key_owner(prefix_of(bakery)) is not None

    revoke(bakery.api_key.credential)

    assert cached_lookups.find_key_owner(prefix_of(bakery)) is None


def prefix_of(made: NewSite) -> str:
    return made.api_key.credential.key_prefix or ""


def elsewhere() -> psycopg.Connection:
    """Connect to the same database as another process would."""
    known = connection.get_connection_params()
    return psycopg.connect(
        host=known["host"],
        port=known["port"],
        user=known["user"],
        password=known["password"],
        dbname=known["dbname"],
        autocommit=True,
    )
