"""Streams: failover before the first token; after it an error, or a marked continuation."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

import pytest

from inference.calls import CallOutcome
from inference.errors import NoProviderKey
from inference.retry_budget import RetryBudgets
from inference.stream import StreamPart, TargetSelected, TargetSwitched
from providers import errors
from providers.scripted_provider import ScriptedProvider
from providers.sse import Frame
from providers.tiers import Tier
from providers.types import (
    AnswerFinished,
    AnswerStarted,
    Burst,
    CallContext,
    ChatRequest,
    Dialect,
    FinishReason,
    InferenceRequest,
    OriginalRequest,
    OutputFormat,
    Role,
    StreamEvent,
    TextDelta,
    TextPart,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from tests.platform.inference.harness import BUSY, HELLO, REQUEST, InferenceHarness
from tests.polling import wait_until

START = AnswerStarted("chatcmpl-1", "m")
END = AnswerFinished(FinishReason.STOP, Usage(20, 5))
CUT = errors.ResponseInterrupted("cut")


async def read(parts: AsyncGenerator[StreamPart, None]) -> list[str]:
    """Return the parts of a stream in short form, and the error that ends it."""
    seen: list[str] = []
    try:
        async for part in parts:
            match part:
                case TargetSelected(target) | TargetSwitched(target):
                    seen.append(f"{type(part).__name__} {target.provider.name}")
                case Burst(events):
                    seen += [event.text if isinstance(event, TextDelta) else type(event).__name__ for event in events]
    except errors.ProviderError as error:
        seen.append(f"! {error.kind}")
    return seen


async def test_the_selected_target_comes_before_its_bursts() -> None:
    harness = InferenceHarness(one=ScriptedProvider((START, *HELLO)))

    assert await read(harness.stream()) == ["TargetSelected one", "AnswerStarted", "Hello", "AnswerFinished"]
    assert harness.calls() == [("one", CallOutcome.OK)]
    assert (harness.trace.closed[0].usage, harness.trace.closed[0].estimated) == (Usage(9, 1), False)


async def test_the_provider_s_frames_are_passed_on() -> None:
    burst = Burst((TextDelta("Hello"), END), (Frame("", b'{"a":  1}'),))

    class Framed(ScriptedProvider):
        async def stream(self, request: ChatRequest, call: CallContext) -> AsyncGenerator[Burst, None]:
            yield burst

    parts = [part async for part in InferenceHarness(one=Framed()).stream()]

    assert parts[1] == burst


@pytest.mark.parametrize("first", [BUSY, (START, BUSY), (START, CUT), (CUT,), errors.ProviderKeyRejected("no", 401)])
async def test_failover_before_the_first_token_is_invisible(first: object) -> None:
    harness = InferenceHarness(one=ScriptedProvider(first, first), two=ScriptedProvider((START, *HELLO)))  # type: ignore[arg-type]

    assert await read(harness.stream()) == ["TargetSelected two", "AnswerStarted", "Hello", "AnswerFinished"]
    assert [name for name, _ in harness.calls()][-1] == "two"
    assert harness.ledger.closed == harness.trace.closed[:-1]


async def test_an_interruption_after_the_first_token_is_raised_without_failover() -> None:
    harness = InferenceHarness(one=ScriptedProvider((TextDelta("Hel"), CUT)), two=ScriptedProvider())

    assert await read(harness.stream()) == ["TargetSelected one", "Hel", "! interrupted"]
    assert harness.calls() == [("one", CallOutcome.ERROR)]
    assert harness.trace.closed[0].estimated
    assert harness.trace.closed[0].usage.output_tokens == 1


async def test_the_last_error_is_raised_if_no_target_answers() -> None:
    harness = InferenceHarness(
        one=ScriptedProvider(BUSY, BUSY), two=ScriptedProvider(errors.ProviderKeyRejected("bad key", 401))
    )

    assert await read(harness.stream()) == ["! provider_key_rejected"]
    assert len(harness.trace.closed) == 3


async def test_a_rejected_request_does_not_fail_over() -> None:
    assert await read(
        InferenceHarness(one=ScriptedProvider(errors.RequestRejected("no", 400)), two=ScriptedProvider()).stream()
    ) == ["! rejected"]


async def test_a_stream_without_any_key_raises_no_provider_key() -> None:
    with pytest.raises(NoProviderKey):
        await read(InferenceHarness().stream())


# Readers that stop early


class Endless(ScriptedProvider):
    """Sends one burst, then nothing until its stream is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.is_stream_closed = False
        self.is_silent = asyncio.Event()

    async def stream(self, request: ChatRequest, call: CallContext) -> AsyncGenerator[Burst, None]:
        try:
            yield Burst((START, TextDelta("Hello, you there. ")))
            self.is_silent.set()
            await asyncio.Event().wait()
        finally:
            self.is_stream_closed = True


