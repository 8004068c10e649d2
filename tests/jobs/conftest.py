"""Fixtures for jobs: routes, a worker's lease, an endpoint, an operator's browser, a batch in progress."""

from datetime import timedelta
from uuid import UUID

import pytest
from django.db.models.functions import Now
from django.test import Client

from jobs.models import Batch
from jobs.worker.leases import acquire_lease
from tenants.models import Site
from tests.factories import make_batch, make_provider, make_route
from tests.jobs.halfway import XSS, add_members, bill
from tests.operators import sign_in
from webhooks.models import Endpoint


@pytest.fixture
def desk_route(db: None) -> None:
    """A route of the model `desk` with one provider."""
    make_route("desk", (make_provider(), "gpt-4o-mini"))


@pytest.fixture
def dear_route(db: None) -> None:
    """A route of the model `dear` with one provider."""
    make_route("dear", (make_provider(), "gpt-4o-mini"))


@pytest.fixture
def worker_id(db: None) -> UUID:
    """A worker with a live lease."""
    return acquire_lease()


@pytest.fixture
def endpoint(site: Site) -> Endpoint:
    """The endpoint for the site's webhooks."""
    return Endpoint.objects.create(site=site, url="https://bakery.test/hook")


@pytest.fixture
def browser(db: None) -> Client:
    """The browser of an operator with all permissions."""
    return sign_in()


@pytest.fixture
def halfway(site: Site) -> Batch:
    """A batch of 20, of which 6 succeeded, 3 failed and 1 was canceled within the last minute."""
    batch = make_batch(site, model="desk", in_progress_at=Now() - timedelta(minutes=1))
    bill(add_members(batch, "succeeded", 6), 5 * 10**9)
    add_members(batch, "failed", 2, error_code="rate_limited", error_message="Too many.")
    add_members(batch, "failed", 1, error_code="rejected", error_message=XSS, custom_id=f"{XSS}9")
    add_members(batch, "canceled", 1)
    add_members(batch, "running", 4)
    add_members(batch, "queued", 6)
    batch.refresh_from_db()
    return batch
