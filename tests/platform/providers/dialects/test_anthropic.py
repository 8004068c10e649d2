"""Anthropic's dialect, server side."""

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from providers.dialects import anthropic
from providers.invalid_request import InvalidRequest
from providers.token_estimation import estimate_input_tokens
from providers.types import (
    ChatMessage,
    ChatRequest,
    Completion,
    FinishReason,
    ImagePart,
    JSONObject,
    OutputFormat,
    Role,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
    Usage,
)
from tests.platform.providers.vendors import recorded

HELLO = {"role": "user", "content": "Hello"}
PNG = base64.b64encode(b"\x89PNG").decode()
TOOL = {"name": "get_weather", "input_schema": {"type": "object"}}
CALLING = {
    "role": "assistant",
    "content": [{"type": "tool_use", "id": "toolu_a", "name": "get_weather", "input": {"city": "Oslo"}}],
}


def body(**fields: Any) -> JSONObject:
    return {"model": "claude-sonnet-5-5", "max_tokens": 100, "messages": [HELLO], **fields}


def refusal_of(data: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        anthropic.decode_chat(data)
    return caught.value


def test_a_minimal_request_sets_no_other_field() -> None:
    assert anthropic.decode_chat(body()) == ChatRequest(
        "claude-sonnet-5-5", (ChatMessage(Role.USER, (TextPart("Hello"),)),), max_tokens=100
    )


def test_every_supported_field_is_decoded() -> None:
    request = anthropic.decode_chat(
        {
            "model": "claude-sonnet-4-5",
            "max_tokens": 100,
            "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "Look"},
                        {"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
                    ],
                },
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "Hm.", "signature": "abc"},
                        {"type": "text", "text": "Let me look."},
                        *CALLING["content"],
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "toolu_a", "content": "no luck", "is_error": True},
                        {"type": "text", "text": "Try again"},
                    ],
                },
            ],
            "stop_sequences": ["END"],
            "temperature": 0.5,
            "top_p": 0.9,
            "tools": [{**TOOL, "type": "custom", "description": "The weather", "strict": True}],
            "tool_choice": {"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True},
            "output_config": {"effort": "high", "format": {"type": "json_schema", "schema": {"type": "object"}}},
            "metadata": {"user_id": "u1"},
            "service_tier": "auto",
        }
    )

    assert request == ChatRequest(
        model="claude-sonnet-4-5",
        messages=(
            ChatMessage(Role.SYSTEM, (TextPart("Be brief."),)),
            ChatMessage(
                Role.USER,
                (
                    TextPart("Look"),
                    ImagePart(url="https://x.test/a.png"),
                    ImagePart(media_type="image/png", data=PNG),
                ),
            ),
            ChatMessage(
                Role.ASSISTANT,
                (TextPart("Let me look."),),
                tool_calls=(ToolCall("toolu_a", "get_weather", '{"city":"Oslo"}'),),
            ),
            ChatMessage(Role.TOOL, (TextPart("no luck"),), tool_call_id="toolu_a", is_error=True),
            ChatMessage(Role.USER, (TextPart("Try again"),)),
        ),
        max_tokens=100,
        temperature=0.5,
        top_p=0.9,
        stop=("END",),
        tools=(Tool("get_weather", "The weather", {"type": "object"}, True),),
        tool_choice=ToolChoice("named", "get_weather"),
        parallel_tool_calls=False,
        output_format=OutputFormat("json_schema", schema={"type": "object"}, strict=True),
        reasoning_effort="high",
        user="u1",
    )


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        ({"tool_choice": {"type": "any"}, "tools": [TOOL]}, "tool_choice", ToolChoice("required")),
        ({"tool_choice": {"type": "auto"}}, "tool_choice", ToolChoice("auto")),
        ({"tool_choice": {"type": "none"}}, "tool_choice", ToolChoice("none")),
        ({"thinking": {"type": "disabled"}}, "reasoning_effort", "none"),
        ({"thinking": {"type": "adaptive"}}, "reasoning_effort", None),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "reasoning_effort", "low"),
        ({"thinking": {"type": "enabled", "budget_tokens": 8000}}, "reasoning_effort", "medium"),
        ({"thinking": {"type": "enabled", "budget_tokens": 50000}}, "reasoning_effort", "high"),
    ],
)
def test_each_field_is_decoded(fields: JSONObject, name: str, value: object) -> None:
    assert getattr(anthropic.decode_chat(body(**fields)), name) == value


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": []}]}, "messages.0.content"),
        ({"temperature": 1.5}, "temperature"),
        ({"stop_sequences": [""]}, "stop_sequences.0"),
        ({"tools": [{"name": "x"}]}, "tools.0.input_schema"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tool_choice": {"type": "tool", "name": "other"}, "tools": [TOOL]}, "tool_choice"),
        ({"thinking": {"type": "enabled", "budget_tokens": 5}}, "thinking.budget_tokens"),
        ({"messages": [CALLING, HELLO]}, "messages"),
        ({"messages": [CALLING]}, "messages"),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x"}]}]},
            "messages",
        ),
        (
            {
                "messages": [
                    CALLING,
                    {
                        "role": "user",
                        "content": [{"type": "text", "text": "x"}, {"type": "tool_result", "tool_use_id": "toolu_a"}],
                    },
                ]
            },
            "messages.1.content",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "??"}}
                        ],
                    }
                ]
            },
            "messages.0.content.0.source.data",
        ),
        ({"messages": [{"role": "user", "content": "a\0b"}]}, "messages.0.content"),
        ({"tools": [{"input_schema": {}}]}, "tools.0.name"),
    ],
)
def test_an_invalid_field_is_rejected_by_name(fields: JSONObject, param: str) -> None:
    assert refusal_of(body(**fields)).param == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"top_k": 5}, "top_k"),
        ({"speed": "fast"}, "speed"),
        ({"inference_geo": "us"}, "inference_geo"),
        ({"container": "c"}, "container"),
        ({"mcp_servers": [{}]}, "mcp_servers"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type"),
        ({"messages": [{"role": "user", "content": [{"type": "document", "source": {}}]}]}, "messages.0.content.0"),
        ({"messages": [{"role": "assistant", "content": [{"type": "document"}]}]}, "messages.0.content.0"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "file"}}]}]},
            "messages.0.content.0.source",
        ),
        ({"messages": [{"role": "assistant", "content": [{"type": "hologram"}]}]}, "messages.0.content.0"),
        (
            {
                "messages": [
                    CALLING,
                    {
                        "role": "user",
                        "content": [
                            {"type": "tool_result", "tool_use_id": "toolu_a", "content": [{"type": "hologram"}]}
                        ],
                    },
                ]
            },
            "messages.1.content.0.content.0",
        ),
        ({"tools": [{"type": "mcp_toolset", "mcp_server_name": "x"}]}, "tools.0.type"),
        ({"n": 1}, "n"),
    ],
)
def test_a_field_that_only_this_dialect_has_is_accepted_and_marked_untranslatable(
    fields: JSONObject, param: str
) -> None:
    request = anthropic.decode_chat(body(**fields))

    assert request.untranslatable is not None
    assert request.untranslatable.param == param


