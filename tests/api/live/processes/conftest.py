"""Several web processes, and a site that sends them requests."""

from collections.abc import Iterator

import pytest
from pytest_django import DjangoDbBlocker

from inference.models import ProviderAccount
from tests.api.live.processes.fleet import Caller, Desk, Fleet
from tests.simulator_process import SimulatorProcess
from tests.tables import empty_tables


@pytest.fixture(scope="session")
def fleet(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """They end before the database is dropped."""
    started = Fleet(tmp_path_factory.mktemp("fleet"))
    yield started
    started.close()


@pytest.fixture(scope="module")
def desk(fleet: Fleet, simulator_process: SimulatorProcess, django_db_blocker: DjangoDbBlocker) -> Iterator[Desk]:
    """A desk for all tests of a module: its rows are committed, for other processes read them."""
    with django_db_blocker.unblock():
        openai, anthropic = simulator_process.openai_url, simulator_process.url
        ProviderAccount.objects.create(
            name="sim-openai", dialect="openai", base_url=openai, price_list="openai", api_key=b"sk-test"
        )
        ProviderAccount.objects.create(
            name="sim-anthropic", dialect="anthropic", base_url=anthropic, price_list="anthropic", api_key=b"sk-test"
        )
        yield Desk(fleet, simulator_process)
        empty_tables()


@pytest.fixture
def caller(db: None, desk: Desk, simulator: SimulatorProcess) -> Caller:
    """A site of its own for a test, and a journal with nothing in it."""
    return desk.caller()


@pytest.fixture
def db(desk: Desk) -> None:
    """In place of pytest-django's: rows stay until the module ends. By this name it knows that a database is wanted."""
