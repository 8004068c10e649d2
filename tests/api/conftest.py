"""Sites with clients, a route, and a real server."""

from collections.abc import Iterator

import pytest
from pytest_django import DjangoDbBlocker

from inference.models import Route
from tenants.credentials import NewSite, create_site
from tests.api.calling import Caller
from tests.api.serving import Gate, served
from tests.factories import make_provider, make_route


@pytest.fixture
def bakery(db: None) -> NewSite:
    return create_site("Corner Bakery", "bakery")


@pytest.fixture
def florist(db: None) -> NewSite:
    return create_site("Florist", "florist")


@pytest.fixture
def route(db: None) -> Route:
    return make_route("gpt-5-mini", (make_provider(), "gpt-5-mini"))


@pytest.fixture
def desk(bakery: NewSite, route: Route) -> Caller:
    """A client with the bakery's API key."""
    return Caller(bakery)


@pytest.fixture
def stranger(desk: Caller) -> Caller:
    """A client without credentials."""
    return Caller(None)


@pytest.fixture(scope="session")
def gate(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[Gate]:
    """The proxy between the real server and Postgres."""
    with django_db_blocker.unblock():
        gate = Gate()
    gate.open()
    yield gate
    gate.shut()


@pytest.fixture(scope="session")
def url(gate: Gate) -> Iterator[str]:
    """The URL of a real server without Redis. Tests that use it need a transactional database."""
    with served(gate.url) as url:
        yield url
