"""Fixtures and hooks of all tests."""

from collections.abc import Iterator

import pytest
from django.db import connection
from django.test import TransactionTestCase, override_settings
from pytest_django import DjangoDbBlocker

from inference import routing
from metering import prices
from tenants import cached_lookups
from tenants.models import Site
from tenants.rate_limiting import rules
from tests.factories import make_site
from tests.polling import wait_for
from tests.tables import empty_tables

#: The slowest tests. They are scheduled first, or one of them would remain for one process at the
#: end, when the others have nothing more to do.
LONGEST = ("tests/chaos/test_campaign.py", "tests/chaos/test_points.py", "tests/flows/", "tests/api/live/processes/")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--brokers",
        default="",
        metavar="NAMES",
        help="run every flow on these brokers: all, or some of valkey,redis,rabbitmq",
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # in a process of pytest-xdist
        items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """The database of pytest-django, which is dropped at the end, once PostgreSQL has noticed all disconnects."""
    yield
    with django_db_blocker.unblock():
        connection.close()
        connection.close_pool()  # type: ignore[attr-defined] # the stubs do not know it
        wait_for(_is_empty, every=0.05)


def _is_empty() -> bool:
    """Whether the database has no client. A killed process remains connected for a moment."""
    with connection._nodb_cursor() as cursor:
        name = connection.settings_dict["NAME"]
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = %s", [name])
        return bool(cursor.fetchone() == (0,))


@pytest.fixture(scope="session", autouse=True)
def _tables_are_emptied_quickly() -> Iterator[None]:
    """Committed rows are deleted after a test by our own function."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", lambda _: empty_tables())
        yield


@pytest.fixture(autouse=True)
def _nothing_is_remembered() -> None:
    """This process's caches of sites and routes are cleared with a test's database."""
    cached_lookups.clear_caches()
    rules.clear_cache()
    routing.invalidate_cache()
    prices.clear_cache()


@pytest.fixture(scope="session", autouse=True)
def _passwords_are_quick() -> Iterator[None]:
    """Slow password hashing protects real users; tests have none."""
    with override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"]):
        yield


@pytest.fixture
def site(db: None) -> Site:
    return make_site()
