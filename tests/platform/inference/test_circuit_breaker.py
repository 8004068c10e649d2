"""An open breaker stops the calls of all processes; half-open, it allows one probe call at a time."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from django.conf import settings
from pytest_django import Settings

from core import redis
from inference import circuit_breaker as breaker_module
from inference.breaker_state import BreakerState, BreakerStatus, BreakerVerdict, breaker_ids, classify_result
from inference.calls import CallOutcome
from inference.circuit_breaker import BREAKERS_KEY, RedisCircuitBreaker, close_breaker, read_statuses
from inference.complete import Answered, Deferred, Exhausted
from inference.routing import ProviderSpec, Target
from providers import errors
from providers.errors import ProviderError
from providers.scripted_provider import ScriptedProvider
from providers.types import Dialect
from tests.platform.inference.harness import BUSY, HELLO, InferenceHarness
from tests.polling import wait_until

DEAD = errors.ProviderKeyRejected("bad key", 401, "invalid_api_key")
RESET = errors.TransientFailure("reset")


def target(model: str = "gpt", key: str = "sk-one") -> Target:
    return Target(ProviderSpec("openai", Dialect.OPENAI, "https://api.test", key), model)


@pytest.fixture(autouse=True)
async def _quick(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    settings.BREAKER_FAILURES, settings.BREAKER_COOLDOWN_SECONDS = 3, 60
    monkeypatch.setattr(breaker_module, "REFRESH_SECONDS", 0.02)
    await redis.client(settings.REDIS_URL).delete(BREAKERS_KEY)
    yield
    await redis.client(settings.REDIS_URL).delete(BREAKERS_KEY)
    await redis.close_clients()


@pytest.fixture
async def process() -> AsyncIterator[Callable[[], RedisCircuitBreaker]]:
    """Return a function that makes the circuit breaker of one more process."""
    made: list[RedisCircuitBreaker] = []

    def make() -> RedisCircuitBreaker:
        made.append(RedisCircuitBreaker(settings.REDIS_URL))
        return made[-1]

    yield make
    for each in made:
        await each.close()


Process = Callable[[], RedisCircuitBreaker]


async def fail(
    breakers: RedisCircuitBreaker, times: int = 3, error: ProviderError = RESET, at: Target | None = None
) -> None:
    for _ in range(times):
        await breakers.report(at or target(), error)


async def read() -> list[BreakerStatus]:
    def wait() -> list[BreakerStatus]:
        with redis.blocking_client(settings.REDIS_URL) as server:
            return read_statuses(server)

    return await asyncio.to_thread(wait)


async def close_as_operator(id_: str) -> bool:
    def wait() -> bool:
        with redis.blocking_client(settings.REDIS_URL) as server:
            return close_breaker(server, id_)

    return await asyncio.to_thread(wait)


async def wait_until_allowed(breakers: RedisCircuitBreaker, at: Target | None = None) -> None:
    async with asyncio.timeout(10):
        while not await breakers.allows(at or target()):  # noqa: ASYNC110 (Redis sends no event)
            await asyncio.sleep(0.01)


# Opening


async def test_a_breaker_opens_for_all_processes_at_the_failure_threshold(process: Process) -> None:
    one, two = process(), process()

    await fail(one, 1)
    await fail(two, 1)
    assert await one.allows(target())
    await fail(two, 1)

    assert not await two.allows(target())
    await wait_until(lambda: one._blocking(target()))
    assert not await one.allows(target())
    assert not await process().allows(target())
    assert await one.allows(target(key="sk-another"))


async def test_a_new_process_sees_breakers_that_are_already_open(process: Process) -> None:
    await fail(process())

    assert not await process().allows(target())


async def test_failures_below_half_of_all_calls_do_not_open_a_breaker(process: Process) -> None:
    breakers = process()
    await fail(breakers, 1)
    for _ in range(5):
        await breakers.report(target(), None)
    await fail(breakers, 2)

    assert await breakers.allows(target())
    await fail(breakers, 1)
    assert await breakers.allows(target())
    await fail(breakers, 1)
    assert not await breakers.allows(target())


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (None, BreakerVerdict.SUCCESS),
        (errors.RequestRejected("no", 400), BreakerVerdict.SUCCESS),
        (errors.ModelNotFound("no", 404), BreakerVerdict.SUCCESS),
        (errors.ContextTooLong("no", 400), BreakerVerdict.SUCCESS),
        (errors.ContentRefused("no", 400), BreakerVerdict.SUCCESS),
        (errors.UnsupportedFeature("we cannot say that"), BreakerVerdict.IGNORE),
        (DEAD, BreakerVerdict.TRIP),
        (errors.ProviderRateLimited("slow", 429, retry_after_seconds=2), BreakerVerdict.TRIP),
        (errors.ProviderRateLimited("slow", 429), BreakerVerdict.FAILURE),
        (BUSY, BreakerVerdict.FAILURE),
        (RESET, BreakerVerdict.FAILURE),
        (errors.AmbiguousOutcome("lost"), BreakerVerdict.FAILURE),
        (errors.ProviderTimeout("silence"), BreakerVerdict.FAILURE),
        (errors.ResponseInterrupted("cut"), BreakerVerdict.FAILURE),
        (errors.BadResponse("garbage", 200), BreakerVerdict.FAILURE),
    ],
)
def test_each_error_has_a_verdict_about_its_key(error: ProviderError | None, verdict: BreakerVerdict) -> None:
    assert classify_result(error) is verdict


async def test_rejected_requests_never_open_a_breaker(process: Process) -> None:
    breakers = process()
    await fail(breakers, 20, errors.RequestRejected("no", 400))

    assert await breakers.allows(target())
    assert await breakers.statuses() == []


async def test_a_rejected_key_opens_its_breaker_immediately_and_callers_get_that_error(process: Process) -> None:
    breakers = process()
    await fail(breakers, 1, DEAD)

    assert not await breakers.allows(target())
    refusal = breakers.refusal(target())
    assert isinstance(refusal, errors.ProviderKeyRejected)
    assert refusal.code == "invalid_api_key"
    assert await breakers.allows(target(key="sk-new"))


async def test_a_rate_limit_opens_the_breaker_of_its_model_alone_for_the_retry_after_time(process: Process) -> None:
    breakers = process()
    await fail(breakers, 1, errors.ProviderRateLimited("slow", 429, retry_after_seconds=20))

    assert not await breakers.allows(target())
    assert await breakers.allows(target("another-model"))
    refusal = breakers.refusal(target())
    assert isinstance(refusal, errors.ProviderRateLimited)
    assert refusal.retry_after_seconds == 20
    [status] = await breakers.statuses()
    assert (status.provider, status.model, status.kind) == ("openai", "gpt", "rate_limited")


async def test_retry_after_overrides_our_own_cooldown(process: Process, settings: Settings) -> None:
    breakers = process()
    await fail(breakers, 2)
    await fail(breakers, 1, errors.ProviderOverloaded("busy", 503, retry_after_seconds=200))

    [status] = await breakers.statuses()
    assert 195 < status.cooldown_seconds <= 200


async def test_failures_before_the_window_are_forgotten(process: Process, settings: Settings) -> None:
    settings.BREAKER_WINDOW_SECONDS = 0
    breakers = process()
    server = redis.client(settings.REDIS_URL)
    await fail(breakers, 1)
    assert await server.hlen(BREAKERS_KEY) == 1

    async with asyncio.timeout(10):
        while await server.hlen(BREAKERS_KEY):
            await breakers.statuses()
            await asyncio.sleep(0.02)


# Half-open


async def test_a_half_open_breaker_allows_one_probe_call_over_all_processes(
    process: Process, settings: Settings
) -> None:
    settings.BREAKER_COOLDOWN_SECONDS = 0.05
    processes = [process() for _ in range(4)]
    await fail(processes[0])
    for each in processes:
        await each.statuses()
    await wait_until(lambda: all(_is_half_open(each) for each in processes))

    allowed = await asyncio.gather(*(each.allows(target()) for each in processes * 5))

    assert allowed.count(True) == 1
    prober = processes[allowed.index(True) % 4]
    await prober.report(target(), None)
    assert await prober.allows(target())
    await wait_until(lambda: not any(each._blocking(target()) for each in processes))
    assert all([await each.allows(target()) for each in processes * 2])


def _is_half_open(breakers: RedisCircuitBreaker) -> bool:
    return any(status.state is BreakerState.HALF_OPEN for status in breakers._blocking(target()))


async def half_open(process: Process, settings: Settings) -> tuple[RedisCircuitBreaker, RedisCircuitBreaker]:
    """Return the process that probes a half-open breaker, and another process."""
    settings.BREAKER_COOLDOWN_SECONDS = 0.01
    one, two = process(), process()
    await fail(one)
    await two.statuses()
    await wait_until(lambda: _is_half_open(one) and _is_half_open(two))
    assert await one.allows(target())
    assert not await two.allows(target())
    return one, two


async def test_a_failed_probe_opens_the_breaker_again_for_twice_as_long(process: Process, settings: Settings) -> None:
    one, _ = await half_open(process, settings)
    settings.BREAKER_COOLDOWN_SECONDS = 60

    await fail(one, 1)

    assert not await one.allows(target())
    [status] = await one.statuses()
    assert status.state is BreakerState.OPEN
    assert 110 < status.cooldown_seconds <= 120


async def test_a_released_probe_lets_another_process_probe(process: Process, settings: Settings) -> None:
    one, two = await half_open(process, settings)

    one.release(target())

    await wait_until_allowed(two)


async def test_a_probe_whose_request_is_rejected_closes_the_breaker(process: Process, settings: Settings) -> None:
    one, _ = await half_open(process, settings)

    await one.report(target(), errors.RequestRejected("no", 400))

    assert await one.statuses() == []


async def test_a_slow_probe_renews_its_lease_and_that_of_a_killed_process_expires(
    process: Process, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker_module, "PROBE_LEASE_SECONDS", 0.6)
    one, two = await half_open(process, settings)
    began = asyncio.get_running_loop().time()
    while asyncio.get_running_loop().time() < began + 0.9:
        assert not await two.allows(target())
        await asyncio.sleep(0.02)
        await one.statuses()
    # Killed: its lease is no longer renewed.
    assert one._refresh_task is not None
    one._refresh_task.cancel()

    await wait_until_allowed(two)


async def test_a_late_failure_of_another_process_does_not_end_a_probe(process: Process, settings: Settings) -> None:
    one, two = await half_open(process, settings)

    await fail(two, 1)
    await one.report(target(), None)

    assert await one.statuses() == []


async def test_a_rate_limited_probe_closes_the_breaker_of_its_key(process: Process, settings: Settings) -> None:
    one, _ = await half_open(process, settings)

    await fail(one, 1, errors.ProviderRateLimited("slow", 429, retry_after_seconds=30))

    assert [status.model for status in await one.statuses()] == ["gpt"]
    assert await one.allows(target("another-model"))


# Redis


async def test_a_healthy_key_costs_no_round_trip(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker_module, "REFRESH_SECONDS", 60)
    breakers = process()
    await breakers.allows(target())
    server = redis.client(settings.REDIS_URL)
    before = await server.info("commandstats")

    for _ in range(100):
        assert await breakers.allows(target())
        await breakers.report(target(), None)

    after = await server.info("commandstats")
    assert after["cmdstat_evalsha"]["calls"] == before["cmdstat_evalsha"]["calls"]


async def test_every_call_is_allowed_while_redis_is_unavailable() -> None:
    breakers = RedisCircuitBreaker("redis://127.0.0.1:1/0")
    await fail(breakers, 10, DEAD)

    assert await breakers.allows(target())
    await fail(breakers, 10, DEAD)
    assert await breakers.allows(target())
    assert await breakers.statuses() == []
    await breakers.close()


async def test_a_flushed_redis_closes_all_breakers(process: Process) -> None:
    breakers = process()
    await fail(breakers)
    assert not await breakers.allows(target())

    await redis.client(settings.REDIS_URL).delete(BREAKERS_KEY)

    await wait_until(lambda: not breakers._blocking(target()))
    assert await breakers.allows(target())


async def test_the_states_can_be_read_by_synchronous_code(process: Process) -> None:
    await fail(process(), 1, DEAD)

    [status] = await read()

    assert (status.provider, status.state, status.kind, status.failures) == (
        "openai",
        BreakerState.OPEN,
        "provider_key_rejected",
        1,
    )
    assert status.opened_at is not None
    assert 55 < status.cooldown_seconds <= 60


async def test_failures_before_the_window_are_not_reported(process: Process, settings: Settings) -> None:
    await fail(process(), 1)
    assert [status.failures for status in await read()] == [1]

    settings.BREAKER_WINDOW_SECONDS = 0

    async with asyncio.timeout(10):
        while await read():  # noqa: ASYNC110 (a second must have passed)
            await asyncio.sleep(0.05)


async def test_the_status_reports_a_probe_under_way(process: Process, settings: Settings) -> None:
    settings.BREAKER_COOLDOWN_SECONDS = 0.01
    breakers = process()
    await fail(breakers)
    await wait_until_allowed(breakers)

    [status] = await read()

    assert (status.state, status.is_probed) == (BreakerState.HALF_OPEN, True)
    await breakers.report(target(), RESET)
    assert [status.is_probed for status in await read()] == [False]


@pytest.mark.parametrize("is_probed", [False, True])
async def test_a_breaker_closed_by_an_operator_allows_the_calls_of_all_processes(
    process: Process, settings: Settings, is_probed: bool
) -> None:
    one, two = process(), process()
    settings.BREAKER_COOLDOWN_SECONDS = 0.01 if is_probed else 60
    await fail(one, 3)
    if is_probed:
        await wait_until_allowed(one)
    assert not await two.allows(target())
    [status] = await read()

    assert await close_as_operator(status.id) is True

    for breakers in (one, two):
        await wait_until_allowed(breakers)
        assert await breakers.allows(target())
    assert await read() == []
    assert await close_as_operator(status.id) is False


async def test_a_breaker_closed_by_an_operator_opens_again_at_the_threshold(process: Process) -> None:
    breakers = process()
    await fail(breakers)
    [status] = await read()
    await close_as_operator(status.id)
    await wait_until_allowed(breakers)

    await fail(breakers, 2)
    assert await breakers.allows(target())
    await fail(breakers, 1)
    assert not await breakers.allows(target())


def test_the_breaker_id_of_a_key_does_not_contain_the_key() -> None:
    assert "sk-one" not in "".join(breaker_ids(target()))


# In `complete` and `stream`


async def test_a_target_with_an_open_breaker_is_skipped(process: Process) -> None:
    harness = InferenceHarness(one=ScriptedProvider(), two=ScriptedProvider(HELLO))
    harness.breaker = process()
    await harness.breaker.report(harness.targets()[0], DEAD)

    assert isinstance(await harness.complete(), Answered)
    assert harness.calls() == [("two", CallOutcome.OK)]


async def test_a_request_is_deferred_while_the_breakers_of_all_targets_are_open(process: Process) -> None:
    harness = InferenceHarness(one=ScriptedProvider())
    harness.breaker = process()
    slow = errors.ProviderRateLimited("slow", 429, retry_after_seconds=30)
    await harness.breaker.report(harness.targets()[0], slow)

    result = await harness.complete()

    assert isinstance(result, Deferred)
    assert isinstance(result.error, errors.ProviderRateLimited)
    assert result.retry_after_seconds == 30
    with pytest.raises(errors.ProviderRateLimited):
        [part async for part in harness.stream()]


async def test_a_request_whose_keys_are_all_rejected_is_not_retryable(process: Process) -> None:
    harness = InferenceHarness(one=ScriptedProvider(DEAD))
    harness.breaker = process()
    await harness.complete()

    result = await harness.complete()

    assert isinstance(result, Exhausted)
    assert result.retryable is False
    assert len(harness.calls()) == 1


async def test_failures_of_requests_open_a_breaker(process: Process) -> None:
    harness = InferenceHarness(one=ScriptedProvider(BUSY, BUSY, BUSY), two=ScriptedProvider(HELLO, HELLO, HELLO))
    harness.breaker = process()

    for _ in range(3):
        assert isinstance(await harness.complete(), Answered)

    assert len(harness.scripts["one"].received) == 3


async def test_a_canceled_stream_releases_its_probe(process: Process, settings: Settings) -> None:
    settings.BREAKER_COOLDOWN_SECONDS = 0.01
    hanging = asyncio.Event()

    async def hang(_: object) -> None:
        hanging.set()
        await asyncio.Event().wait()

    harness = InferenceHarness(one=ScriptedProvider(HELLO, before=hang))
    breakers = harness.breaker = process()
    [only] = harness.targets()
    await fail(breakers, at=only)
    await wait_until(lambda: any(status.state is BreakerState.HALF_OPEN for status in breakers._blocking(only)))
    reading = asyncio.create_task(anext(harness.stream()))
    await hanging.wait()
    assert not await breakers.allows(only)

    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)

    await wait_until_allowed(breakers, only)
