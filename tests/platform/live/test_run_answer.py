"""Complete answers: encoded once, cached, and settled whatever happens."""

import asyncio
from unittest.mock import Mock

import pytest

from live.errors import ResponseCanceled
from live.run_answer import AnswerRun, start_answer
from live.runtime import LiveRuntime
from providers.errors import ProviderError
from providers.types import EmbeddingRequest
from streams.entries import StreamEnd
from tenants.credentials import NewSite
from tests.platform.live.conftest import OpenWriters, TextWriter, admitted, chat, live_request, usage_of
from tests.polling import wait_until
from tests.simulator_process import SimulatorProcess


async def test_an_answer_is_encoded_and_settled(runtime: LiveRuntime, new_site: NewSite) -> None:
    writer = TextWriter()
    run = AnswerRun.with_lease(runtime, await admitted(runtime, live_request(new_site)), writer)

    body = await run.run()

    assert body
    assert [target.upstream_model for target in writer.targets] == ["gpt-4o-mini"]
    assert run.cache_status == "miss"
    (usage,) = await usage_of(runtime, new_site)
    assert (usage.outcome, usage.billable) == ("ok", True)


async def test_a_failed_answer_raises_and_is_settled(
    runtime: LiveRuntime, new_site: NewSite, simulator: SimulatorProcess
) -> None:
    simulator.script("gpt-4o-mini", ["400"])
    run = AnswerRun.with_lease(runtime, await admitted(runtime, live_request(new_site)), TextWriter())

    with pytest.raises(ProviderError):
        await run.run()

    (usage,) = await usage_of(runtime, new_site)
    assert (usage.outcome, usage.billable) == ("error", False)


async def test_a_canceled_answer_is_settled(runtime: LiveRuntime, new_site: NewSite) -> None:
    run = AnswerRun.with_lease(runtime, await admitted(runtime, live_request(new_site, chat("slow"))), TextWriter())
    task = asyncio.create_task(run.run())
    await asyncio.sleep(0.1)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    (usage,) = await usage_of(runtime, new_site)
    assert usage.outcome == "canceled"


async def test_an_answer_with_an_idempotency_key_is_a_stream_of_one_event(
    runtime: LiveRuntime, new_site: NewSite, make_writer: OpenWriters
) -> None:
    stream = start_answer(runtime, await admitted(runtime, live_request(new_site, idempotency_key="k")), make_writer)

    await wait_until(lambda: stream.end)

    assert stream.end == StreamEnd("done")
    assert [event.data.decode() for event in stream.events] == [make_writer.only.text]


async def test_the_lease_of_an_answer_with_an_idempotency_key_is_added_once(
    runtime: LiveRuntime, new_site: NewSite, make_writer: OpenWriters, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = Mock(wraps=runtime.leases.add)
    monkeypatch.setattr(runtime.leases, "add", add)
    request = await admitted(runtime, live_request(new_site, idempotency_key="k"))

    stream = start_answer(runtime, request, make_writer)
    await wait_until(lambda: stream.end)

    add.assert_called_once_with(request.admission)


async def test_a_canceled_answer_has_an_error_event_for_those_who_wait_for_it(
    runtime: LiveRuntime, new_site: NewSite, make_writer: OpenWriters
) -> None:
    request = live_request(new_site, chat("slow"), idempotency_key="k")
    stream = start_answer(runtime, await admitted(runtime, request), make_writer)
    await asyncio.sleep(0.1)

    stream.cancel("requested")
    await wait_until(lambda: stream.end)

    assert [type(error) for error in make_writer.only.errors] == [ResponseCanceled]
    assert len(stream.events) == 1


async def test_only_inputs_without_a_cached_vector_go_to_a_provider(
    runtime: LiveRuntime, new_site: NewSite, simulator: SimulatorProcess
) -> None:
    async def embed(*inputs: str) -> tuple[bytes, str | None, int]:
        run = AnswerRun.with_lease(
            runtime, await admitted(runtime, live_request(new_site, EmbeddingRequest("embed", inputs))), TextWriter()
        )
        body = await run.run()
        usages = await usage_of(runtime, new_site)
        return body, run.cache_status, len(usages)

    assert await embed("a", "b") == (b"2", "miss", 1)
    assert await embed("b", "c", "a") == (b"3", "miss", 2)
    assert await embed("c", "a") == (b"2", "hit", 2)
