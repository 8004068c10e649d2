"""Streams in Anthropic's dialect: encoded events, and passthrough."""

import json
from typing import Any

import pytest

from providers.dialects.anthropic_stream_encoder import AnthropicPassthroughEncoder, AnthropicStreamEncoder
from providers.dialects.error_payloads import ErrorPayload
from providers.dialects.stream_encoder import StreamEncoder
from providers.sse import Frame
from providers.types import (
    AnswerFinished,
    AnswerStarted,
    Burst,
    FinishReason,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)

STARTED = AnswerStarted("id", "model-2026")
FINISHED = AnswerFinished(
    FinishReason.STOP, Usage(30, 2, cached_input_tokens=10, cache_write_tokens=5, reasoning_tokens=1)
)
FAULT = ErrorPayload(503, "service_unavailable_error", "server_is_overloaded", "Busy.")


def written(*events: StreamEvent, encoder: AnthropicStreamEncoder | None = None) -> list[Any]:
    frames = (encoder or AnthropicStreamEncoder("msg_1", "alias", 7)).encode(Burst(events))
    bodies = [json.loads(frame.data) for frame in frames]
    assert [frame.event for frame in frames] == [body["type"] for body in bodies]
    return bodies


def outline(*events: StreamEvent) -> list[str]:
    """Return the order of blocks: starts, deltas and stops with their indexes."""
    return [
        f"{body['type'].removeprefix('content_block_')} {body['index']}" for body in written(*events) if "index" in body
    ]


def test_a_message_is_encoded_like_anthropic_s() -> None:
    start, *blocks, delta, stop = written(STARTED, TextDelta('a"\n'), FINISHED)

    assert {key: start["message"][key] for key in ("id", "type", "role", "model", "content", "stop_reason")} == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "model-2026",
        "content": [],
        "stop_reason": None,
    }
    assert start["message"]["usage"]["input_tokens"] == 7
    assert blocks == [
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": 'a"\n'}},
        {"type": "content_block_stop", "index": 0},
    ]
    assert delta == {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {
            "input_tokens": 15,
            "cache_creation_input_tokens": 5,
            "cache_read_input_tokens": 10,
            "cache_creation": {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 0},
            "output_tokens": 2,
            "output_tokens_details": {"thinking_tokens": 1},
        },
    }
    assert stop == {"type": "message_stop"}


def test_blocks_do_not_overlap() -> None:
    assert outline(
        STARTED, ReasoningDelta("a"), ReasoningDelta("b"), TextDelta("c"), ReasoningDelta("d"), FINISHED
    ) == [
        *("start 0", "delta 0", "delta 0", "stop 0"),
        *("start 1", "delta 1", "stop 1"),
        *("start 2", "delta 2", "stop 2"),
    ]


def test_a_tool_call_is_streamed_while_no_other_is_open() -> None:
    first = (ToolCallStarted(0, "call_a", "f"), ToolCallDelta(0, '{"a":'), ToolCallDelta(0, "1}"))
    second = (ToolCallStarted(1, "call_b", "g"), ToolCallDelta(1, "{"))

    bodies = written(STARTED, TextDelta("Look"), *first, *second)

    assert bodies[4]["content_block"] == {"type": "tool_use", "id": "call_a", "name": "f", "input": {}}
    assert bodies[5]["delta"] == {"type": "input_json_delta", "partial_json": '{"a":'}
    assert [body["index"] for body in bodies[4:]] == [1, 1, 1, 1, 2, 2]


def test_content_that_arrives_while_a_call_may_continue_waits_for_the_end() -> None:
    encoder = AnthropicStreamEncoder("m", "m")
    calls = (ToolCallStarted(0, "call_a", "f"), ToolCallStarted(1, "call_b", "g"))
    began = written(STARTED, *calls, ToolCallDelta(1, "{}"), TextDelta("so"), encoder=encoder)

    assert [body["type"] for body in began] == ["message_start", "content_block_start"]
    rest = written(ToolCallDelta(0, "{}"), FINISHED, encoder=encoder)
    assert [body["index"] for body in rest if "index" in body] == [0, 0, 1, 1, 1, 2, 2, 2]
    assert rest[-2]["delta"]["stop_reason"] == "tool_use"


def test_late_arguments_of_a_complete_call_do_not_delay_other_blocks() -> None:
    first = (ToolCallStarted(0, "call_a", "f"), ToolCallDelta(0, "{}"))
    second = (ToolCallStarted(1, "call_b", "g"), ToolCallDelta(0, "\n"), ToolCallDelta(1, "{}"))

    assert outline(STARTED, *first, *second, TextDelta("so"), FINISHED) == [
        *("start 0", "delta 0", "stop 0"),
        *("start 1", "delta 1", "stop 1"),
        *("start 2", "delta 2", "stop 2"),
    ]


@pytest.mark.parametrize(
    ("reason", "calls", "word"),
    [
        (FinishReason.STOP, (), "end_turn"),
        (FinishReason.STOP, (ToolCallStarted(0, "call_a", "f"),), "tool_use"),
        (FinishReason.TOOL_CALLS, (ToolCallStarted(0, "call_a", "f"),), "tool_use"),
        (FinishReason.LENGTH, (), "max_tokens"),
        (FinishReason.LENGTH, (ToolCallStarted(0, "call_a", "f"),), "max_tokens"),
        (FinishReason.CONTENT_FILTER, (), "refusal"),
    ],
)
def test_finish_reasons_map_to_anthropic_stop_reasons(
    reason: FinishReason, calls: tuple[StreamEvent, ...], word: str
) -> None:
    assert written(STARTED, *calls, AnswerFinished(reason, None))[-2]["delta"]["stop_reason"] == word


