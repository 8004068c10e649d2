"""The adapters against the simulator, which implements the wire formats independently of them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import replace
from uuid import uuid4

import pytest
import pytest_asyncio

from providers.errors import (
    AmbiguousOutcome,
    BadResponse,
    ContextTooLong,
    ModelNotFound,
    ProviderError,
    ProviderKeyRejected,
    ProviderOverloaded,
    ProviderRateLimited,
    ProviderTimeout,
    RequestRejected,
    ResponseInterrupted,
    TransientFailure,
    UnsupportedFeature,
)
from providers.types import (
    AnswerFinished,
    CallContext,
    ChatRequest,
    EmbeddingRequest,
    FinishReason,
    OutputFormat,
    Provider,
    StreamEvent,
    TextDelta,
    Tool,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from tests.platform.providers.stream_helpers import error_of, events_of
from tests.platform.providers.vendors import KEY, Vendor
from tests.polling import wait_for
from tests.simulator_process import SimulatorProcess, start_simulator

TOOL = Tool(
    "get_weather",
    "The weather",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False},
)


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorProcess]:
    with start_simulator() as simulator:
        yield simulator


@pytest_asyncio.fixture
async def provider(vendor: Vendor, simulator: SimulatorProcess) -> AsyncIterator[Provider]:
    provider = vendor.connect(simulator.url)
    yield provider
    await provider.close()


@pytest.fixture
def call() -> CallContext:
    return CallContext(f"call_{uuid4().hex}", total_seconds=10, first_byte_seconds=5, idle_seconds=5)


def request_with(vendor: Vendor, controls: str = "") -> ChatRequest:
    """Return a request that no other test has sent: the simulator counts attempts by body."""
    request = vendor.request(f"Tell me of the weather of day {uuid4().hex}.")
    return replace(request, model=f"{request.model}@{controls}" if controls else request.model)


def text_of(events: list[StreamEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def entry_of(simulator: SimulatorProcess, call: CallContext) -> dict[str, object]:
    [entry] = (entry for entry in simulator.journal() if entry["client_request_id"] == call.call_id)
    return entry


def counted(simulator: SimulatorProcess, call: CallContext) -> tuple[object, ...]:
    entry = entry_of(simulator, call)
    return entry["input_tokens"], entry["output_tokens"], entry["cached_tokens"], entry["cache_write_tokens"]


def counts_of(usage: Usage | None) -> tuple[object, ...]:
    assert usage is not None
    return usage.input_tokens, usage.output_tokens, usage.cached_input_tokens, usage.cache_write_tokens


async def test_usage_of_streams_and_complete_answers_equals_the_journal(
    provider: Provider, vendor: Vendor, simulator: SimulatorProcess, call: CallContext
) -> None:
    request = request_with(vendor, "cached_tokens=5,cache_write_tokens=3,reasoning_tokens=4")
    again = replace(call, call_id=call.call_id + "-2")

    events = await events_of(provider, request, call)
    completion = await provider.complete(request, again)

    assert text_of(events) == completion.text != ""
    assert isinstance(events[-1], AnswerFinished)
    assert counts_of(events[-1].usage) == counted(simulator, call)
    assert counts_of(completion.usage) == counted(simulator, again)
    assert completion.usage is not None
    assert completion.usage.reasoning_tokens == 4


@pytest.mark.parametrize(
    "controls",
    [
        "split_frames",
        "ping_every=1",
        "obfuscation",
        "huge_line",
        "slow_loris=1",
        "early_headers,ttft_ms=50",
        "inter_token_ms=1",
        "wrong_content_type",
    ],
)
async def test_unusual_but_complete_streams_are_decoded_completely(
    provider: Provider, vendor: Vendor, call: CallContext, controls: str
) -> None:
    request = request_with(vendor, f"{controls},tokens=12")

    events = await events_of(provider, request, call)

    assert len(text_of(events)) > 12
    assert isinstance(events[-1], AnswerFinished)
    assert counts_of(events[-1].usage)[1] == 12


@pytest.mark.parametrize("controls", ["tool_calls=2", "tool_calls=2,duplicate_tool_index"])
async def test_parallel_tool_calls_are_distinguished(
    provider: Provider, vendor: Vendor, call: CallContext, controls: str
) -> None:
    request = replace(request_with(vendor, controls), tools=(TOOL, replace(TOOL, name="get_time")))

    events = await events_of(provider, request, call)

    started = [event for event in events if isinstance(event, ToolCallStarted)]
    assert [event.index for event in started] == [0, 1]
    assert len({event.id for event in started}) == 2
    for index in (0, 1):
        arguments = "".join(e.arguments for e in events if isinstance(e, ToolCallDelta) and e.index == index)
        assert arguments.startswith("{")
        assert arguments.endswith("}")
        assert arguments.count("{") == arguments.count("}")
    assert isinstance(events[-1], AnswerFinished)
    assert events[-1].reason is FinishReason.TOOL_CALLS


async def test_structured_output_is_accepted(provider: Provider, vendor: Vendor, call: CallContext) -> None:
    output = OutputFormat("json_schema", "place", schema=TOOL.parameters, strict=True)

    completion = await provider.complete(replace(request_with(vendor), output_format=output), call)

    assert completion.text.startswith("{")


async def test_unreported_usage_is_not_zero(provider: Provider, vendor: Vendor, call: CallContext) -> None:
    events = await events_of(provider, request_with(vendor, "drop_usage"), call)

    assert isinstance(events[-1], AnswerFinished)
    assert events[-1].usage is None


@pytest.mark.parametrize(
    ("controls", "kind"),
    [
        ("status=400", RequestRejected),
        ("status=401", ProviderKeyRejected),
        ("status=403", ProviderKeyRejected),
        ("status=404", ModelNotFound),
        ("status=429,retry_after=3", ProviderRateLimited),
        ("status=500", TransientFailure),
        ("status=502", TransientFailure),
        ("status=503", ProviderOverloaded),
        ("status=529", ProviderOverloaded),
        ("html_502", TransientFailure),
        ("context=1", ContextTooLong),
        ("cut_after_n=0", AmbiguousOutcome),
        ("cut_after_n=0,cut=rst", AmbiguousOutcome),
        ("drop_done", ResponseInterrupted),
        ("error_after_n=0", ProviderError),
    ],
)
async def test_each_simulated_fault_maps_to_its_error(
    provider: Provider, vendor: Vendor, call: CallContext, controls: str, kind: type[ProviderError]
) -> None:
    _, error = await error_of(provider, request_with(vendor, controls), call)

    assert isinstance(error, kind)
    assert error.retryable or isinstance(error, RequestRejected | ProviderKeyRejected)
    if isinstance(error, ProviderRateLimited):
        assert error.retry_after_seconds == 3


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("count", [1, 2, 5])
async def test_a_closed_connection_is_an_interruption(
    provider: Provider, vendor: Vendor, call: CallContext, count: int, how: str
) -> None:
    events, error = await error_of(
        provider, request_with(vendor, f"deltas=8,tokens=16,cut_after_n={count},cut={how}"), call
    )

    assert isinstance(error, ResponseInterrupted)
    # A reset may overtake data that was sent before it.
    assert sum(isinstance(event, TextDelta) for event in events) <= count


async def test_an_error_in_the_stream_is_an_interruption(provider: Provider, vendor: Vendor, call: CallContext) -> None:
    _, error = await error_of(provider, request_with(vendor, "error_after_n=2"), call)

    assert type(error) is ResponseInterrupted
    assert error.code


@pytest.mark.parametrize(("after", "kind"), [(0, ProviderTimeout), (2, ResponseInterrupted)])
async def test_silence_is_a_timeout(
    provider: Provider, vendor: Vendor, call: CallContext, after: int, kind: type[ProviderError]
) -> None:
    # A first call opens the connection: on a busy machine that alone may take this long.
    await provider.complete(request_with(vendor), call)
    short = replace(call, first_byte_seconds=0.3, idle_seconds=0.3)

    _, error = await error_of(provider, request_with(vendor, f"stall_after_n={after}"), short)

    assert type(error) is kind


async def test_an_html_page_instead_of_a_complete_answer_is_a_bad_response(
    provider: Provider, vendor: Vendor, call: CallContext
) -> None:
    with pytest.raises(TransientFailure):
        await provider.complete(request_with(vendor, "html_502"), call)


async def test_a_truncated_complete_answer_is_an_interruption(
    provider: Provider, vendor: Vendor, call: CallContext
) -> None:
    with pytest.raises((ResponseInterrupted, BadResponse)):
        await provider.complete(request_with(vendor, "cut_after_n=3"), call)


async def test_the_provider_notices_a_reader_that_stops(
    provider: Provider, vendor: Vendor, simulator: SimulatorProcess, call: CallContext
) -> None:
    request = request_with(vendor, "inter_token_ms=20,tokens=400")

    async with aclosing(provider.stream(request, call)) as bursts:
        async for burst in bursts:
            if any(isinstance(event, TextDelta) for event in burst.events):
                break

    # In a thread, because this event loop must close the connection.
    await asyncio.to_thread(wait_for, lambda: entry_of(simulator, call)["finished_at"])
    assert entry_of(simulator, call)["client_disconnected"] is True


@pytest.mark.parametrize(
    ("key", "kind"),
    [("sk-bad-1", ProviderKeyRejected), ("sk-quota-1", ProviderKeyRejected), ("sk-forbidden", ProviderKeyRejected)],
)
async def test_a_key_that_will_not_work_again_is_rejected(
    vendor: Vendor, simulator: SimulatorProcess, call: CallContext, key: str, kind: type[ProviderError]
) -> None:
    provider = vendor.connect(simulator.url, key)

    _, error = await error_of(provider, request_with(vendor), call)
    await provider.close()

    assert type(error) is kind
    assert key not in error.message


async def test_usage_of_embeddings_equals_the_journal(
    provider: Provider, vendor: Vendor, simulator: SimulatorProcess, call: CallContext
) -> None:
    request = EmbeddingRequest("text-embedding-3-small", ("one", "two"), dimensions=8)
    if vendor.embeddings_path is None:
        with pytest.raises(UnsupportedFeature):
            await provider.embed(request, call)
        return

    embeddings = await provider.embed(request, call)

    assert [len(vector) for vector in embeddings.vectors] == [8, 8]
    assert embeddings.usage is not None
    assert embeddings.usage.input_tokens == entry_of(simulator, call)["input_tokens"]


def test_the_key_of_these_tests_is_valid() -> None:
    assert not KEY.startswith(("sk-bad", "sk-quota", "sk-forbidden"))
