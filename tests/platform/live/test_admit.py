"""Admission: which requests may run, which get the answer of an earlier one, and which are refused."""

import asyncio

import pytest
from pytest_django import Settings

from core.tasks import cancel_and_wait
from live.admit import AdmittedRequest, admit_request
from live.errors import ConcurrencyLimitExceeded, RateLimiterUnavailable, RateLimitExceeded
from live.run_answer import AnswerRun
from live.run_stream import start_stream
from live.runtime import LiveRuntime, close_live_runtime
from providers.invalid_request import InvalidRequest
from tenants.credentials import NewSite
from tenants.errors import IdempotencyConflict, ReplayedRequest
from tenants.models import Limit
from tenants.rate_limiting.scripts import SCRIPTS
from tenants.rate_limiting.types import AttachToStream, CacheHit
from tests.platform.live.conftest import OpenWriters, TextWriter, admitted, caller_of, chat, live_request
from tests.platform.streams.conftest import CuttableProxy
from tests.platform.streams.conftest import redis_proxy as redis_proxy


@pytest.fixture
def limit(new_site: NewSite, request: pytest.FixtureRequest) -> Limit:
    return Limit.objects.create(site=new_site.site, **request.param)


async def test_an_admitted_request_has_its_targets_its_estimate_and_a_stream_id(
    runtime: LiveRuntime, new_site: NewSite
) -> None:
    found = await admitted(runtime, live_request(new_site))

    assert [target.upstream_model for target in found.targets] == ["gpt-4o-mini"]
    assert found.input_tokens > 0
    assert found.admission.stream_id.startswith("stm_")
    assert found.reservation is not None


async def test_the_same_idempotency_key_attaches_to_the_first_request_s_stream(
    runtime: LiveRuntime, new_site: NewSite, make_writer: OpenWriters
) -> None:
    first = await admitted(runtime, live_request(new_site, idempotency_key="k-1", streams=True))
    start_stream(runtime, first, make_writer)

    second = await admit_request(runtime, live_request(new_site, idempotency_key="k-1", streams=True))

    assert second == AttachToStream(first.admission.stream_id)


async def test_an_idempotency_key_with_another_body_is_a_conflict(runtime: LiveRuntime, new_site: NewSite) -> None:
    await admitted(runtime, live_request(new_site, idempotency_key="k-1"))

    with pytest.raises(IdempotencyConflict):
        await admit_request(runtime, live_request(new_site, chat(text="Goodbye"), idempotency_key="k-1"))


async def test_narrow_tokens_do_not_share_idempotency_keys(runtime: LiveRuntime, new_site: NewSite) -> None:
    for token_id in ("tok_1", "tok_2"):
        caller = caller_of(new_site, token_id=token_id)
        found = await admit_request(runtime, live_request(new_site, caller=caller, idempotency_key="k-1"))

        assert isinstance(found, AdmittedRequest)


@pytest.mark.parametrize("key", ["", "é", "a\nb", "a" * 256])
async def test_an_idempotency_key_is_short_printable_ascii(runtime: LiveRuntime, new_site: NewSite, key: str) -> None:
    with pytest.raises(InvalidRequest, match="1 to 255 printable ASCII"):
        await admit_request(runtime, live_request(new_site, idempotency_key=key))


