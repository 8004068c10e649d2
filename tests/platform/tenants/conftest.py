"""Sites with their credentials, and a process with empty caches."""

from collections.abc import Iterator

import pytest

from tenants import cached_lookups
from tenants.credentials import NewSite, create_site
from tests.counting_threads import CountingThreads


@pytest.fixture(autouse=True)
def _empty_caches() -> Iterator[None]:
    cached_lookups.clear_caches()
    yield
    cached_lookups.clear_caches()


@pytest.fixture
def bakery(db: None) -> NewSite:
    return create_site("Corner Bakery", "bakery")


@pytest.fixture
def florist(db: None) -> NewSite:
    return create_site("Florist", "florist")


@pytest.fixture
def threads() -> Iterator[CountingThreads]:
    made = CountingThreads()
    yield made
    made.close()
