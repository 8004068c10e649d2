"""Settlement: what the admission reserved is released, also where a stream cannot start or Redis is unavailable."""

import pytest
from pytest_django import Settings
from redis import Redis

from live.run_stream import start_stream
from live.runtime import LiveRuntime
from live.settlement import record_cache_hit
from streams.errors import StreamsClosed
from tenants.credentials import NewSite
from tenants.models import Limit
from tenants.rate_limiting.admission import open_request_ids
from tests.platform.live.conftest import OpenWriters, admitted, chat, live_request, usage_of
from tests.platform.streams.conftest import CuttableProxy
from tests.platform.streams.conftest import redis_proxy as redis_proxy
from tests.polling import wait_until


async def test_a_request_that_was_admitted_but_cannot_start_releases_everything(
    runtime: LiveRuntime, new_site: NewSite, make_writer: OpenWriters
) -> None:
    request = await admitted(runtime, live_request(new_site, streams=True, idempotency_key="k-1"))
    # The drain begins between the admission and the start.
    await runtime.streams.drain(0)

    with pytest.raises(StreamsClosed):
        start_stream(runtime, request, make_writer)
    await runtime.leases.wait_until_empty(20)

    assert await open_request_ids(runtime.redis, runtime.heartbeat.id) == set()
    left = [key async for key in runtime.redis.scan_iter(f"nd:{{{new_site.site.public_id}}}:*")]
    assert not [key for key in left if b":window:" not in key]


class TestRedisUnavailableAtTheEnd:
    """Redis becomes unavailable while a stream runs."""

    @pytest.fixture
    def redis_url(self, settings: Settings) -> str:
        return str(settings.REDIS_URL)

    @pytest.fixture(autouse=True)
    def _behind_the_proxy(self, redis_url: str, redis_proxy: CuttableProxy, settings: Settings) -> None:
        settings.REDIS_URL = redis_proxy.url

    async def test_the_settlement_is_retried_until_redis_takes_it(
        self,
        redis_url: str,
        runtime: LiveRuntime,
        new_site: NewSite,
        make_writer: OpenWriters,
        redis_proxy: CuttableProxy,
    ) -> None:
        running = f"nd:{{{new_site.site.public_id}}}:running"
        await runtime.threads.run(limit_concurrency, new_site)
        with Redis.from_url(redis_url) as server:
            start_stream(runtime, await admitted(runtime, live_request(new_site, chat("slow"))), make_writer)
            await wait_until(lambda: server.zcard(running) == 1)
            await redis_proxy.cut()
            await runtime.leases.wait_until_empty(20)
            assert server.zcard(running) == 1
            await redis_proxy.restore()

            await wait_until(lambda: server.zcard(running) == 0)


def limit_concurrency(new_site: NewSite) -> None:
    Limit.objects.create(site=new_site.site, concurrency=1)


async def test_a_cache_hit_is_recorded_without_tokens_and_without_cost(runtime: LiveRuntime, new_site: NewSite) -> None:
    await record_cache_hit(runtime, live_request(new_site))

    (usage,) = await usage_of(runtime, new_site)
    assert (usage.provider, usage.outcome, usage.input_tokens, usage.cost_pico_usd) == ("cache", "ok", 0, 0)
