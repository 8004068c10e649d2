"""A stream in its writer task: every end is written to the log, and every call is settled."""

import asyncio

from pytest_django import Settings

from inference.models import ProviderAccount
from live.admit import AdmittedRequest, admit_request
from live.errors import InterruptedByShutdown, ResponseCanceled
from live.run_stream import start_stream
from live.runtime import LiveRuntime
from providers.errors import ProviderError, ResponseInterrupted
from streams.buffer import LocalStream
from streams.entries import StreamEnd
from tenants.credentials import NewSite
from tenants.rate_limiting.types import AttachToStream
from tests.factories import make_provider, make_route
from tests.platform.live.conftest import OpenWriters, admitted, chat, live_request, usage_of
from tests.polling import wait_until
from tests.simulator_process import SimulatorProcess


async def start(runtime: LiveRuntime, new_site: NewSite, make_writer: OpenWriters, model: str) -> LocalStream:
    request = await admitted(runtime, live_request(new_site, chat(model), streams=True, idempotency_key="k-1"))
    return start_stream(runtime, request, make_writer)


async def ended(stream: LocalStream) -> StreamEnd:
    async with asyncio.timeout(10):
        while stream.end is None:  # noqa: ASYNC110 (it has no event)
            await asyncio.sleep(0.01)
    return stream.end


async def test_a_stream_is_written_to_its_end_and_settled(
    runtime: LiveRuntime, new_site: NewSite, make_writer: OpenWriters
) -> None:
    stream = await start(runtime, new_site, make_writer, "chat")

    assert await ended(stream) == StreamEnd("done")
    assert [target.upstream_model for target in make_writer.only.targets] == ["gpt-4o-mini"]
    assert b"".join(event.data for event in stream.events).decode() == make_writer.only.text != ""
    (usage,) = await usage_of(runtime, new_site)
    assert (usage.outcome, usage.billable) == ("ok", True)
    again = await admit_request(runtime, live_request(new_site, chat("chat"), streams=True, idempotency_key="k-1"))
    assert again == AttachToStream(stream.id)


async def test_a_failure_before_the_first_token_is_written_as_an_error_and_its_key_may_be_retried(
    runtime: LiveRuntime, new_site: NewSite, make_writer: OpenWriters, simulator: SimulatorProcess
) -> None:
    simulator.script("gpt-4o-mini", ["400"] * 3)

    stream = await start(runtime, new_site, make_writer, "chat")

    assert await ended(stream) == StreamEnd("error")
    (error,) = make_writer.only.errors
    assert isinstance(error, ProviderError)
    assert not make_writer.only.targets
    await usage_of(runtime, new_site)
    again = await admit_request(runtime, live_request(new_site, chat("chat"), streams=True, idempotency_key="k-1"))
    assert isinstance(again, AdmittedRequest)


async def test_a_cut_after_the_first_token_is_written_after_the_text_so_far(
    runtime: LiveRuntime, new_site: NewSite, make_writer: OpenWriters, simulator: SimulatorProcess
) -> None:
    await runtime.threads.run(route_to_cut_answers, simulator)

    stream = await start(runtime, new_site, make_writer, "cut")

    assert await ended(stream) == StreamEnd("error")
    (error,) = make_writer.only.errors
    assert isinstance(error, ResponseInterrupted)
    assert make_writer.only.text
    (usage,) = await usage_of(runtime, new_site)
    assert (usage.outcome, usage.estimated) == ("error", True)


def route_to_cut_answers(simulator: SimulatorProcess) -> None:
    make_route("cut", (ProviderAccount.objects.get(), "gpt-4o-mini@cut_after_n=5"))


async def test_a_canceled_stream_says_so_and_its_tokens_are_billed(
    runtime: LiveRuntime, new_site: NewSite, make_writer: OpenWriters
) -> None:
    stream = await start(runtime, new_site, make_writer, "slow")
    await wait_until(lambda: make_writer.made and make_writer.only.text)

    stream.cancel("requested")

    assert await ended(stream) == StreamEnd("canceled")
    assert [type(error) for error in make_writer.only.errors] == [ResponseCanceled]
    (usage,) = await usage_of(runtime, new_site)
    assert (usage.outcome, usage.billable) == ("canceled", True)


async def test_a_drain_interrupts_streams_that_outlast_it(
    runtime: LiveRuntime, new_site: NewSite, make_writer: OpenWriters, settings: Settings
) -> None:
    settings.LIVE_DRAIN_SECONDS = 0
    stream = await start(runtime, new_site, make_writer, "slow")
    await wait_until(lambda: make_writer.made and make_writer.only.text)

    await runtime.drain()

    assert await ended(stream) == StreamEnd("canceled")
    assert [type(error) for error in make_writer.only.errors] == [InterruptedByShutdown]


async def test_another_provider_continues_a_cut_answer_if_the_caller_allows_it(
    runtime: LiveRuntime, new_site: NewSite, make_writer: OpenWriters, simulator: SimulatorProcess
) -> None:
    await runtime.threads.run(route_to_two_providers, simulator)
    request = live_request(new_site, chat("two"), streams=True, allows_continuation=True)

    stream = start_stream(runtime, await admitted(runtime, request), make_writer)

    assert await ended(stream) == StreamEnd("done")
    assert [target.provider.name for target in make_writer.only.targets] == ["sim-openai", "sim-other"]
    assert not make_writer.only.errors
    assert [usage.outcome for usage in await usage_of(runtime, new_site)] == ["error", "ok"]


def route_to_two_providers(simulator: SimulatorProcess) -> None:
    first = ProviderAccount.objects.get()
    second = make_provider("sim-other", base_url=simulator.openai_url)
    make_route("two", (first, "gpt-4o-mini@cut_after_n=5"), (second, "gpt-4o-mini"))