def test_an_unknown_field_is_untranslatable_with_anthropic_s_message() -> None:
    refusal = anthropic.decode_chat(body(foo=1)).untranslatable

    assert refusal is not None
    assert refusal.message == "foo: Extra inputs are not permitted"


@pytest.mark.parametrize(
    "content", [[{"type": "thinking", "thinking": "Hm.", "signature": "abc"}, {"type": "text", "text": "Hi"}], "Hi"]
)
def test_thinking_blocks_sent_back_are_translatable(content: Any) -> None:
    request = anthropic.decode_chat(body(messages=[HELLO, {"role": "assistant", "content": content}, HELLO]))

    assert request.untranslatable is None


def test_version_and_beta_headers_are_part_of_the_request() -> None:
    headers = {"anthropic-version": "2026-10-21", "anthropic-beta": "a,b", "authorization": "Bearer nd_secret"}

    assert anthropic.select_forwarded_headers(headers) == {"anthropic-version": "2026-10-21", "anthropic-beta": "a,b"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"model": "m", "messages": [HELLO]}, "max_tokens: Field required"),
        (body(temperature=9), "temperature: Expected `float` <= 1.0"),
        (b"{", "The request body is not valid JSON: Input data was truncated"),
    ],
)
def test_validation_errors_have_anthropic_s_messages(data: Any, message: str) -> None:
    assert refusal_of(data).message == message


def test_threads_are_rejected_with_the_code_that_the_sdk_falls_back_on() -> None:
    assert refusal_of(body(thread={"type": "create"})).code == "thread_unsupported_request"


@pytest.mark.parametrize("version", ["2023-06-01", "2026-10-21"])
def test_both_api_versions_are_accepted(version: str) -> None:
    assert anthropic.check_version(version) == version


