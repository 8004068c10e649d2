"""Hot look-ups: fresh within a second, bounded, and of live credentials only."""

import threading
from dataclasses import dataclass

import psycopg
import pytest
from django.db import connection

from core.ids import to_public
from tenants import cached_lookups
from tenants.cached_lookups import CachedLookups, CacheMiss, TTLCache
from tenants.credentials import NewSite, issue, revoke
from tenants.models import Credential, CredentialKind, Site


@dataclass
class Clock:
    seconds: float = 100.0

    def __call__(self) -> float:
        return self.seconds


class Loads:
    """A source that counts how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, key: str) -> str | None:
        self.asked.append(key)
        return None if key == "nobody" else key.upper()


def test_what_was_loaded_is_remembered_for_less_than_a_second() -> None:
    clock, loads = Clock(), Loads()
    cache = TTLCache(loads, clock=clock)

    assert cache.get("a") == cache.get("a") == "A"
    clock.seconds += 0.89
    cache.get("a")
    assert loads.asked == ["a"]
    clock.seconds += 0.02
    cache.get("a")

    assert loads.asked == ["a", "a"]
    assert cached_lookups.TTL_SECONDS < 1


def test_a_name_that_is_not_there_is_remembered_too() -> None:
    loads = Loads()
    cache = TTLCache(loads, clock=Clock())

    assert cache.get("nobody") is cache.get("nobody") is None
    assert loads.asked == ["nobody"]


def test_the_age_counts_from_before_the_query() -> None:
    clock = Clock()

    def slow(key: str) -> float:
        clock.seconds += 0.8
        return clock.seconds

    cache = TTLCache(slow, clock=clock)
    first = cache.get("a")
    clock.seconds += 0.2

    assert cache.get("a") != first


def test_only_so_much_is_remembered_and_the_oldest_goes_first() -> None:
    loads = Loads()
    cache = TTLCache(loads, size=3, clock=Clock())

    for key in "abcda":
        cache.get(key)

    assert len(cache) == 3
    assert loads.asked == ["a", "b", "c", "d", "a"]


def test_threads_may_ask_at_once() -> None:
    cache = TTLCache(str.upper, seconds=0, size=5)
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            for number in range(2000):
                assert cache.get(f"k{number % 20}") == f"K{number % 20}"
                if number % 50 == 0:
                    cache.clear()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not failed


def test_what_is_not_remembered_is_not_waited_for_by_who_may_not() -> None:
    clock, loads = Clock(), Loads()
    cache = TTLCache(loads, clock=clock)
    remembered = CachedLookups()

    with pytest.raises(CacheMiss) as caught:
        remembered.peek(cache, "a")
    assert loads.asked == []
    caught.value.cache.load(caught.value.key)

    assert (remembered.peek(cache, "a"), remembered.due_for_refresh) == ("A", [])
    clock.seconds += cached_lookups.REFRESH_AFTER_SECONDS + 0.01
    assert remembered.peek(cache, "a") == "A"
    assert [(each.cache, each.key) for each in remembered.due_for_refresh] == [(cache, "a")]
    clock.seconds += 1
    with pytest.raises(CacheMiss):
        remembered.peek(cache, "a")


def test_live_credentials_of_both_kinds_vouch_for_their_site(bakery: NewSite, florist: NewSite) -> None:
    for made in (bakery, florist):
        for issued in (made.api_key, made.signing_secret):
            assert cached_lookups.site_for_credential(issued.credential.public_id) == made.site
    assert cached_lookups.site_for_credential("key_01ka2m7v5xf3v8k0q9r6t4w2ye") is None
    assert cached_lookups.site_for_credential(bakery.site.public_id) is None


def test_nobody_vouches_for_a_site_that_is_switched_off_or_with_a_revoked_credential(bakery: NewSite) -> None:
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
def test_nonsense_finds_no_site(name: str) -> None:
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
def test_what_another_process_changes_counts_within_a_second(bakery: NewSite, change: str) -> None:
    clock = Clock()
    keys = TTLCache(cached_lookups.load_key_owner, clock=clock)
    sites = TTLCache(cached_lookups.load_site_secrets, clock=clock)
    assert keys.get(prefix_of(bakery)) is not None
    assert sites.get("bakery") is not None

    with elsewhere() as other:
        other.execute(change)
    clock.seconds += 1

    assert keys.get(prefix_of(bakery)) is None
    assert sites.get("bakery") is None


@pytest.mark.django_db(transaction=True)
def test_a_changed_allowlist_counts_within_a_second(bakery: NewSite) -> None:
    clock = Clock()
    sites = TTLCache(cached_lookups.load_site_secrets, clock=clock)
    sites.get("bakery")

    with elsewhere() as other:
        other.execute("UPDATE tenants_site SET ip_allowlist = '{10.0.0.0/8}'")
    clock.seconds += 1

    found = sites.get("bakery")
    assert found is not None
    assert found.site.ip_allowlist == ["10.0.0.0/8"]


@pytest.mark.django_db(transaction=True)
def test_a_process_knows_at_once_what_it_revoked_itself(bakery: NewSite) -> None:
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
