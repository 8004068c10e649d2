"""The scripted provider follows its script."""

import asyncio

import pytest

from providers.errors import BadResponse, ProviderOverloaded, ProviderRateLimited, ResponseInterrupted
from providers.scripted_provider import ScriptedProvider
from providers.types import (
    AnswerFinished,
    AnswerStarted,
    CallContext,
    ChatMessage,
    ChatRequest,
    Completion,
    EmbeddingRequest,
    Embeddings,
    FinishReason,
    InferenceRequest,
    Provider,
    ReasoningDelta,
    Role,
    StreamEvent,
    TextDelta,
    TextPart,
    ToolCall,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)

REQUEST = ChatRequest("m", (ChatMessage(Role.USER, (TextPart("Hello"),)),))
EVENTS = (
    AnswerStarted("i", "m"),
    ReasoningDelta("Hm."),
    TextDelta("Hel"),
    TextDelta("lo"),
    ToolCallStarted(0, "a", "f"),
    ToolCallDelta(0, "{"),
    ToolCallDelta(0, "}"),
    AnswerFinished(FinishReason.TOOL_CALLS, Usage(3, 2)),
)
COMPLETION = Completion(
    "i", "m", "Hello", FinishReason.TOOL_CALLS, Usage(3, 2), tool_calls=(ToolCall("a", "f", "{}"),), reasoning="Hm."
)


async def streamed(provider: Provider, call: CallContext) -> list[StreamEvent]:
    return [event async for burst in provider.stream(REQUEST, call) for event in burst.events]


async def test_each_call_takes_the_next_step_of_the_script(call: CallContext) -> None:
    provider = ScriptedProvider(EVENTS, COMPLETION, ProviderOverloaded("busy"))

    assert await streamed(provider, call) == list(EVENTS)
    assert await provider.complete(REQUEST, call) == COMPLETION
    with pytest.raises(ProviderOverloaded):
        await provider.complete(REQUEST, call)


async def test_one_script_serves_streams_and_complete_answers(call: CallContext) -> None:
    provider = ScriptedProvider(EVENTS, COMPLETION)

    assert await provider.complete(REQUEST, call) == COMPLETION
    assert await streamed(provider, call) == [
        AnswerStarted("i", "m"),
        ReasoningDelta("Hm."),
        TextDelta("Hello"),
        ToolCallStarted(0, "a", "f"),
        ToolCallDelta(0, "{}"),
        AnswerFinished(FinishReason.TOOL_CALLS, Usage(3, 2)),
    ]


@pytest.mark.parametrize("step", [(TextDelta("Hel"),), (), (TextDelta("Hel"), ProviderRateLimited("wait"))])
async def test_a_stream_without_its_end_is_an_error(
    step: tuple[StreamEvent | ProviderRateLimited, ...], call: CallContext
) -> None:
    kind = ProviderRateLimited if len(step) == 2 else ResponseInterrupted
    provider = ScriptedProvider(step, step)

    with pytest.raises(kind):
        await streamed(provider, call)
    with pytest.raises(kind):
        await provider.complete(REQUEST, call)


async def test_it_embeds(call: CallContext) -> None:
    embeddings = Embeddings("m", ((1.0,),), Usage(1))

    assert await ScriptedProvider(embeddings).embed(EmbeddingRequest("m", ("a",)), call) == embeddings


async def test_the_wrong_kind_of_answer_is_a_bad_response(call: CallContext) -> None:
    with pytest.raises(BadResponse, match="Completion for a call that expects Embeddings"):
        await ScriptedProvider(COMPLETION).embed(EmbeddingRequest("m", ("a",)), call)


async def test_received_calls_are_recorded(call: CallContext) -> None:
    provider = ScriptedProvider(COMPLETION)

    await provider.complete(REQUEST, call)

    assert [(got.request, got.call) for got in provider.received] == [(REQUEST, call)]


async def test_a_call_beyond_the_script_raises_an_assertion_error(call: CallContext) -> None:
    with pytest.raises(AssertionError, match="more than its script"):
        await ScriptedProvider(name="one").complete(REQUEST, call)


async def test_a_call_can_be_held_in_flight(call: CallContext) -> None:
    gate = asyncio.Event()

    async def until_open(request: InferenceRequest) -> None:
        await gate.wait()

    provider = ScriptedProvider(COMPLETION, before=until_open)
    calling = asyncio.create_task(provider.complete(REQUEST, call))
    await asyncio.sleep(0)
    assert not calling.done()

    gate.set()

    assert await calling == COMPLETION


async def test_close_is_recorded() -> None:
    provider = ScriptedProvider()

    await provider.close()

    assert provider.is_closed
