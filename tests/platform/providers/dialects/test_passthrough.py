"""Passthrough of a caller's body to a provider of its dialect: complete, except for what must be adapted."""

import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from providers.catalogue import ModelInfo, find_model
from providers.dialects import anthropic, anthropic_upstream, openai, openai_upstream
from providers.dialects.openai_upstream import COMPATIBLE_FLAVOR, OPENAI_FLAVOR, OpenAIFlavor
from providers.errors import UnsupportedFeature
from providers.types import ChatRequest, JSONObject

HELLO: JSONObject = {"role": "user", "content": "Hello"}

#: Nested, unknown, and known by one vendor only.
OPENAI_BODY: JSONObject = {
    "model": "desk",
    "messages": [
        {"role": "developer", "content": "Be brief.", "name": "boss", "x_note": {"a": [1, 2.0, None]}},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look", "x_weight": 0.5},
                {"type": "file", "file": {"file_id": "file-1"}},
                {"type": "hologram", "data": "…"},
            ],
        },
        {"role": "assistant", "content": "Hm.", "reasoning_content": "Let me see.", "audio": {"id": "a"}},
        HELLO,
    ],
    "n": 2,
    "logprobs": True,
    "top_logprobs": 3,
    "prediction": {"type": "content", "content": "x"},
    "service_tier": "flex",
    "metadata": {"k": "v"},
    "store": True,
    "user": "u1",
    "safety_identifier": "s1",
    "stop": "END",
    "seed": 7,
    "tools": [
        {"type": "function", "function": {"name": "f", "x_cost": 1}, "x_cache": True},
        {"type": "custom", "custom": {"name": "c"}},
    ],
    "temperature": 0.5,
    "vendor_setting": {"deep": [{"er": True}]},
}
ANTHROPIC_BODY: JSONObject = {
    "model": "desk",
    "max_tokens": 100,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
    "messages": [
        {"role": "user", "content": [{"type": "document", "source": {"type": "text", "data": "x"}, "title": "T"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "abc"},
                {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"q": "x"}},
                {"type": "text", "text": "Hi", "citations": [{"cited_text": "x"}]},
            ],
        },
        HELLO,
    ],
    "top_k": 5,
    "temperature": 0.5,
    "thinking": {"type": "enabled", "budget_tokens": 1024, "display": "omitted"},
    "metadata": {"user_id": "u1"},
    "tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 3}],
    "mcp_servers": [{"type": "url", "url": "https://x.test", "name": "x"}],
    "beta_setting": {"deep": [{"er": True}]},
}


def sent_to_openai(body: JSONObject, **kwargs: Any) -> JSONObject:
    return _decoded(openai_upstream.to_payload(_upstream(openai.decode_chat(body)), **kwargs))


def sent_to_anthropic(body: JSONObject, **kwargs: Any) -> JSONObject:
    return _decoded(anthropic_upstream.to_payload(_upstream(anthropic.decode_chat(body)), **kwargs))


def _upstream(request: ChatRequest) -> ChatRequest:
    return replace(request, model="upstream")


def _decoded(payload: JSONObject) -> JSONObject:
    decoded: JSONObject = json.loads(msgspec.json.encode(payload))
    return decoded


def model(vendor: str, name: str) -> ModelInfo:
    found = find_model(vendor, name)
    assert found is not None
    return found


def test_openai_gets_the_complete_body() -> None:
    assert sent_to_openai(OPENAI_BODY) == {**OPENAI_BODY, "model": "upstream"}


def test_anthropic_gets_the_complete_body() -> None:
    body = {**ANTHROPIC_BODY, "max_tokens": 2000}

    assert sent_to_anthropic(body) == {**body, "model": "upstream"}


def test_numbers_are_passed_through_verbatim() -> None:
    messages = b'[{"role": "user", "content": "x"}]'
    body = b'{"model": "m", "messages": ' + messages + b', "big": 123456789012345678901234567890, "f": 1.00}'

    payload = msgspec.json.encode(openai_upstream.to_payload(openai.decode_chat(body)))

    assert b'"big":123456789012345678901234567890' in payload
    assert b'"f":1.00' in payload


@pytest.mark.parametrize("stream", [False, True])
def test_stream_is_set_by_the_desk_not_by_the_body(stream: bool) -> None:
    delivery = {"stream": True, "stream_options": {"include_usage": False, "include_obfuscation": False}}
    body = {"model": "m", "messages": [HELLO], **delivery}

    payload = sent_to_openai(body, stream=stream)

    expected = {"stream": True, "stream_options": {"include_obfuscation": False, "include_usage": True}}
    assert payload == {"model": "upstream", "messages": [HELLO], **(expected if stream else {})}
    assert ("stream" in sent_to_anthropic({**body, "max_tokens": 5, "stream_options": None}, stream=stream)) is stream


def test_include_usage_is_not_sent_to_a_server_without_stream_usage() -> None:
    payload = sent_to_openai({"model": "m", "messages": [HELLO]}, stream=True, flavor=OpenAIFlavor(stream_usage=False))

    assert payload == {"model": "upstream", "messages": [HELLO], "stream": True}


@pytest.mark.parametrize(
    ("sent", "flavor", "name", "arrives"),
    [
        ("max_tokens", OPENAI_FLAVOR, "gpt-4o", "max_completion_tokens"),
        ("max_completion_tokens", COMPATIBLE_FLAVOR, None, "max_tokens"),
        ("max_tokens", COMPATIBLE_FLAVOR, "o3", "max_completion_tokens"),
    ],
)
def test_max_tokens_has_the_field_name_of_the_server(
    sent: str, flavor: OpenAIFlavor, name: str | None, arrives: str
) -> None:
    known = model("openai", name) if name else None

    payload = sent_to_openai({"model": "m", "messages": [HELLO], sent: 9}, flavor=flavor, model=known)

    assert payload == {"model": "upstream", "messages": [HELLO], arrives: 9}


