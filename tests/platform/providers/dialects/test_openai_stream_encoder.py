"""Streams in OpenAI's dialect: encoded chunks, and passthrough."""

import json
from typing import Any

import pytest

from providers.dialects.error_payloads import ErrorPayload
from providers.dialects.openai_stream_encoder import DONE, OpenAIPassthroughEncoder, OpenAIStreamEncoder
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
FINISHED = AnswerFinished(FinishReason.STOP, Usage(3, 2))
FAULT = ErrorPayload(502, "server_error", "upstream_stream_interrupted", "Cut.")


def chunks(*events: StreamEvent, include_usage: bool = False) -> list[Any]:
    frames = OpenAIStreamEncoder("chatcmpl-1", 5, "alias", include_usage).encode(Burst(events))
    assert {frame.event for frame in frames} <= {""}
    return [json.loads(frame.data) for frame in frames if frame != DONE]


def deltas(*events: StreamEvent) -> list[Any]:
    return [choice["delta"] for chunk in chunks(*events) for choice in chunk["choices"]]


def test_chunks_are_encoded_like_openai_s() -> None:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 5, "model": "model-2026"}
    role = {"role": "assistant", "content": "", "refusal": None}

    got = chunks(STARTED, TextDelta('a"\n'), FINISHED)

    assert got == [
        {**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]}
        for delta, reason in ((role, None), ({"content": 'a"\n'}, None), ({}, "stop"))
    ]


def test_requested_usage_is_in_the_last_chunk_and_null_before() -> None:
    *before, last = chunks(STARTED, TextDelta("a"), FINISHED, include_usage=True)

    assert [chunk["usage"] for chunk in before] == [None] * 3
    assert (last["choices"], last["usage"]["total_tokens"]) == ([], 5)


def test_unknown_usage_is_not_encoded_as_zero() -> None:
    got = chunks(STARTED, AnswerFinished(FinishReason.STOP, None), include_usage=True)

    assert [len(chunk["choices"]) for chunk in got] == [1, 1]


def test_tool_calls_and_reasoning_have_their_own_deltas() -> None:
    got = deltas(STARTED, ReasoningDelta("Hm"), ToolCallStarted(1, "call_b", "f"), ToolCallDelta(1, '{"a"'))

    assert got[1:] == [
        {"reasoning_content": "Hm"},
        {"tool_calls": [{"index": 1, "id": "call_b", "type": "function", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 1, "function": {"arguments": '{"a"'}}]},
    ]


@pytest.mark.parametrize("reason", FinishReason)
def test_every_finish_reason_is_openai_s(reason: FinishReason) -> None:
    assert chunks(STARTED, AnswerFinished(reason, None))[-1]["choices"][0]["finish_reason"] == reason.value


def test_the_role_comes_first_even_without_a_start_event() -> None:
    assert [delta.get("role") for delta in deltas(TextDelta("a"), TextDelta("b"))] == ["assistant", None, None]


def test_empty_deltas_make_no_chunks() -> None:
    assert len(deltas(STARTED, TextDelta(""), ReasoningDelta(""), ToolCallDelta(0, ""))) == 1


def test_an_interruption_is_an_error_chunk_without_an_end_marker() -> None:
    encoder = OpenAIStreamEncoder("c", 5, "m")
    encoder.encode(Burst((STARTED, TextDelta("a"))))

    (frame,) = encoder.encode_interruption(FAULT)

    error = {"message": "Cut.", "type": "server_error", "param": None, "code": "upstream_stream_interrupted"}
    assert json.loads(frame.data) == {"error": error}


# Passthrough

CHUNK = b'{"id":"c",  "choices":[{"index":0,"delta":{"content":"a"}}],"usage":null}'
USAGE = b'{"id":"c","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}'
FILTERS = b'{"choices":[],"prompt_filter_results":[],"usage":null}'
TIMINGS = b'{"choices":[{"index":0}],"usage":{"prompt_tokens":3}}'


def through(*data: bytes, include_usage: bool = False, ends: bool = True) -> list[bytes]:
    burst = Burst((FINISHED,) if ends else (), [Frame("", datum) for datum in data])
    return [frame.data for frame in OpenAIPassthroughEncoder(include_usage).encode(burst)]


def test_bytes_pass_through_unchanged() -> None:
    assert through(FILTERS, CHUNK, TIMINGS, b"nonsense", DONE.data) == [FILTERS, CHUNK, TIMINGS, b"nonsense", DONE.data]


@pytest.mark.parametrize(("include_usage", "passed"), [(True, [CHUNK, USAGE]), (False, [CHUNK])])
def test_usage_passes_through_only_on_request(include_usage: bool, passed: list[bytes]) -> None:
    assert through(CHUNK, USAGE, include_usage=include_usage, ends=False) == passed


def test_text_that_mentions_usage_passes_through() -> None:
    chunk = json.dumps({"choices": [{"delta": {"content": '"choices":[],"usage":{}'}}]}).encode()

    assert through(chunk, ends=False) == [chunk]


def test_an_end_marker_without_an_end_does_not_pass_through() -> None:
    encoder = OpenAIPassthroughEncoder()

    assert encoder.encode(Burst((), [Frame("", CHUNK), DONE])) == [Frame("", CHUNK)]
    assert [json.loads(frame.data)["error"]["code"] for frame in encoder.encode_interruption(FAULT)] == [FAULT.code]


def test_a_continuation_keeps_the_id_of_the_answer() -> None:
    encoder = OpenAIPassthroughEncoder()
    chunk = b'{"id":"c-9","created":8,"model":"m-9","choices":[{"index":0,"delta":{"role":"assistant"}}]}'
    encoder.encode(Burst((AnswerStarted("c-9", "m-9"),), [Frame("", FILTERS), Frame("", chunk)]))

    frames = encoder.continue_with("next")[0].encode(Burst((AnswerStarted("other", "other"), TextDelta("b"))))

    assert [(chunk["id"], chunk["created"], chunk["model"]) for chunk in map(_json, frames)] == [("c-9", 8, "m-9")]


@pytest.mark.parametrize("encoder", [OpenAIStreamEncoder("c-9", 8, "m"), OpenAIPassthroughEncoder()])
def test_the_continuation_marker_is_a_chunk_with_an_empty_delta(encoder: StreamEncoder) -> None:
    (frame,) = encoder.continue_with("next")[1]

    chunk = _json(frame)
    assert chunk["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": None}]
    assert chunk["nightdesk"] == {"continued_by": "next"}


def test_a_continuation_of_nothing_starts_the_answer() -> None:
    first = _json(OpenAIPassthroughEncoder().continue_with("next")[0].encode(Burst((STARTED, TextDelta("b"))))[0])

    assert (first["id"], first["model"], first["choices"][0]["delta"]["role"]) == (
        STARTED.id,
        STARTED.model,
        "assistant",
    )


def _json(frame: Frame) -> Any:
    return json.loads(frame.data)