async def test_closing_the_stream_closes_the_call_and_keeps_its_usage_record() -> None:
    endless = Endless()
    harness = InferenceHarness(one=endless)

    async with aclosing(harness.stream()) as parts:
        async for part in parts:
            if isinstance(part, Burst):
                break

    assert endless.is_stream_closed
    assert harness.calls() == [("one", CallOutcome.CANCELED)]
    assert harness.trace.closed[0].estimated
    assert harness.trace.closed[0].usage.input_tokens > 50
    assert harness.trace.closed[0].usage.output_tokens > 3


async def test_canceling_the_reader_closes_the_call_and_keeps_its_usage_record() -> None:
    endless = Endless()
    harness = InferenceHarness(one=endless)
    reading = asyncio.create_task(read(harness.stream()))
    await endless.is_silent.wait()
    reading.cancel()

    with pytest.raises(asyncio.CancelledError):
        await reading

    assert endless.is_stream_closed
    assert harness.calls() == [("one", CallOutcome.CANCELED)]


async def test_a_call_canceled_before_the_first_token_is_in_the_trace() -> None:
    async def hang(_: InferenceRequest) -> None:
        await asyncio.Event().wait()

    one = ScriptedProvider(HELLO, before=hang)
    harness = InferenceHarness(one=one)
    reading = asyncio.create_task(read(harness.stream()))
    await wait_until(lambda: one.received)
    reading.cancel()

    with pytest.raises(asyncio.CancelledError):
        await reading
    assert harness.calls() == [("one", CallOutcome.CANCELED)]


async def test_a_reader_that_stops_at_the_last_event_leaves_a_successful_call() -> None:
    harness = InferenceHarness(one=ScriptedProvider(HELLO))

    async with aclosing(harness.stream()) as parts:
        async for part in parts:
            if isinstance(part, Burst) and isinstance(part.events[-1], AnswerFinished):
                break

    assert harness.calls() == [("one", CallOutcome.OK)]
    assert (harness.trace.closed[0].usage, harness.trace.closed[0].estimated) == (Usage(9, 1), False)


# Continuation


async def test_an_interrupted_answer_is_continued_by_the_next_provider_and_marked() -> None:
    two = ScriptedProvider((AnswerStarted("other", "n"), TextDelta("lo."), END))
    harness = InferenceHarness(one=ScriptedProvider((START, TextDelta("Hel"), CUT)), two=two)

    assert await read(harness.stream_with_continuation()) == [
        *("TargetSelected one", "AnswerStarted", "Hel"),
        *("TargetSwitched two", "lo.", "AnswerFinished"),
    ]
    continued_request = two.received[0].request
    assert isinstance(continued_request, ChatRequest)
    assert continued_request.messages[:-1] == REQUEST.messages
    assert (continued_request.messages[-1].role, continued_request.messages[-1].parts) == (
        Role.ASSISTANT,
        (TextPart("Hel"),),
    )
    assert harness.calls() == [("one", CallOutcome.ERROR), ("two", CallOutcome.OK)]


async def test_the_usage_of_a_continued_answer_is_the_sum_of_its_calls() -> None:
    harness = InferenceHarness(
        one=ScriptedProvider((TextDelta("Hel"), CUT)),
        two=ScriptedProvider((TextDelta("lo"), CUT)),
        three=ScriptedProvider((TextDelta("."), END)),
    )

    parts = [part async for part in harness.stream_with_continuation()]

    closed = harness.trace.closed
    assert [call.estimated for call in closed] == [True, True, False]
    last = parts[-1]
    assert isinstance(last, Burst)
    assert last.events == [
        AnswerFinished(
            FinishReason.STOP,
            Usage(sum(call.usage.input_tokens for call in closed), sum(call.usage.output_tokens for call in closed)),
        )
    ]
    assert closed[2].usage == Usage(20, 5)


async def test_a_continued_stream_has_no_frames() -> None:
    class Framed(ScriptedProvider):
        async def stream(self, request: ChatRequest, call: CallContext) -> AsyncGenerator[Burst, None]:
            yield Burst((TextDelta("Hello"), END), (Frame("", b"{}"),))

    parts = [part async for part in InferenceHarness(one=Framed()).stream_with_continuation()]

    assert all(part.frames == () for part in parts if isinstance(part, Burst))


