"""A site with its credentials, and a process that remembers nothing."""

from collections.abc import Iterator

import pytest

from tenants import cached_lookups
from tenants.credentials import NewSite, create_site
from tests.platform.tenants.counted import Counted


@pytest.fixture(autouse=True)
def _fresh_directory() -> Iterator[None]:
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
def threads() -> Iterator[Counted]:
    made = Counted()
    yield made
    made.close()
