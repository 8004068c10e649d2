"""Anthropic's dialect, client side."""

import json
from dataclasses import replace
from typing import Any

import pytest

from providers.catalogue import ModelInfo, find_model
from providers.dialects.anthropic_upstream import AnthropicStreamDecoder, to_completion, to_payload
from providers.errors import BadResponse, ProviderOverloaded, TransientFailure, UnsupportedFeature
from providers.sse import Frame, SSEDecoder
from providers.types import (
    AnswerFinished,
    AnswerStarted,
    ChatMessage,
    ChatRequest,
    FinishReason,
    ImagePart,
    JSONObject,
    OpaqueDelta,
    OutputFormat,
    ReasoningDelta,
    Role,
    StreamEvent,
    TextDelta,
    TextPart,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolCallStarted,
    ToolChoice,
    Usage,
)
from tests.platform.providers.vendors import recorded

HELLO = ChatMessage(Role.USER, (TextPart("Hello"),))
REQUEST = ChatRequest("claude-sonnet-4-6", (HELLO,), max_tokens=100)
TOOL = Tool("get_weather", "The weather", {"type": "object"})
CALLING = ChatMessage(
    Role.ASSISTANT,
    (TextPart("Let me look."),),
    tool_calls=(ToolCall("toolu_a", "get_weather", '{"city":"Oslo"}'), ToolCall("toolu_b", "get_time", "")),
)
RESULTS = (
    ChatMessage(Role.TOOL, (TextPart("rain"),), tool_call_id="toolu_a"),
    ChatMessage(Role.TOOL, (TextPart("no clock"),), tool_call_id="toolu_b", is_error=True),
)


def model(name: str) -> ModelInfo:
    found = find_model("anthropic", name)
    assert found is not None
    return found


def payload_for(name: str, **changes: Any) -> JSONObject:
    return to_payload(replace(REQUEST, model=name, **changes), model=model(name))


def test_a_minimal_request_sends_no_other_field() -> None:
    assert to_payload(REQUEST) == {
        "model": "claude-sonnet-4-6",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "Hello"}],
    }


def test_a_request_with_every_field_is_encoded_as_expected() -> None:
    request = ChatRequest(
        model="claude-sonnet-4-6",
        messages=(
            ChatMessage(Role.SYSTEM, (TextPart("Be brief."),)),
            ChatMessage(
                Role.USER,
                (
                    TextPart("Look"),
                    TextPart(""),
                    ImagePart(url="https://x.test/a.png", detail="low"),
                    ImagePart(media_type="image/png", data="iVBORw=="),
                ),
            ),
            ChatMessage(Role.SYSTEM, (TextPart("And kind."),)),
            CALLING,
            *RESULTS,
            ChatMessage(Role.USER, (TextPart("And now?"),)),
        ),
        max_tokens=9,
        temperature=1.7,
        top_p=0.9,
        presence_penalty=1.0,
        stop=("END",),
        tools=(replace(TOOL, strict=True),),
        tool_choice=ToolChoice("named", "get_weather"),
        parallel_tool_calls=False,
        output_format=OutputFormat("json_schema", "mood", schema={"type": "object"}, strict=True),
        reasoning_effort="xhigh",
        seed=7,
        user="u1",
    )

    assert to_payload(request, stream=True, model=model("claude-sonnet-4-6")) == {
        "model": "claude-sonnet-4-6",
        "max_tokens": 9,
        "system": "Be brief.\n\nAnd kind.",
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look"},
                    {"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}},
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw=="},
                    },
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "Let me look."},
                    {"type": "tool_use", "id": "toolu_a", "name": "get_weather", "input": {"city": "Oslo"}},
                    {"type": "tool_use", "id": "toolu_b", "name": "get_time", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "toolu_a", "content": "rain"},
                    {"type": "tool_result", "tool_use_id": "toolu_b", "content": "no clock", "is_error": True},
                    {"type": "text", "text": "And now?"},
                ],
            },
        ],
        "stop_sequences": ["END"],
        "temperature": 1.0,
        "tools": [
            {
                "name": "get_weather",
                "description": "The weather",
                "input_schema": {"type": "object"},
                "strict": True,
            }
        ],
        "tool_choice": {"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True},
        "output_config": {"effort": "high", "format": {"type": "json_schema", "schema": {"type": "object"}}},
        "metadata": {"user_id": "u1"},
        "stream": True,
    }