async def test_white_space_at_the_interruption_is_neither_sent_nor_repeated() -> None:
    two = ScriptedProvider((TextDelta(" world"), END))
    harness = InferenceHarness(one=ScriptedProvider((TextDelta("Hello, "), CUT)), two=two)

    assert (await read(harness.stream_with_continuation()))[1:] == [
        "Hello, ",
        "TargetSwitched two",
        "world",
        "AnswerFinished",
    ]
    continued_request = two.received[0].request
    assert isinstance(continued_request, ChatRequest)
    assert continued_request.messages[-1].parts == (TextPart("Hello,"),)


async def test_the_text_so_far_counts_against_max_tokens() -> None:
    two = ScriptedProvider(HELLO)
    harness = InferenceHarness(one=ScriptedProvider((TextDelta("a" * 30), CUT)), two=two)

    await read(harness.stream_with_continuation(replace(REQUEST, max_tokens=100)))

    continued_request = two.received[0].request
    assert isinstance(continued_request, ChatRequest)
    assert continued_request.max_tokens == 90


TOOL: tuple[StreamEvent, ...] = (TextDelta("Let me see."), ToolCallStarted(0, "call_1", "look"), ToolCallDelta(0, '{"'))


@pytest.mark.parametrize(
    ("request_", "events"),
    [
        (REQUEST, (*TOOL, CUT)),
        (replace(REQUEST, output_format=OutputFormat("json_object")), (TextDelta('{"a'), CUT)),
        (REQUEST, (TextDelta("I"), errors.ContentRefused("refused"))),
    ],
    ids=["a tool call", "a document", "a refusal"],
)
async def test_an_answer_that_no_other_model_can_complete_is_not_continued(
    request_: ChatRequest, events: tuple[StreamEvent | errors.ProviderError, ...]
) -> None:
    harness = InferenceHarness(one=ScriptedProvider(events), two=ScriptedProvider())

    assert (await read(harness.stream_with_continuation(request_)))[-1].startswith("! ")
    assert len(harness.calls()) == 1


async def test_a_failed_continuation_raises_the_interruption() -> None:
    harness = InferenceHarness(one=ScriptedProvider((TextDelta("Hel"), CUT)), two=ScriptedProvider(BUSY, BUSY))

    assert await read(harness.stream_with_continuation()) == ["TargetSelected one", "Hel", "! interrupted"]
    assert len(harness.calls()) == 3


async def test_an_interruption_without_a_further_call_is_not_its_own_cause() -> None:
    harness = InferenceHarness(one=ScriptedProvider((START, TextDelta("Hel"), errors.ResponseInterrupted("cut"))))
    harness.budgets = RetryBudgets(share=0, floor=0)

    with pytest.raises(errors.ResponseInterrupted) as raised:
        async for _ in harness.stream_with_continuation():
            pass
    assert raised.value.__cause__ is not raised.value


async def test_the_only_provider_continues_its_own_answer() -> None:
    one = ScriptedProvider((TextDelta("Hel"), CUT), (TextDelta("lo"), END))

    assert await read(InferenceHarness(one=one).stream_with_continuation()) == [
        *("TargetSelected one", "Hel", "TargetSwitched one", "lo", "AnswerFinished")
    ]


def request_with_tier(tier: Tier, dialect: Dialect = Dialect.OPENAI) -> ChatRequest:
    return replace(REQUEST, tier=tier, original=OriginalRequest(dialect, {}))


@pytest.mark.parametrize(
    ("request_", "reported", "expected"),
    [
        (REQUEST, None, Tier.STANDARD),
        (REQUEST, Tier.PRIORITY, Tier.PRIORITY),
        (request_with_tier(Tier.PRIORITY), None, Tier.PRIORITY),
        (request_with_tier(Tier.PRIORITY), Tier.STANDARD, Tier.STANDARD),
        (request_with_tier(Tier.FAST, Dialect.ANTHROPIC), None, Tier.STANDARD),
    ],
    ids=["no-tier", "reported-only", "requested-only", "requested-and-not-granted", "requested-in-another-dialect"],
)
@pytest.mark.parametrize("cut", [False, True])
async def test_the_tier_is_the_reported_one_or_else_the_requested_one(
    request_: ChatRequest, reported: Tier | None, expected: Tier, cut: bool
) -> None:
    script = (START, TextDelta("Hello"), CUT) if cut else (START, *HELLO)
    harness = InferenceHarness(one=ScriptedProvider(script, tier=reported))

    await read(harness.stream(request_))

    (call,) = harness.trace.closed
    assert (call.tier, call.estimated) == (expected, cut)
