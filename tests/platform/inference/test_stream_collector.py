"""A stream's events become a complete answer, or a ResponseInterrupted error."""

import pytest

from inference.stream_collector import StreamCollector
from providers.errors import ResponseInterrupted
from providers.types import (
    AnswerFinished,
    AnswerStarted,
    FinishReason,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)


def collected(*events: StreamEvent) -> StreamCollector:
    collector = StreamCollector()
    for event in events:
        collector.add(event)
    return collector


def test_text_tool_calls_and_usage_are_collected_in_order() -> None:
    answer = collected(
        AnswerStarted("chatcmpl-1", "gpt-4o-mini-2024-07-18"),
        ReasoningDelta("hm "),
        TextDelta("Hel"),
        ToolCallStarted(1, "b", "two"),
        ToolCallStarted(0, "a", "one"),
        ToolCallDelta(0, '{"x":'),
        ToolCallDelta(1, "{}"),
        ToolCallDelta(0, "1}"),
        TextDelta("lo"),
        AnswerFinished(FinishReason.TOOL_CALLS, Usage(9, 2)),
    ).completion()

    assert (answer.id, answer.model, answer.text) == ("chatcmpl-1", "gpt-4o-mini-2024-07-18", "Hello")
    assert answer.tool_calls == (ToolCall("a", "one", '{"x":1}'), ToolCall("b", "two", "{}"))
    assert (answer.reasoning, answer.finish_reason, answer.usage) == ("hm ", FinishReason.TOOL_CALLS, Usage(9, 2))


def test_a_stream_without_an_end_is_interrupted_but_readable() -> None:
    cut = collected(ReasoningDelta("so "), TextDelta("far"), ToolCallStarted(0, "a", "one"), ToolCallDelta(0, "{"))

    with pytest.raises(ResponseInterrupted):
        cut.completion()
    assert cut.received == "so far{"
