"""The vendors' official clients, unmodified, read our streams, errors, lists and counts."""

import json
from collections.abc import Sequence
from datetime import date
from typing import Any

import anthropic
import openai
import pytest
from pydantic import BaseModel

from providers.catalogue import find_model
from providers.dialects import anthropic as anthropic_dialect
from providers.dialects import openai as openai_dialect
from providers.dialects.anthropic_stream_encoder import AnthropicPassthroughEncoder, AnthropicStreamEncoder
from providers.dialects.error_payloads import ErrorPayload, encode_anthropic_error, encode_openai_error
from providers.dialects.model_list import (
    ListedModel,
    encode_anthropic_models,
    encode_openai_model,
    encode_openai_models,
)
from providers.dialects.openai_stream_encoder import OpenAIPassthroughEncoder, OpenAIStreamEncoder
from providers.dialects.stream_encoder import StreamEncoder
from providers.sse import Frame
from providers.sse_writer import KEEP_ALIVE, encode_frames
from providers.types import (
    AnswerFinished,
    AnswerStarted,
    Burst,
    Embeddings,
    FinishReason,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from tests.platform.providers.dialects.official import SAYS, anthropic_client, openai_client
from tests.platform.providers.vendors import TEXT, recorded

USAGE = Usage(20, 10, cached_input_tokens=8, cache_write_tokens=2, reasoning_tokens=3)
STARTED = AnswerStarted("id-of-the-vendor", "model-2026-01-01")
CALLS: tuple[StreamEvent, ...] = (
    ToolCallStarted(0, "call_a", "get_weather"),
    ToolCallDelta(0, '{"ci'),
    ToolCallDelta(0, 'ty":"Oslo"}'),
    ToolCallStarted(1, "call_b", "get_time"),
    ToolCallDelta(1, '{"zone":"CET"}'),
)
CUT = ErrorPayload(502, "server_error", "upstream_stream_interrupted", "The provider's stream ended in the middle.")


def events(*provider_events: StreamEvent, reason: FinishReason = FinishReason.STOP) -> list[StreamEvent]:
    return [STARTED, *provider_events, AnswerFinished(reason, USAGE)]


def sent(
    encoder: StreamEncoder, provider_events: Sequence[StreamEvent], error: ErrorPayload | None = None
) -> list[bytes]:
    """Return the bytes on the wire, one chunk per event: ids, comments between frames, `retry` in the first."""
    writes: list[bytes] = []
    seq = 1
    frames = [encoder.encode(Burst((event,))) for event in provider_events]
    for group in [*frames, encoder.encode_interruption(error) if error else []]:
        writes += [KEEP_ALIVE, encode_frames("stm_1", seq, group, retry_milliseconds=1000 if seq == 1 else None)]
        seq += len(group)
    return [write for write in writes if write]


def chunks(provider_events: Sequence[StreamEvent], error: ErrorPayload | None = None) -> Any:
    client = openai_client(sent(OpenAIStreamEncoder("chatcmpl-1", 5, "alias", True), provider_events, error))
    return client.chat.completions.create(model="m", messages=SAYS, stream=True, stream_options={"include_usage": True})


def message(provider_events: Sequence[StreamEvent], error: ErrorPayload | None = None, **options: Any) -> Any:
    client = anthropic_client(sent(AnthropicStreamEncoder("msg_1", "alias", 7), provider_events, error))
    with client.messages.stream(model="m", max_tokens=9, messages=SAYS, **options) as stream:
        return stream.get_final_message()


# OpenAI


def test_openai_s_client_reads_text_reasoning_and_usage() -> None:
    provider_events = events(
        ReasoningDelta("Hm"), TextDelta("Grü"), TextDelta("ße 🌧\u2028\u0085"), reason=FinishReason.LENGTH
    )

    got = list(chunks(provider_events))

    assert {(chunk.id, chunk.created, chunk.model) for chunk in got} == {("chatcmpl-1", 5, "model-2026-01-01")}
    assert got[0].choices[0].delta.role == "assistant"
    deltas = [choice.delta for chunk in got for choice in chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == "Grüße 🌧\u2028\u0085"
    assert "".join(getattr(delta, "reasoning_content", "") for delta in deltas) == "Hm"
    assert [chunk.choices[0].finish_reason for chunk in got[:-1]][-2:] == [None, "length"]
    usage = got[-1].usage
    assert (got[-1].choices, usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == ([], 20, 10, 30)
    assert usage.prompt_tokens_details.cached_tokens == 8
    assert usage.completion_tokens_details.reasoning_tokens == 3


def test_openai_s_client_assembles_parallel_tool_calls() -> None:
    client = openai_client(sent(OpenAIStreamEncoder("c", 5, "m"), events(TextDelta("Look"), *CALLS)))

    with client.chat.completions.stream(model="m", messages=SAYS) as stream:
        answer = stream.get_final_completion().choices[0].message

    assert answer.content == "Look"
    assert answer.tool_calls is not None
    assert [(call.id, call.function.name, call.function.arguments) for call in answer.tool_calls] == [
        ("call_a", "get_weather", '{"city":"Oslo"}'),
        ("call_b", "get_time", '{"zone":"CET"}'),
    ]


class Mood(BaseModel):
    mood: str


def test_openai_s_client_parses_structured_output() -> None:
    provider_events = events(TextDelta('{"mood":'), TextDelta('"good"}'))
    client = openai_client(sent(OpenAIStreamEncoder("c", 5, "m"), provider_events))

    with client.chat.completions.stream(model="m", messages=SAYS, response_format=Mood) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == Mood(mood="good")


@pytest.mark.parametrize("length", range(1, 5))
def test_openai_s_client_raises_for_an_interrupted_stream(length: int) -> None:
    provider_events = events(TextDelta("a"), TextDelta("b"), *CALLS)[:length]

    with pytest.raises(openai.APIError, match="ended in the middle") as caught:
        list(chunks(provider_events, CUT))

    assert caught.value.code == "upstream_stream_interrupted"
    assert caught.value.type == "server_error"


# Anthropic


def test_anthropic_s_client_reads_text_thinking_and_usage() -> None:
    provider_events = events(ReasoningDelta("Hm"), TextDelta("Grü"), TextDelta("ße\u2028"), reason=FinishReason.LENGTH)

    got = message(provider_events)

    assert (got.id, got.model, got.role) == ("msg_1", "model-2026-01-01", "assistant")
    assert [(block.type, getattr(block, block.type)) for block in got.content] == [
        ("thinking", "Hm"),
        ("text", "Grüße\u2028"),
    ]
    assert got.stop_reason == "max_tokens"
    usage = got.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (10, 8, 2)
    assert (usage.output_tokens, usage.output_tokens_details.thinking_tokens) == (10, 3)


@pytest.mark.parametrize("reason", [FinishReason.TOOL_CALLS, FinishReason.STOP])
def test_anthropic_s_client_assembles_parallel_tool_calls(reason: FinishReason) -> None:
    got = message(events(TextDelta("Look"), *CALLS, reason=reason))

    assert got.stop_reason == "tool_use"
    assert [(block.id, block.name, block.input) for block in got.content[1:]] == [
        ("call_a", "get_weather", {"city": "Oslo"}),
        ("call_b", "get_time", {"zone": "CET"}),
    ]


def test_anthropic_s_client_reads_overlapping_tool_calls() -> None:
    starts = [ToolCallStarted(0, "call_a", "f"), ToolCallStarted(1, "call_b", "g")]
    deltas = [ToolCallDelta(1, '{"b":'), ToolCallDelta(0, '{"a":'), ToolCallDelta(1, "2}"), ToolCallDelta(0, "1}")]

    got = message(events(*starts, TextDelta("And "), *deltas, TextDelta("so")))

    assert [(block.id, block.input) for block in got.content if block.type == "tool_use"] == [
        ("call_a", {"a": 1}),
        ("call_b", {"b": 2}),
    ]
    assert [block.text for block in got.content if block.type == "text"] == ["And so"]


def test_anthropic_s_client_parses_structured_output() -> None:
    got = message(events(TextDelta('{"mood":'), TextDelta('"good"}')), output_format=Mood)

    assert got.parsed_output == Mood(mood="good")


@pytest.mark.parametrize("length", range(1, 5))
def test_anthropic_s_client_raises_for_an_interrupted_stream(length: int) -> None:
    provider_events = events(TextDelta("a"), TextDelta("b"), *CALLS)[:length]

    with pytest.raises(anthropic.APIStatusError, match="ended in the middle") as caught:
        message(provider_events, CUT)

    assert caught.value.type == "api_error"
    assert caught.value.error_code == "upstream_stream_interrupted"


# Passthrough


def passed(encoder: StreamEncoder, name: str) -> list[bytes]:
    """Return a recorded stream, passed through."""
    from_upstream = [frame for frame in recorded(name).split(b"\n\n") if frame]
    frames = [_frame(text) for text in from_upstream]
    bursts = [
        *(Burst((), (frame,)) for frame in frames[:-1]),
        Burst((AnswerFinished(FinishReason.STOP, USAGE),), frames[-1:]),
    ]
    return [encode_frames("stm_1", seq, encoder.encode(burst)) for seq, burst in enumerate(bursts, 1)]


def _frame(text: bytes) -> Frame:
    event, _, data = text.rpartition(b"data: ")
    return Frame(event.decode().removeprefix("event: ").strip(), data)


@pytest.mark.parametrize("name", ["openai/chat_text.sse", "azure/chat_text.sse"])
@pytest.mark.parametrize("include_usage", [True, False])
def test_openai_s_client_reads_a_passed_through_stream(name: str, include_usage: bool) -> None:
    client = openai_client(passed(OpenAIPassthroughEncoder(include_usage), name))

    got = list(client.chat.completions.create(model="m", messages=SAYS, stream=True))

    assert "".join(choice.delta.content or "" for chunk in got for choice in chunk.choices) == TEXT
    assert [chunk.usage.total_tokens for chunk in got if chunk.usage] == ([29] if include_usage else [])


def test_anthropic_s_client_reads_a_passed_through_stream() -> None:
    client = anthropic_client(passed(AnthropicPassthroughEncoder(), "anthropic/messages_tools.sse"))

    with client.messages.stream(model="m", max_tokens=9, messages=SAYS) as stream:
        got = stream.get_final_message()

    assert [block.type for block in got.content] == ["text", "tool_use", "tool_use"]
    assert got.stop_reason == "tool_use"


# Errors


@pytest.mark.parametrize(
    ("status", "openai_class", "anthropic_class", "anthropic_type"),
    [
        (400, openai.BadRequestError, anthropic.BadRequestError, "invalid_request_error"),
        (401, openai.AuthenticationError, anthropic.AuthenticationError, "authentication_error"),
        (402, openai.APIStatusError, anthropic.APIStatusError, "billing_error"),
        (403, openai.PermissionDeniedError, anthropic.PermissionDeniedError, "permission_error"),
        (404, openai.NotFoundError, anthropic.NotFoundError, "not_found_error"),
        (409, openai.ConflictError, anthropic.ConflictError, "conflict_error"),
        (413, openai.APIStatusError, anthropic.APIStatusError, "request_too_large"),
        (422, openai.UnprocessableEntityError, anthropic.UnprocessableEntityError, "invalid_request_error"),
        (429, openai.RateLimitError, anthropic.RateLimitError, "rate_limit_error"),
        (500, openai.InternalServerError, anthropic.InternalServerError, "api_error"),
        (502, openai.InternalServerError, anthropic.InternalServerError, "api_error"),
        (503, openai.InternalServerError, anthropic.InternalServerError, "overloaded_error"),
        (504, openai.InternalServerError, anthropic.InternalServerError, "timeout_error"),
        (529, openai.InternalServerError, anthropic.InternalServerError, "overloaded_error"),
    ],
)
def test_the_clients_raise_the_exception_of_each_status(
    status: int, openai_class: type[Exception], anthropic_class: type[Exception], anthropic_type: str
) -> None:
    fault = ErrorPayload(status, "a_type", "a_code", "In words.", "model")

    with pytest.raises(openai_class) as caught:
        openai_client(encode_openai_error(fault), status).chat.completions.create(model="m", messages=SAYS)
    error: Any = caught.value
    assert (error.type, error.code, error.param, error.body["message"]) == ("a_type", "a_code", "model", "In words.")

    with pytest.raises(anthropic_class) as caught:
        anthropic_client(encode_anthropic_error(fault, "req_1"), status).messages.create(
            model="m", max_tokens=9, messages=SAYS
        )
    error = caught.value
    assert (error.type, error.error_code, error.api_message) == (anthropic_type, "a_code", "In words.")
    assert error.body["request_id"] == "req_1"


# Lists, counts and vectors

LISTED = [ListedModel("fast", "nightdesk"), ListedModel("gpt-5", "openai", find_model("openai", "gpt-5"))]


def test_openai_s_client_lists_models() -> None:
    listed = list(openai_client(json.dumps(encode_openai_models(LISTED)).encode()).models.list())
    one = openai_client(json.dumps(encode_openai_model(LISTED[1])).encode()).models.retrieve("gpt-5")

    assert [(model.id, model.owned_by) for model in listed] == [("fast", "nightdesk"), ("gpt-5", "openai")]
    assert (one.id, one.shutdown_date) == ("gpt-5", "2026-12-11")


def test_anthropic_s_client_lists_models() -> None:
    body = json.dumps(encode_anthropic_models(LISTED, {}, today=date(2026, 11, 22))).encode()

    listed = list(anthropic_client(body).models.list())

    assert [(model.id, model.lifecycle) for model in listed] == [("fast", "active"), ("gpt-5", "deprecated")]
    assert listed[1].retires_at is not None
    assert listed[1].retires_at.date() == date(2026, 12, 11)


def test_anthropic_s_client_counts_tokens() -> None:
    request = anthropic_dialect.decode_count_tokens({"model": "m", "messages": SAYS})
    body = json.dumps(anthropic_dialect.encode_token_count(request)).encode()

    assert anthropic_client(body).messages.count_tokens(model="m", messages=SAYS).input_tokens == 9


@pytest.mark.parametrize("encoding", ["float", "base64", None])
def test_openai_s_client_reads_vectors_in_both_encodings(encoding: Any) -> None:
    vectors = Embeddings("m", ((0.5, -0.25), (1.0, 0.0)), Usage(8))
    # By default this client requests base64.
    body = json.dumps(openai_dialect.encode_embeddings(vectors, encoding or "base64")).encode()
    options = {"encoding_format": encoding} if encoding else {}

    got = openai_client(body).embeddings.create(model="m", input=["a", "b"], **options)

    if encoding != "base64":
        assert [list(row.embedding) for row in got.data] == [[0.5, -0.25], [1.0, 0.0]]
    assert got.usage.prompt_tokens == 8
