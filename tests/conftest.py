"""What every test may ask for."""

import pytest
from pytest_django import Settings

from inference import routing
from metering import prices
from tenants import directory
from tenants.models import Site
from tests.factories import make_site


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--brokers",
        default="",
        metavar="NAMES",
        help="run every flow on these brokers: all, or some of valkey,redis,rabbitmq",
    )


@pytest.fixture(autouse=True)
def _nothing_is_remembered() -> None:
    """What this process keeps of sites and routes does not outlive a test's database."""
    directory.forget_all()
    routing.forget()
    prices.forget()


@pytest.fixture(autouse=True)
def _passwords_are_quick(settings: Settings) -> None:
    """Hashing passwords slowly protects people; there are none here."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def site(db: None) -> Site:
    return make_site()