@pytest.mark.parametrize(
    ("messages", "roles"),
    [
        ((HELLO, CALLING, *RESULTS), ["user", "assistant", "user"]),
        ((HELLO, CALLING, *RESULTS, HELLO, HELLO), ["user", "assistant", "user", "user"]),
        ((HELLO, CALLING, *RESULTS, CALLING, *RESULTS), ["user", "assistant", "user", "assistant", "user"]),
        ((HELLO, ChatMessage(Role.ASSISTANT, (TextPart(""), TextPart("")))), ["user"]),
    ],
)
def test_tool_results_become_one_turn(messages: tuple[ChatMessage, ...], roles: list[str]) -> None:
    payload = to_payload(replace(REQUEST, messages=messages))

    assert [message["role"] for message in payload["messages"]] == roles


def test_invalid_tool_arguments_of_an_earlier_turn_are_wrapped() -> None:
    calling = ChatMessage(Role.ASSISTANT, tool_calls=(ToolCall("toolu_a", "f", '{"city": "Os'),))

    payload = to_payload(replace(REQUEST, messages=(HELLO, calling, RESULTS[0])))

    assert payload["messages"][1]["content"][0]["input"] == {"INVALID_JSON": '{"city": "Os'}


@pytest.mark.parametrize(
    ("name", "requested", "sent"),
    [
        ("claude-sonnet-5-5", None, 128_000),
        ("claude-haiku-4-5", None, 64_000),
        ("claude-haiku-4-5-20251001", None, 64_000),
        ("claude-haiku-4-5", 500_000, 64_000),
        ("claude-haiku-4-5", 10, 10),
        ("claude-of-tomorrow", None, 4096),
        ("claude-of-tomorrow", 500_000, 500_000),
    ],
)
def test_max_tokens_is_always_sent_and_never_above_the_model_s(name: str, requested: int | None, sent: int) -> None:
    payload = to_payload(replace(REQUEST, model=name, max_tokens=requested), model=find_model("anthropic", name))

    assert payload["max_tokens"] == sent


@pytest.mark.parametrize(
    ("name", "changes", "sent"),
    [
        ("claude-haiku-4-5", {"temperature": 0.3}, {"temperature": 0.3}),
        ("claude-haiku-4-5", {"temperature": 2.0, "top_p": 0.5}, {"temperature": 1.0}),
        ("claude-haiku-4-5", {"top_p": 0.5}, {"top_p": 0.5}),
        ("claude-sonnet-5", {"temperature": 0.3, "top_p": 0.5}, {}),
        ("claude-opus-5-5", {"temperature": 1.0}, {}),
        # Thinking accepts only the default temperature.
        ("claude-haiku-4-5", {"temperature": 0.3, "reasoning_effort": "low", "max_tokens": 9000}, {}),
    ],
)
def test_sampling_settings_are_sent_only_to_models_that_accept_them(
    name: str, changes: dict[str, Any], sent: JSONObject
) -> None:
    payload = payload_for(name, **changes)

    assert {key: payload[key] for key in ("temperature", "top_p") if key in payload} == sent


@pytest.mark.parametrize(
    ("choice", "parallel", "sent"),
    [
        (None, None, None),
        (None, True, None),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        (ToolChoice("auto"), None, {"type": "auto"}),
        (ToolChoice("none"), False, {"type": "none"}),
        (ToolChoice("required"), None, {"type": "any"}),
        (ToolChoice("named", "get_weather"), None, {"type": "tool", "name": "get_weather"}),
    ],
)
def test_tool_choice_is_translated(choice: ToolChoice | None, parallel: bool | None, sent: Any) -> None:
    payload = to_payload(replace(REQUEST, tools=(TOOL,), tool_choice=choice, parallel_tool_calls=parallel))

    assert payload.get("tool_choice") == sent


@pytest.mark.parametrize("choice", [ToolChoice("required"), ToolChoice("named", "get_weather")])
@pytest.mark.parametrize("name", ["claude-sonnet-5-5", "claude-opus-5-5"])
def test_forced_tools_are_unsupported_by_models_that_reject_them(name: str, choice: ToolChoice) -> None:
    with pytest.raises(UnsupportedFeature, match="cannot be forced"):
        payload_for(name, tools=(TOOL,), tool_choice=choice)


