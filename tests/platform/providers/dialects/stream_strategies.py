"""Hypothesis strategies for provider streams, and helpers that decode what a caller receives."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from hypothesis import strategies as st

from providers.dialects import anthropic_upstream, openai_upstream
from providers.dialects.anthropic_stream_encoder import AnthropicPassthroughEncoder, AnthropicStreamEncoder
from providers.dialects.openai_stream_encoder import OpenAIPassthroughEncoder, OpenAIStreamEncoder
from providers.dialects.stream_encoder import StreamEncoder
from providers.sse import Frame, SSEDecoder
from providers.sse_writer import encode_frames
from providers.types import (
    AnswerFinished,
    AnswerStarted,
    Burst,
    Dialect,
    FinishReason,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)

Reader: TypeAlias = openai_upstream.OpenAIStreamDecoder | anthropic_upstream.AnthropicStreamDecoder

DIALECTS = (Dialect.OPENAI, Dialect.ANTHROPIC)


def decoder_of(dialect: Dialect) -> Reader:
    return (
        anthropic_upstream.AnthropicStreamDecoder()
        if dialect is Dialect.ANTHROPIC
        else openai_upstream.OpenAIStreamDecoder()
    )


def encoder_of(dialect: Dialect, model: str = "alias") -> StreamEncoder:
    if dialect is Dialect.ANTHROPIC:
        return AnthropicStreamEncoder("msg_1", model, 7)
    return OpenAIStreamEncoder("chatcmpl-1", 5, model, include_usage=True)


def through_of(dialect: Dialect) -> StreamEncoder:
    return (
        AnthropicPassthroughEncoder() if dialect is Dialect.ANTHROPIC else OpenAIPassthroughEncoder(include_usage=True)
    )


def encode_all(encoder: StreamEncoder, bursts: Iterable[Burst]) -> list[Frame]:
    return [frame for burst in bursts for frame in encoder.encode(burst)]


def read_all(dialect: Dialect, frames: Sequence[Frame]) -> list[Burst]:
    """Encode frames as bytes and decode them with our adapters; the last burst has the `AnswerFinished`."""
    decoder = decoder_of(dialect)
    arrived = list(SSEDecoder().feed(encode_frames("stm_1", 1, frames, retry_milliseconds=1000)))
    assert arrived == list(frames)
    bursts = [Burst(decoder.decode(frame), (frame,)) for frame in arrived]
    if decoder.finished is None:
        return bursts
    return [*bursts[:-1], Burst((*bursts[-1].events, decoder.finished), bursts[-1].frames)]


@dataclass(frozen=True, slots=True)
class ReceivedAnswer:
    """An answer assembled from a stream."""

    text: str
    reasoning: str
    calls: tuple[tuple[str, str, str], ...]
    finished: AnswerFinished | None


def assemble(bursts: Iterable[Burst]) -> ReceivedAnswer:
    events = [event for burst in bursts for event in burst.events]
    starts = sorted((event for event in events if isinstance(event, ToolCallStarted)), key=lambda start: start.index)
    return ReceivedAnswer(
        text="".join(event.text for event in events if isinstance(event, TextDelta)),
        reasoning="".join(event.text for event in events if isinstance(event, ReasoningDelta)),
        calls=tuple((start.id, start.name, _arguments(start.index, events)) for start in starts),
        finished=next((event for event in events if isinstance(event, AnswerFinished)), None),
    )


def _arguments(index: int, events: Sequence[StreamEvent]) -> str:
    deltas = (event for event in events if isinstance(event, ToolCallDelta) and event.index == index)
    # White space after the arguments may be lost in translation.
    return "".join(delta.arguments for delta in deltas).rstrip()


# Strategies

# Including line ends of all kinds.
TEXTS = st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(["\u2028", "\u0085a", "\r\n", '"}\n\n'])
NAMES = st.from_regex(r"[a-zA-Z0-9_-]{1,12}", fullmatch=True)
OBJECTS = st.dictionaries(NAMES, st.integers() | TEXTS, max_size=2)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    cached, written, rest, reasoning, text_tokens = (draw(st.integers(0, 1000)) for _ in range(5))
    return Usage(
        input_tokens=cached + written + rest,
        output_tokens=reasoning + text_tokens,
        cached_input_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=reasoning,
    )


@st.composite
def streams(draw: st.DrawFn) -> list[Burst]:
    """Text, reasoning and tool calls in any order, calls also overlapping, split into bursts anywhere."""
    calls = [_call(draw, index) for index in range(draw(st.integers(0, 3)))]
    deltas = draw(st.lists(st.builds(TextDelta, TEXTS) | st.builds(ReasoningDelta, TEXTS), max_size=6))
    events = [AnswerStarted("id-upstream", draw(NAMES)), *_mixed(draw, calls, deltas)]
    reason = FinishReason.TOOL_CALLS if calls else draw(st.sampled_from(FinishReason))
    return _cut(draw, [*events, AnswerFinished(reason, draw(usages()))])


def _call(draw: st.DrawFn, index: int) -> list[StreamEvent]:
    arguments = json.dumps(draw(OBJECTS), ensure_ascii=False) + draw(st.sampled_from(["", " "]))
    cuts = sorted(draw(st.lists(st.integers(0, len(arguments)), max_size=3)))
    pieces = [arguments[i:j] for i, j in zip([0, *cuts], [*cuts, len(arguments)], strict=True)]
    return [ToolCallStarted(index, f"call_{index}", draw(NAMES)), *(ToolCallDelta(index, piece) for piece in pieces)]


def _mixed(draw: st.DrawFn, calls: list[list[StreamEvent]], deltas: Sequence[StreamEvent]) -> list[StreamEvent]:
    """Interleave: events of a call keep their order, and calls start in the order of their numbers."""
    waiting = [list(deltas), *calls]
    mixed: list[StreamEvent] = []
    begun = 1
    while any(waiting):
        open_ones = [queue for queue in waiting[: begun + 1] if queue]
        queue = draw(st.sampled_from(open_ones or [queue for queue in waiting if queue][:1]))
        begun += isinstance(queue[0], ToolCallStarted)
        mixed.append(queue.pop(0))
    return mixed


def _cut(draw: st.DrawFn, events: list[StreamEvent]) -> list[Burst]:
    bursts = []
    while events:
        length = draw(st.integers(1, 4))
        bursts.append(Burst(events[:length]))
        events = events[length:]
    return bursts