def test_a_refusal_has_its_own_stop_reason() -> None:
    refused = AnswerFinished(FinishReason.STOP, None, refused=True)

    assert written(STARTED, TextDelta("No."), refused)[-2]["delta"]["stop_reason"] == "refusal"


def test_an_empty_answer_has_no_blocks() -> None:
    assert [body["type"] for body in written(STARTED, TextDelta(""), AnswerFinished(FinishReason.STOP, None))] == [
        "message_start",
        "message_delta",
        "message_stop",
    ]


def test_the_message_starts_even_without_a_start_event() -> None:
    assert [body["type"] for body in written(TextDelta("a"))][:2] == ["message_start", "content_block_start"]


@pytest.mark.parametrize(
    "encoder", [AnthropicStreamEncoder("m", "m", request_id="req_1"), AnthropicPassthroughEncoder(request_id="req_1")]
)
def test_an_interruption_is_an_error_event_without_an_end(
    encoder: AnthropicStreamEncoder | AnthropicPassthroughEncoder,
) -> None:
    (frame,) = encoder.encode_interruption(FAULT)

    assert frame.event == "error"
    assert json.loads(frame.data) == {
        "type": "error",
        "error": {
            "type": "overloaded_error",
            "message": "Busy.",
            "details": {"error_code": "server_is_overloaded"},
        },
        "request_id": "req_1",
    }


# Passthrough


def test_bytes_pass_through_unchanged_and_missing_event_names_are_added() -> None:
    odd = Frame("", b'{ "type": "content_block_stop", "index": 0, "new": 1 }')
    frames = [Frame("ping", b'{"type": "ping"}'), Frame("new_event", b"[1]"), odd, Frame("", b"nonsense")]

    passed = AnthropicPassthroughEncoder().encode(Burst((), frames))

    assert [frame.data for frame in passed] == [frame.data for frame in frames]
    assert [frame.event for frame in passed] == ["ping", "new_event", "content_block_stop", ""]


def test_message_stop_passes_only_with_the_end() -> None:
    stop = Frame("message_stop", b'{"type":"message_stop"}')
    encoder = AnthropicPassthroughEncoder()

    assert encoder.encode(Burst((), [stop])) == []
    assert [frame.event for frame in encoder.encode_interruption(FAULT)] == ["error"]
    assert AnthropicPassthroughEncoder().encode(Burst((FINISHED,), [stop])) == [stop]
    assert AnthropicPassthroughEncoder().encode(Burst((FINISHED,), [Frame("", stop.data)])) == [stop]


@pytest.mark.parametrize(
    ("last_block", "is_closed", "first_event", "index"),
    [
        ("text", False, "content_block_delta", 3),
        ("redacted_thinking", False, "content_block_stop", 3),
        ("text", True, "content_block_start", 4),
    ],
)
def test_a_continuation_continues_the_open_block(
    last_block: str, is_closed: bool, first_event: str, index: int
) -> None:
    encoder = AnthropicPassthroughEncoder()
    started: dict[str, Any] = {"type": "message_start", "message": {"id": "msg_9", "model": "m-9"}}
    blocks: list[Any] = [{"type": "content_block_start", "content_block": {"type": kind}} for kind in "abc"]
    blocks.append({"type": "content_block_start", "content_block": {"type": last_block}})
    ends = [{"type": "content_block_stop"}] if is_closed else []
    frames = [Frame(body["type"], json.dumps(body).encode()) for body in (started, *blocks, *ends)]
    encoder.encode(Burst((STARTED,), frames))

    first = encoder.continue_with("next")[0].encode(Burst((STARTED, TextDelta("b"))))[0]

    assert (first.event, json.loads(first.data)["index"]) == (first_event, index)


def test_a_continuation_does_not_wait_for_an_interrupted_tool_call() -> None:
    encoder = AnthropicStreamEncoder("m", "m")
    encoder.encode(Burst((STARTED, ToolCallStarted(0, "call_a", "f"), ToolCallDelta(0, '{"a'))))

    frames = encoder.continue_with("next")[0].encode(Burst((TextDelta("b"), ToolCallStarted(0, "call_b", "g"))))

    assert [json.loads(frame.data)["index"] for frame in frames] == [0, 1, 1, 1, 2]


def test_a_passed_through_tool_call_counts_in_a_continuation() -> None:
    encoder = AnthropicPassthroughEncoder()
    upstream = AnthropicStreamEncoder("m", "m").encode(Burst((STARTED, ToolCallStarted(0, "call_a", "f"))))
    encoder.encode(Burst((STARTED, ToolCallStarted(0, "call_a", "f")), upstream))

    frames = encoder.continue_with("next")[0].encode(Burst((FINISHED,)))

    assert json.loads(frames[-2].data)["delta"]["stop_reason"] == "tool_use"


@pytest.mark.parametrize("encoder", [AnthropicStreamEncoder("m", "m"), AnthropicPassthroughEncoder()])
def test_a_ping_names_the_provider_that_continues(encoder: StreamEncoder) -> None:
    (frame,) = encoder.continue_with("next")[1]

    assert frame.event == "ping"
    assert json.loads(frame.data) == {"type": "ping", "nightdesk": {"continued_by": "next"}}


def test_a_continuation_of_nothing_starts_the_message() -> None:
    frames = AnthropicPassthroughEncoder().continue_with("next")[0].encode(Burst((STARTED, TextDelta("b"))))

    assert json.loads(frames[0].data)["message"]["id"] == STARTED.id
