"""What every test may ask for."""

import pytest

from inference import routing
from metering import prices
from tenants import directory
from tenants.models import Site
from tests.factories import make_site


@pytest.fixture(autouse=True)
def _nothing_is_remembered() -> None:
    """What this process keeps of sites and routes does not outlive a test's database."""
    directory.forget_all()
    routing.forget()
    prices.forget()


@pytest.fixture
def site(db: None) -> Site:
    return make_site()
