"""What every test may ask for."""

from collections.abc import Iterator

import pytest

from tenants.models import Site
from tests.factories import make_site


@pytest.fixture
def site(db: None) -> Site:
    return make_site()


@pytest.fixture(autouse=True)
def _nothing_is_remembered() -> Iterator[None]:
    """Caches of the process do not outlive a test's database."""
    yield
