"""Fixtures: an endpoint with its secret, an event, and a doorbell that only records its rings."""

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
    """Record the rings of the doorbell instead of publishing them."""
    rings: list[str] = []
    bell.set_listener(lambda: rings.append("ring"))
    yield rings
    bell.set_listener(None)


@pytest.fixture
def created(site: Site) -> tuple[Endpoint, str]:
    return create_endpoint(site, URL)


@pytest.fixture
def endpoint(created: tuple[Endpoint, str]) -> Endpoint:
    return created[0]


@pytest.fixture
def secret(created: tuple[Endpoint, str]) -> str:
    """Return the endpoint's secret as it was shown."""
    return created[1]


@pytest.fixture
def new_event(site: Site) -> Callable[..., Event]:
    """Return a function that records an event about a new job of the site."""

    def record(event_type: str = "job.succeeded") -> Event:
        with transaction.atomic():
            return record_event(site.id, event_type, uuid4(), {"job_id": "job_1", "note": "café ✓"}, terminal=True)

    return record


@pytest.fixture
def delivery(endpoint: Endpoint, new_event: Callable[..., Event]) -> Delivery:
    """Return a pending delivery to the endpoint."""
    return Delivery.objects.get(event=new_event(), endpoint=endpoint)