@pytest.mark.parametrize(
    "changes",
    [
        {"output_format": OutputFormat("json_object")},
        {"output_format": OutputFormat("json_schema", "x")},
        {"stop": ("\n\n",)},
    ],
)
def test_settings_without_a_counterpart_are_unsupported(changes: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedFeature):
        to_payload(replace(REQUEST, **changes))


@pytest.mark.parametrize(
    ("name", "effort", "sent"),
    [
        ("claude-sonnet-5-5", "max", {"output_config": {"effort": "max"}}),
        ("claude-sonnet-5-5", "minimal", {"output_config": {"effort": "low"}}),
        ("claude-sonnet-5-5", "none", {"thinking": {"type": "disabled"}}),
        # These models cannot disable thinking, only shorten it.
        ("claude-opus-5-5", "none", {"output_config": {"effort": "low"}}),
        ("claude-fable-5-1", "none", {"output_config": {"effort": "low"}}),
        ("claude-sonnet-4-6", "none", {}),
        ("claude-haiku-4-5", "high", {"thinking": {"type": "enabled", "budget_tokens": 16384}}),
        ("claude-haiku-4-5", "none", {}),
        ("claude-sonnet-5-5", None, {}),
    ],
)
def test_reasoning_effort_is_sent_as_the_model_accepts_it(name: str, effort: str | None, sent: JSONObject) -> None:
    payload = payload_for(name, reasoning_effort=effort, max_tokens=20_000)

    assert {key: payload[key] for key in ("thinking", "output_config") if key in payload} == sent


@pytest.mark.parametrize(
    "changes",
    [
        {"max_tokens": 1024},
        {"max_tokens": 20_000, "tools": (TOOL,), "tool_choice": ToolChoice("required")},
        {"max_tokens": 20_000, "messages": (HELLO, CALLING, *RESULTS)},
    ],
    ids=["no room", "forced tool", "earlier calls"],
)
def test_a_thinking_budget_is_omitted_if_it_would_be_rejected(changes: dict[str, Any]) -> None:
    assert "thinking" not in payload_for("claude-haiku-4-5", reasoning_effort="high", **changes)


# Answers

BODY = json.loads(recorded("anthropic/messages_text.json"))


def completion_of(**fields: Any) -> Any:
    return to_completion(json.dumps({**BODY, **fields}).encode())


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("end_turn", FinishReason.STOP),
        ("stop_sequence", FinishReason.STOP),
        ("pause_turn", FinishReason.STOP),
        ("max_tokens", FinishReason.LENGTH),
        ("model_context_window_exceeded", FinishReason.LENGTH),
        ("tool_use", FinishReason.TOOL_CALLS),
        ("refusal", FinishReason.CONTENT_FILTER),
    ],
)
def test_stop_reasons_map_to_finish_reasons(word: str, reason: FinishReason) -> None:
    assert completion_of(stop_reason=word).finish_reason is reason


def test_usage_includes_cached_and_cache_written_tokens() -> None:
    usage = {
        "input_tokens": 12,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 30,
        "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
        "output_tokens": 6,
        "output_tokens_details": {"thinking_tokens": 4},
    }

    assert completion_of(usage=usage).usage == Usage(
        input_tokens=142,
        output_tokens=6,
        cached_input_tokens=100,
        cache_write_tokens=30,
        cache_write_1h_tokens=20,
        reasoning_tokens=4,
    )