def test_the_output_limit_of_a_grant_is_sent() -> None:
    request = openai.decode_chat({"model": "m", "messages": [HELLO]})
    message = anthropic.decode_chat({"model": "m", "messages": [HELLO], "max_tokens": 500})

    assert openai_upstream.to_payload(replace(request, max_tokens=20))["max_completion_tokens"] == 20
    assert anthropic_upstream.to_payload(replace(message, max_tokens=20))["max_tokens"] == 20


def test_settings_that_an_openai_model_rejects_are_adapted() -> None:
    body = {
        "model": "m",
        "messages": [HELLO],
        "temperature": 0.5,
        "presence_penalty": 1,
        "reasoning_effort": "max",
        "verbosity": "low",
        "max_tokens": 10**6,
        "x": 1,
    }
    gpt_5, o3 = model("openai", "gpt-5"), model("openai", "o3")

    assert sent_to_openai(body, model=gpt_5) == {
        "model": "upstream",
        "messages": [HELLO],
        "reasoning_effort": "high",
        "verbosity": "low",
        "max_completion_tokens": gpt_5.max_output,
        "x": 1,
    }
    assert "verbosity" not in sent_to_openai(body, model=o3)
    assert "reasoning_effort" not in sent_to_openai(body, model=model("openai", "gpt-4o"))


def test_the_developer_role_becomes_system_for_servers_without_it() -> None:
    payload = sent_to_openai(
        {"model": "m", "messages": [{"role": "developer", "content": "x", "y": 1}, HELLO]}, flavor=COMPATIBLE_FLAVOR
    )

    assert payload["messages"] == [{"role": "system", "content": "x", "y": 1}, HELLO]


@pytest.mark.parametrize(
    ("name", "fields", "arrives"),
    [
        # A thinking budget becomes an effort for a model without budgets, and vice versa.
        (
            "claude-sonnet-5-5",
            {"thinking": {"type": "enabled", "budget_tokens": 8000}, "temperature": 1, "top_k": 3},
            {"output_config": {"effort": "medium"}},
        ),
        (
            "claude-sonnet-4-5",
            {"output_config": {"effort": "high", "format": {"type": "json_schema", "schema": {}}}},
            {
                "thinking": {"type": "enabled", "budget_tokens": 9999},
                "output_config": {"format": {"type": "json_schema", "schema": {}}},
            },
        ),
        # A budget must be below max_tokens, which the grant may have lowered.
        (
            "claude-sonnet-4-5",
            {"thinking": {"type": "enabled", "budget_tokens": 20_000}},
            {"thinking": {"type": "enabled", "budget_tokens": 9999}},
        ),
        ("claude-opus-5-5", {"thinking": {"type": "disabled"}}, {"output_config": {"effort": "low"}}),
        ("claude-sonnet-4-5", {"thinking": {"type": "adaptive"}}, {}),
        # Accepted settings are sent unchanged.
        (
            "claude-sonnet-4-5",
            {"thinking": {"type": "enabled", "budget_tokens": 2000, "display": "omitted"}, "top_k": 3},
            {"thinking": {"type": "enabled", "budget_tokens": 2000, "display": "omitted"}, "top_k": 3},
        ),
        (
            "claude-sonnet-5-5",
            {"thinking": {"type": "adaptive", "display": "omitted"}, "output_config": {"effort": "max", "x": 1}},
            {"thinking": {"type": "adaptive", "display": "omitted"}, "output_config": {"effort": "max", "x": 1}},
        ),
    ],
)
def test_settings_that_an_anthropic_model_rejects_are_adapted(
    name: str, fields: JSONObject, arrives: JSONObject
) -> None:
    body = {"model": "m", "messages": [HELLO], "max_tokens": 10_000}

    payload = sent_to_anthropic({**body, **fields}, model=model("anthropic", name))

    assert payload == {**body, "model": "upstream", **arrives}


def test_a_request_untranslatable_to_a_dialect_is_unsupported() -> None:
    with pytest.raises(UnsupportedFeature, match="'n' is not supported"):
        anthropic_upstream.to_payload(openai.decode_chat({"model": "m", "messages": [HELLO], "n": 2}))
    with pytest.raises(UnsupportedFeature, match="top_k"):
        openai_upstream.to_payload(
            anthropic.decode_chat({"model": "m", "messages": [HELLO], "max_tokens": 5, "top_k": 5})
        )


def test_hints_are_omitted_in_another_dialect() -> None:
    hints = {"metadata": {"k": "v"}, "store": True, "service_tier": "flex", "prompt_cache_key": "k"}

    payload = anthropic_upstream.to_payload(openai.decode_chat({"model": "m", "messages": [HELLO], **hints}))

    assert payload == {"model": "m", "max_tokens": anthropic_upstream.DEFAULT_MAX_TOKENS, "messages": [HELLO]}


def test_with_turn_adds_an_assistant_turn_to_the_original_body() -> None:
    request = openai.decode_chat(b'{"model": "m", "messages": [ {"role": "user", "content": "x", "y": 1} ] }')
    assert request.original is not None

    payload = openai_upstream.to_payload(replace(request, original=request.original.with_turn('So "far"')))

    assert _decoded(payload)["messages"] == [
        {"role": "user", "content": "x", "y": 1},
        {"role": "assistant", "content": 'So "far"'},
    ]
