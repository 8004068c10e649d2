"""Fixtures: an adapter, and the server that it calls."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from providers.types import CallContext, Provider
from tests.platform.providers.upstream import Upstream, running_upstream
from tests.platform.providers.vendors import VENDORS, Vendor


@pytest_asyncio.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with running_upstream() as upstream:
        yield upstream


@pytest.fixture(params=VENDORS, ids=lambda vendor: vendor.name)
def vendor(request: pytest.FixtureRequest) -> Vendor:
    vendor: Vendor = request.param
    return vendor


@pytest_asyncio.fixture
async def provider(vendor: Vendor, upstream: Upstream) -> AsyncIterator[Provider]:
    provider = vendor.connect(upstream.url)
    yield provider
    await provider.close()


@pytest.fixture
def call() -> CallContext:
    return CallContext("call_01", total_seconds=10, connect_seconds=5, first_byte_seconds=5, idle_seconds=5)