async def test_a_key_whose_stream_never_started_is_admitted_again(
    runtime: LiveRuntime, new_site: NewSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("live.admit.STREAM_START_TIMEOUT_SECONDS", 0.1)
    first = await admitted(runtime, live_request(new_site, idempotency_key="k-1"))

    second = await admitted(runtime, live_request(new_site, idempotency_key="k-1"))

    assert second.admission.stream_id != first.admission.stream_id


async def test_a_nonce_is_admitted_once(runtime: LiveRuntime, new_site: NewSite) -> None:
    caller = caller_of(new_site, nonce=b"n" * 16)
    await admitted(runtime, live_request(new_site, caller=caller))

    with pytest.raises(ReplayedRequest):
        await admit_request(runtime, live_request(new_site, caller=caller))


@pytest.mark.parametrize("limit", [{"requests_per_minute": 1}], indirect=True)
async def test_a_full_window_says_when_to_retry(limit: Limit, runtime: LiveRuntime, new_site: NewSite) -> None:
    found = await admitted(runtime, live_request(new_site))
    assert [(quota.window.unit, quota.remaining) for quota in found.quotas] == [("requests", 0)]

    with pytest.raises(RateLimitExceeded) as refusal:
        await admit_request(runtime, live_request(new_site))

    assert 0 < refusal.value.retry_after_seconds <= 60


@pytest.mark.parametrize("limit", [{"tokens_per_minute": 10}], indirect=True)
async def test_a_request_larger_than_the_whole_limit_is_invalid(
    limit: Limit, runtime: LiveRuntime, new_site: NewSite
) -> None:
    with pytest.raises(InvalidRequest, match="the limit is 10"):
        await admit_request(runtime, live_request(new_site))


@pytest.mark.parametrize("limit", [{"concurrency": 1}], indirect=True)
async def test_requests_above_the_concurrency_limit_are_refused(
    limit: Limit, runtime: LiveRuntime, new_site: NewSite
) -> None:
    await admitted(runtime, live_request(new_site))

    with pytest.raises(ConcurrencyLimitExceeded):
        await admit_request(runtime, live_request(new_site))


async def test_a_cached_answer_is_found_unless_the_caller_objects_or_names_another_provider(
    runtime: LiveRuntime, new_site: NewSite
) -> None:
    first = await admitted(runtime, live_request(new_site))
    body = await AnswerRun.with_lease(runtime, first, TextWriter()).run()
    await runtime.leases.wait_until_empty(20)

    assert await admit_request(runtime, live_request(new_site)) == CacheHit(body)
    for fields in ({"allows_cache": False}, {"streams": True}, {"provider": "sim-openai"}):
        assert isinstance(await admit_request(runtime, live_request(new_site, **fields)), AdmittedRequest)


async def test_the_runtime_closes_after_the_release_of_requests_canceled_during_admission(
    runtime: LiveRuntime, new_site: NewSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    was_sent, released = asyncio.Event(), []

    async def hang(*_: object) -> None:
        was_sent.set()
        await asyncio.sleep(60)

    async def release(*_: object) -> None:
        await asyncio.sleep(0.2)
        released.append(await runtime.redis.ping())

    monkeypatch.setattr(SCRIPTS.admit, "run", hang)
    monkeypatch.setattr("tenants.rate_limiting.admission._settle_canceled", release)
    task = asyncio.create_task(admit_request(runtime, live_request(new_site)))
    await was_sent.wait()
    await cancel_and_wait(task)

    await close_live_runtime()

    assert released == [True]


class TestWithoutRedis:
    """Redis is unavailable at the admission."""

    @pytest.fixture(autouse=True)
    async def _without_redis(self, redis_proxy: CuttableProxy, settings: Settings) -> None:
        settings.REDIS_URL = redis_proxy.url
        await redis_proxy.cut()

    async def test_closed_refuses_every_request(
        self, settings: Settings, runtime: LiveRuntime, new_site: NewSite
    ) -> None:
        settings.LIVE_FAIL_MODE = "closed"

        with pytest.raises(RateLimiterUnavailable):
            await admit_request(runtime, live_request(new_site))

    async def test_open_admits_without_counting_but_a_nonce_only_once(
        self, settings: Settings, runtime: LiveRuntime, new_site: NewSite
    ) -> None:
        settings.LIVE_FAIL_MODE = "open"
        caller = caller_of(new_site, nonce=b"n" * 16)

        found = await admitted(runtime, live_request(new_site, caller=caller))

        assert (found.reservation, found.quotas) == (None, ())
        with pytest.raises(ReplayedRequest):
            await admit_request(runtime, live_request(new_site, caller=caller))
