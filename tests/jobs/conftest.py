"""A desk with one route, and what a worker would hold."""

from uuid import UUID

import pytest

from jobs.leases import take_lease
from tenants.models import Site
from tests.factories import make_provider, make_route
from webhooks.models import Endpoint


@pytest.fixture
def desk_route(db: None) -> None:
    """The model `desk` is served by one provider."""
    make_route("desk", (make_provider(), "gpt-4o-mini"))


@pytest.fixture
def worker_id(db: None) -> UUID:
    """A worker with a live lease."""
    return take_lease()


@pytest.fixture
def endpoint(site: Site) -> Endpoint:
    """Where the site's webhooks go."""
    return Endpoint.objects.create(site=site, url="https://bakery.test/hook")