@pytest.mark.parametrize("header", [None, "", "2024-01-01", "2026-10-21, 2023-06-01"])
def test_any_other_api_version_is_rejected(header: str | None) -> None:
    with pytest.raises(InvalidRequest, match="anthropic-version") as caught:
        anthropic.check_version(header)

    assert caught.value.param == "anthropic-version"


@pytest.mark.parametrize("field", ["temperature", "top_p", "top_k"])
def test_the_newer_version_rejects_sampling_settings(field: str) -> None:
    with pytest.raises(InvalidRequest, match="2026-10-21") as caught:
        anthropic.decode_chat(body(**{field: 1}), anthropic.STRICT_VERSION)

    assert caught.value.param == field


def test_both_versions_accept_all_other_fields() -> None:
    assert anthropic.decode_chat(body(), anthropic.STRICT_VERSION) == anthropic.decode_chat(
        body(), anthropic.CLASSIC_VERSION
    )


COUNTED = {
    "model": "claude-sonnet-5-5",
    "messages": [HELLO, CALLING, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_a"}]}],
    "system": "Be brief.",
    "tools": [TOOL],
    "tool_choice": {"type": "any"},
    "thinking": {"type": "enabled", "budget_tokens": 2000},
    "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}},
    "cache_control": {"type": "ephemeral"},
}


def test_count_tokens_counts_the_request_that_would_be_sent() -> None:
    request = anthropic.decode_count_tokens(COUNTED)

    assert replace(request, max_tokens=100) == anthropic.decode_chat({**COUNTED, "max_tokens": 100})
    assert anthropic.encode_token_count(request) == {"input_tokens": estimate_input_tokens(request)}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_tokens": 5}, "max_tokens: Extra inputs are not permitted"),
        ({"messages": [CALLING]}, "messages: `tool_use` ids were found"),
    ],
)
def test_count_tokens_rejects_an_invalid_request(fields: JSONObject, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        anthropic.decode_count_tokens({**COUNTED, **fields})


def test_a_tool_input_nested_too_deeply_is_rejected() -> None:
    value: JSONObject = {}
    for _ in range(100):
        value = {"a": [value]}
    calling = {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": value}]}

    assert refusal_of(body(messages=[calling])).param == "messages.0.content.0.input"


USAGE = Usage(19, 10, cached_input_tokens=8, cache_write_tokens=3, cache_write_1h_tokens=3, reasoning_tokens=2)


def test_an_answer_is_encoded_like_anthropic_s() -> None:
    completion = Completion("msg_01A", "claude-sonnet-5-5", "Grüße aus Oslo 🌧", FinishReason.STOP, USAGE)

    encoded = anthropic.encode_completion(completion)

    assert json.dumps(encoded) == json.dumps(json.loads(recorded("anthropic/messages_text.json")))


def test_tool_calls_become_blocks_after_the_text() -> None:
    calls = (ToolCall("toolu_a", "get_weather", '{"city":"Oslo"}'), ToolCall("toolu_b", "get_time", ""))
    completion = Completion(
        "msg_01A", "claude-sonnet-5-5", "Let me look.", FinishReason.TOOL_CALLS, Usage(71, 25), tool_calls=calls
    )

    assert anthropic.encode_completion(completion) == json.loads(recorded("anthropic/messages_tools.json"))


@pytest.mark.parametrize(
    ("completion", "stop_reason"),
    [
        (Completion("i", "m", "x", FinishReason.LENGTH, None), "max_tokens"),
        (Completion("i", "m", "", FinishReason.CONTENT_FILTER, None), "refusal"),
        (Completion("i", "m", "", FinishReason.STOP, None, refusal="No."), "refusal"),
        (Completion("i", "m", "", FinishReason.STOP, None, tool_calls=(ToolCall("a", "f", "{}"),)), "tool_use"),
    ],
)
def test_finish_reasons_map_to_anthropic_stop_reasons(completion: Completion, stop_reason: str) -> None:
    assert anthropic.encode_completion(completion)["stop_reason"] == stop_reason


def test_encoded_usage_never_counts_a_token_twice() -> None:
    usage = anthropic.encode_usage(Usage(100, 5, cached_input_tokens=60, cache_write_tokens=30))

    assert usage["input_tokens"] == 10
    assert usage["cache_creation"] == {"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 0}


@pytest.mark.parametrize("arguments", ['{"city": "Os', "[1]", "7", '"x"', "{" * 5000])
def test_tool_arguments_that_are_not_an_object_are_wrapped(arguments: str) -> None:
    assert anthropic.to_tool_input(arguments) == {"INVALID_JSON": arguments}