def test_blocks_of_other_types_are_ignored() -> None:
    content = [
        {"type": "thinking", "thinking": "Hm.", "signature": "x"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
        {"type": "text", "text": "a", "citations": None},
        {"type": "text", "text": "b"},
    ]

    completion = completion_of(content=content)

    assert (completion.text, completion.reasoning, completion.tool_calls) == ("ab", "Hm.", ())


@pytest.mark.parametrize("fields", [{"stop_reason": None}, {"stop_reason": "tired"}, {"content": "x"}, {"usage": 3}])
def test_a_body_without_an_answer_is_a_bad_response(fields: JSONObject) -> None:
    with pytest.raises(BadResponse):
        completion_of(**fields)


# Streams


def read(stream: bytes) -> list[StreamEvent]:
    decoder = AnthropicStreamDecoder()
    events = [event for frame in SSEDecoder().feed(stream) for event in decoder.decode(frame)]
    return [*events, decoder.finished] if decoder.finished else events


def frame(**fields: Any) -> bytes:
    return f"event: {fields['type']}\ndata: {json.dumps(fields)}\n\n".encode()


START = frame(type="message_start", message={"id": "i", "model": "m", "usage": {"input_tokens": 5}})
STOP = frame(type="message_stop")


def test_a_recorded_text_stream_is_decoded() -> None:
    assert read(recorded("anthropic/messages_text.sse")) == [
        AnswerStarted("msg_01A", "claude-sonnet-5-5"),
        TextDelta("Grüße"),
        TextDelta(" aus Oslo 🌧"),
        AnswerFinished(
            FinishReason.STOP,
            Usage(19, 10, cached_input_tokens=8, cache_write_tokens=3, cache_write_1h_tokens=3, reasoning_tokens=2),
        ),
    ]


def test_tool_calls_are_numbered_without_text_blocks() -> None:
    assert read(recorded("anthropic/messages_tools.sse")) == [
        AnswerStarted("msg_01A", "claude-sonnet-5-5"),
        TextDelta("Let me look."),
        ToolCallStarted(0, "toolu_a", "get_weather"),
        ToolCallDelta(0, '{"ci'),
        ToolCallDelta(0, 'ty":"Oslo"}'),
        ToolCallStarted(1, "toolu_b", "get_time"),
        ToolCallDelta(1, "{}"),
        AnswerFinished(FinishReason.TOOL_CALLS, Usage(71, 25)),
    ]


def test_thinking_is_decoded_and_unknown_events_are_ignored() -> None:
    assert read(recorded("anthropic/messages_thinking.sse")) == [
        AnswerStarted("msg_01A", "claude-sonnet-5-5"),
        ReasoningDelta("Rain is likely."),
        TextDelta("Yes."),
        AnswerFinished(FinishReason.STOP, Usage(12, 9)),
    ]


def test_an_error_event_is_raised() -> None:
    with pytest.raises(ProviderOverloaded, match="Overloaded"):
        read(recorded("anthropic/messages_error.sse"))


def test_an_error_event_without_a_message_is_transient() -> None:
    with pytest.raises(TransientFailure):
        read(frame(type="error"))


def test_usage_is_cumulative_and_the_last_report_counts() -> None:
    def delta(**usage: int | None) -> bytes:
        return frame(type="message_delta", delta={"stop_reason": "end_turn"}, usage=usage)

    events = read(START + delta(output_tokens=3) + delta(input_tokens=7, output_tokens=None) + STOP)

    assert events[-1] == AnswerFinished(FinishReason.STOP, Usage(7, 3))


def test_the_input_of_a_server_tool_is_an_opaque_delta() -> None:
    stream = (
        START
        + frame(type="content_block_start", index=0, content_block={"type": "server_tool_use", "id": "s", "name": "w"})
        + frame(type="content_block_delta", index=0, delta={"type": "input_json_delta", "partial_json": "{}"})
        + frame(type="content_block_stop", index=0)
    )

    assert read(stream) == [AnswerStarted("i", "m"), OpaqueDelta(""), OpaqueDelta("{}")]


def test_a_tool_input_sent_with_the_block_start_is_decoded() -> None:
    block = {"type": "tool_use", "id": "t", "name": "f", "input": {"x": 1}}
    stream = (
        START
        + frame(type="content_block_start", index=0, content_block=block)
        + frame(type="content_block_stop", index=0)
    )

    assert read(stream)[1:] == [ToolCallStarted(0, "t", "f"), ToolCallDelta(0, '{"x":1}')]


@pytest.mark.parametrize(
    "stream",
    [START + STOP, START + frame(type="message_delta", delta={"stop_reason": "end_turn"}, usage=None)],
    ids=["stop without reason", "reason without stop"],
)
def test_only_message_stop_after_a_stop_reason_is_an_end(stream: bytes) -> None:
    assert not any(isinstance(event, AnswerFinished) for event in read(stream))


def test_a_trailing_message_stop_may_lack_its_blank_line() -> None:
    decoder = AnthropicStreamDecoder()
    for each in SSEDecoder().feed(START + frame(type="message_delta", delta={"stop_reason": "end_turn"})):
        list(decoder.decode(each))

    decoder.decode_trailing(Frame("content_block_delta", b'{"type": "content_blo'))
    assert decoder.finished is None
    decoder.decode_trailing(Frame("message_stop", b'{"type": "message_stop"}'))
    assert decoder.finished == AnswerFinished(FinishReason.STOP, Usage(5, 0))
