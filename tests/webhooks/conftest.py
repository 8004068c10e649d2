"""An endpoint with its secret, something that happened, and the doorbell in our hands."""

from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
from django.db import transaction

from tenants.models import Site
from webhooks.endpoints import create_endpoint
from webhooks.models import Delivery, Endpoint, Event
from webhooks.record import record_event
from webhooks.tasks import bell

URL = "http://127.0.0.1:9/hook"


@pytest.fixture(autouse=True)
def rings() -> Iterator[list[str]]:
    """What the doorbell did; it rings here and not at a broker."""
    heard: list[str] = []
    bell.set_listener(lambda: heard.append("ring"))
    yield heard
    bell.set_listener(None)


@pytest.fixture
def made(site: Site) -> tuple[Endpoint, str]:
    return create_endpoint(site, URL)


@pytest.fixture
def endpoint(made: tuple[Endpoint, str]) -> Endpoint:
    return made[0]


@pytest.fixture
def secret(made: tuple[Endpoint, str]) -> str:
    """The endpoint's secret, as it was shown."""
    return made[1]


@pytest.fixture
def happens(site: Site) -> Callable[..., Event]:
    """Make something happen to a job of the site."""

    def happen(event_type: str = "job.succeeded") -> Event:
        with transaction.atomic():
            return record_event(site.id, event_type, uuid4(), {"job_id": "job_1", "note": "café ✓"}, terminal=True)

    return happen


@pytest.fixture
def delivery(endpoint: Endpoint, happens: Callable[..., Event]) -> Delivery:
    """An event on its way to the endpoint."""
    return Delivery.objects.get(event=happens(), endpoint=endpoint)
