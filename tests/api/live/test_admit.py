"""What is let in gives back what it took: also where it cannot begin, and where Redis is away at its end."""

from dataclasses import replace

import pytest
from pytest_django import Settings
from redis import Redis

from api.live.authenticate import Caller
from api.live.http_request import request_from_scope
from api.live.infer import open_stream
from api.live.runtime import close_live_runtime, live_runtime
from streams.errors import StreamsClosed
from tenants.authentication import AuthMethod, Identity
from tenants.credentials import NewSite, create_site
from tenants.models import Limit
from tenants.rate_limiting.admission import open_request_ids
from tests.factories import make_provider, make_route
from tests.platform.streams.conftest import CuttableProxy
from tests.platform.streams.conftest import wire as wire
from tests.polling import wait_until
from tests.simulator_process import SimulatorProcess

SCOPE = {"type": "http", "method": "POST", "path": "/v1/streams", "headers": [(b"idempotency-key", b"k-1")]}
BODY = b'{"model": "chat", "messages": [{"role": "user", "content": "Hello"}]}'


@pytest.fixture
def made(transactional_db: None, simulator: SimulatorProcess) -> NewSite:
    made = create_site("Bakery", "bakery")
    Limit.objects.create(site=made.site, concurrency=1, tokens_per_minute=10_000)
    provider = make_provider(base_url=simulator.openai_url)
    make_route("chat", (provider, "gpt-4o-mini@deltas=20,inter_token_ms=25"))
    return made


async def test_a_process_that_stops_gives_back_what_it_let_in_and_cannot_begin(made: NewSite) -> None:
    caller = Caller(Identity(made.site, AuthMethod.API_KEY, "key_1"), None)
    http_request = replace(request_from_scope(SCOPE, 0.0), body=BODY)
    runtime = await live_runtime(server_waits=True)
    try:
        # Between the look whether it is to stop, and the beginning.
        await runtime.streams.drain(0)
        with pytest.raises(StreamsClosed):
            await open_stream(runtime, caller, http_request, "openai", detached=True)

        await wait_until(lambda: not runtime.leases.held)

        assert await open_request_ids(runtime.server, runtime.heartbeat.id) == set()
        left = [key async for key in runtime.server.scan_iter(f"nd:{{{made.site.public_id}}}:*")]
        assert not [key for key in left if b":window:" not in key]
    finally:
        await close_live_runtime()


async def test_what_redis_did_not_take_at_the_end_is_given_back_when_it_is_back(
    made: NewSite, wire: CuttableProxy, settings: Settings
) -> None:
    caller = Caller(Identity(made.site, AuthMethod.API_KEY, "key_1"), None)
    running = f"nd:{{{made.site.public_id}}}:running"
    address, settings.REDIS_URL = settings.REDIS_URL, wire.url
    there = Redis.from_url(address)
    runtime = await live_runtime(server_waits=True)
    try:
        await open_stream(runtime, caller, replace(request_from_scope(SCOPE, 0.0), body=BODY), "openai", detached=True)
        await wait_until(lambda: there.zcard(running) == 1)
        await wire.cut()
        await wait_until(lambda: not runtime.leases.held)
        assert there.zcard(running) == 1
        await wire.mend()

        await wait_until(lambda: there.zcard(running) == 0)
    finally:
        await close_live_runtime()
        there.close()
        settings.REDIS_URL = address
