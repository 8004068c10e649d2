"""OpenAI's dialect, server side."""

import base64
import json
import math
import struct
from typing import Any

import pytest

from providers.dialects import openai
from providers.invalid_request import InvalidRequest
from providers.token_estimation import TOKENS_PER_IMAGE, estimate_input_tokens
from providers.types import (
    ChatMessage,
    ChatRequest,
    Completion,
    EmbeddingRequest,
    Embeddings,
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
FUNCTION = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
CALLING = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "call_a", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}],
}


def body(**fields: Any) -> JSONObject:
    return {"model": "gpt-4o-mini", "messages": [HELLO], **fields}


def refusal_of(data: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        openai.decode_chat(data)
    return caught.value


def test_a_minimal_request_sets_no_other_field() -> None:
    assert openai.decode_chat(body()) == ChatRequest("gpt-4o-mini", (ChatMessage(Role.USER, (TextPart("Hello"),)),))


def test_bytes_and_dictionaries_decode_alike() -> None:
    assert openai.decode_chat(json.dumps(body(seed=3)).encode()) == openai.decode_chat(body(seed=3))


def test_every_supported_field_is_decoded() -> None:
    request = openai.decode_chat(
        {
            "model": "gpt-4o-mini",
            "messages": [
                {"role": "developer", "content": "Be brief."},
                {
                    "role": "user",
                    "name": "ada",
                    "content": [
                        {"type": "text", "text": "Look"},
                        {"type": "image_url", "image_url": {"url": "https://x.test/a.png", "detail": "low"}},
                        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
                    ],
                },
                CALLING,
                {"role": "tool", "tool_call_id": "call_a", "content": [{"type": "text", "text": "rain"}]},
                {"role": "assistant", "content": "Rain.", "annotations": [], "audio": None, "refusal": None},
                HELLO,
            ],
            "max_completion_tokens": 9,
            "temperature": 0.5,
            "top_p": 1,
            "presence_penalty": 0.1,
            "frequency_penalty": -2,
            "stop": ["a", "b"],
            "tools": [FUNCTION],
            "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
            "parallel_tool_calls": False,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "mood", "description": "A mood", "schema": {"type": "object"}, "strict": True},
            },
            "reasoning_effort": "low",
            "verbosity": "high",
            "seed": -1,
            "user": "u1",
        }
    )

    assert request == ChatRequest(
        model="gpt-4o-mini",
        messages=(
            ChatMessage(Role.SYSTEM, (TextPart("Be brief."),)),
            ChatMessage(
                Role.USER,
                (
                    TextPart("Look"),
                    ImagePart(url="https://x.test/a.png", detail="low"),
                    ImagePart(media_type="image/png", data=PNG),
                ),
            ),
            ChatMessage(Role.ASSISTANT, tool_calls=(ToolCall("call_a", "get_weather", "{}"),)),
            ChatMessage(Role.TOOL, (TextPart("rain"),), tool_call_id="call_a"),
            ChatMessage(Role.ASSISTANT, (TextPart("Rain."),)),
            ChatMessage(Role.USER, (TextPart("Hello"),)),
        ),
        max_tokens=9,
        temperature=0.5,
        top_p=1.0,
        presence_penalty=0.1,
        frequency_penalty=-2.0,
        stop=("a", "b"),
        tools=(Tool("get_weather", None, {"type": "object"}),),
        tool_choice=ToolChoice("named", "get_weather"),
        parallel_tool_calls=False,
        output_format=OutputFormat("json_schema", "mood", "A mood", {"type": "object"}, True),
        reasoning_effort="low",
        verbosity="high",
        seed=-1,
        user="u1",
    )


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        ({"max_tokens": 7}, "max_tokens", 7),
        ({"stop": "END"}, "stop", ("END",)),
        ({"stop": None}, "stop", ()),
        ({"stop": []}, "stop", ()),
        ({"tool_choice": "required", "tools": [FUNCTION]}, "tool_choice", ToolChoice("required")),
        ({"tool_choice": "auto"}, "tool_choice", ToolChoice("auto")),
        ({"response_format": {"type": "json_object"}}, "output_format", OutputFormat("json_object")),
        ({"response_format": {"type": "text"}}, "output_format", OutputFormat("text")),
        ({"safety_identifier": "s", "user": "u"}, "user", "s"),
        ({"temperature": None}, "temperature", None),
        ({"messages": [{"role": "assistant", "refusal": "No."}, HELLO]}, "stop", ()),
        (
            {"tools": [{"type": "function", "function": {"name": "now"}}]},
            "tools",
            (Tool("now", None, {"type": "object", "properties": {}}),),
        ),
    ],
)
def test_each_field_is_decoded(fields: JSONObject, name: str, value: object) -> None:
    assert getattr(openai.decode_chat(body(**fields)), name) == value


@pytest.mark.parametrize(
    "fields",
    [
        {"metadata": {"k": "v"}},
        {"store": True},
        {"service_tier": "flex"},
        {"prediction": {"type": "content", "content": "x"}},
        {"prompt_cache_key": "k"},
        {"prompt_cache_retention": "24h"},
        {"n": 1},
        {"logprobs": False},
        {"logit_bias": {}},
        {"modalities": ["text"]},
        {"audio": None},
        {"stream": True, "stream_options": {"include_usage": True}},
    ],
)
def test_fields_that_do_not_change_the_answer_are_accepted_without_effect(fields: JSONObject) -> None:
    assert openai.decode_chat(body(**fields)) == openai.decode_chat(body())


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": []}]}, "messages.0.content"),
        ({"messages": [HELLO, {"role": "user", "content": [{"type": "text"}]}]}, "messages.1.content.0.text"),
        ({"messages": [{"role": "assistant"}]}, "messages.0.content"),
        ({"messages": [{"role": "tool", "tool_call_id": "x", "content": "y"}]}, "messages.0.tool_call_id"),
        ({"messages": [CALLING, HELLO]}, "messages.1"),
        ({"messages": [CALLING]}, "messages.1"),
        ({"model": ""}, "model"),
        ({"model": None}, "model"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -5}, "max_tokens"),
        ({"max_tokens": 10**400}, "max_tokens"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_tokens"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"seed": 2**63}, "seed"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": [""]}, "stop.0"),
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"tools": [FUNCTION] * 129}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "other"}}, "tools": [FUNCTION]}, "tool_choice"),
        ({"metadata": {"k": 1}}, "metadata"),
        ({"metadata": {str(i): "v" for i in range(17)}}, "metadata"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///x"}}]}]},
            "messages.0.content.0.image_url.url",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,??"}}],
                    }
                ]
            },
            "messages.0.content.0.image_url.url",
        ),
        ({"messages": [{"role": "user", "content": "a\0b"}]}, "messages.0.content"),
        ({"user": "a\0"}, "user"),
    ],
)
def test_an_invalid_field_is_rejected_by_name(fields: JSONObject, param: str) -> None:
    assert refusal_of(body(**fields)).param == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logit_bias": {"50256": -100}}, "logit_bias"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "x", "format": "wav"}}, "audio"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"function_call": "auto"}, "function_call"),
        ({"tools": [{"type": "custom", "custom": {"name": "c"}}]}, "tools.0"),
        ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {}}}, "tool_choice"),
        ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages.0.content.0"),
        ({"messages": [{"role": "user", "content": [{"type": "file", "file": {}}]}]}, "messages.0.content.0"),
        ({"messages": [{"role": "assistant", "audio": {"id": "a"}}]}, "messages.0.audio"),
        ({"messages": [{"role": "user", "content": [{"type": "hologram", "x": 1}]}]}, "messages.0.content.0"),
        ({"messages": [{"role": "assistant", "function_call": {"name": "f"}}]}, "messages.0.function_call"),
        ({"messages": [{"role": "system", "content": [{"type": "hologram"}]}]}, "messages.0.content.0"),
        ({"temprature": 1}, "temprature"),
    ],
)
def test_a_field_that_only_this_dialect_has_is_accepted_and_marked_untranslatable(
    fields: JSONObject, param: str
) -> None:
    request = openai.decode_chat(body(**fields))

    assert request.untranslatable is not None
    assert request.untranslatable.param == param


def test_an_unknown_field_is_untranslatable_with_openai_s_message() -> None:
    refusal = openai.decode_chat(body(foo=1)).untranslatable

    assert refusal is not None
    assert (refusal.message, refusal.code) == ("Unrecognized request argument supplied: foo", "unknown_parameter")


def test_the_original_fields_are_kept_verbatim() -> None:
    sent = openai.decode_chat(
        b'{"model": "m", "messages": [{"role": "user", "content": "x", "y": 1.0}], "z" : [ ]}'
    ).original

    assert sent is not None
    assert {name: bytes(value) for name, value in sent.fields.items()} == {
        "model": b'"m"',
        "messages": b'[{"role": "user", "content": "x", "y": 1.0}]',
        "z": b"[ ]",
    }


def test_several_choices_multiply_the_choice_count() -> None:
    assert openai.decode_chat(body(n=3)).choice_count == 3


def test_uninterpreted_content_is_estimated() -> None:
    file = {"type": "file", "file": {"file_data": "data:application/pdf;base64," + "A" * 100_000}}
    with_file = body(messages=[{"role": "user", "content": [{"type": "text", "text": "Hello"}, file]}])

    more = estimate_input_tokens(openai.decode_chat(with_file)) - estimate_input_tokens(openai.decode_chat(body()))

    assert more == TOKENS_PER_IMAGE


@pytest.mark.parametrize(
    ("data", "message", "code"),
    [
        ({"messages": [HELLO]}, "Missing required parameter: 'model'.", "missing_required_parameter"),
        (body(temperature=9), "Invalid value for 'temperature': Expected `float` <= 2.0.", "invalid_value"),
        (b"{", "We could not parse the JSON body of your request: Input data was truncated.", None),
        (b"[]", "Invalid value for the body: Expected `object`, got `array`.", "invalid_value"),
    ],
)
def test_validation_errors_have_openai_s_messages(data: Any, message: str, code: str | None) -> None:
    refusal = refusal_of(data)

    assert (refusal.message, refusal.code) == (message, code)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b'{"model": "\xff"}',
        b"[" * 10_000 + b"]" * 10_000,
        b'{"prediction":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b'{"model": "m", "messages": [{"role": "user", "content": "\\ud800"}]}',
        {"model": "\ud800", "messages": [HELLO]},
        {**body(), "temperature": math.inf, "messages": 5},
    ],
)
def test_hostile_bodies_only_raise_invalid_request(data: Any) -> None:
    refusal_of(data)


def test_a_schema_nested_too_deeply_is_rejected() -> None:
    schema: JSONObject = {}
    for _ in range(100):
        schema = {"items": schema}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}

    assert refusal_of(body(tools=[tool])).param == "tools.0.function.parameters"


def test_an_escaped_backslash_before_u0000_is_not_nul() -> None:
    request = openai.decode_chat(body(messages=[{"role": "user", "content": r"write \u0000 here"}]))

    assert request.messages[0].parts == (TextPart(r"write \u0000 here"),)


@pytest.mark.parametrize(
    ("value", "inputs"),
    [
        ("one", ("one",)),
        (["one", "two"], ("one", "two")),
        ([1, 2, 3], ((1, 2, 3),)),
        ([[1, 2], [3]], ((1, 2), (3,))),
    ],
)
def test_embedding_inputs_have_four_shapes(value: Any, inputs: Any) -> None:
    request = openai.decode_embedding({"model": "text-embedding-3-small", "input": value, "dimensions": 256})

    assert request == EmbeddingRequest("text-embedding-3-small", inputs, 256)


def test_other_fields_of_an_embedding_request_are_kept() -> None:
    body_ = {"model": "m", "input": "a", "input_type": "query", "encoding_format": "base64"}

    assert openai.decode_embedding(body_).extra_fields == {"input_type": "query"}


@pytest.mark.parametrize(
    "value", ["", [], [""], ["a", ""], ["a", 1], [1, [2]], [[]], [-1], [[-1]], None, {}, 7, ["x"] * 2049]
)
def test_other_embedding_inputs_are_rejected(value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        openai.decode_embedding({"model": "text-embedding-3-small", "input": value})

    assert caught.value.param == "input"


USAGE = Usage(19, 10, cached_input_tokens=8, reasoning_tokens=2)


def test_an_answer_is_encoded_like_openai_s() -> None:
    completion = Completion("chatcmpl-D1", "gpt-4o-mini-2024-07-18", "Grüße aus Oslo 🌧", FinishReason.STOP, USAGE)

    encoded = openai.encode_completion(completion, created=1795200000)

    # Keys in the same order, because some clients compare bytes.
    assert json.dumps(encoded) == json.dumps(json.loads(recorded("openai/chat_text.json")))


def test_tool_calls_are_encoded_without_content() -> None:
    calls = (ToolCall("call_a", "get_weather", '{"city":"Oslo"}'), ToolCall("call_b", "get_time", "{}"))
    completion = Completion(
        "chatcmpl-D1", "gpt-4o-mini-2024-07-18", "", FinishReason.TOOL_CALLS, Usage(71, 25), tool_calls=calls
    )

    assert openai.encode_completion(completion, created=1795200000) == json.loads(recorded("openai/chat_tools.json"))


def test_unknown_usage_is_omitted() -> None:
    encoded = openai.encode_completion(Completion("i", "m", "x", FinishReason.STOP, None), created=1)

    assert "usage" not in encoded


def test_cache_writes_and_reasoning_are_encoded() -> None:
    completion = Completion(
        "i", "m", "x", FinishReason.LENGTH, Usage(5, 1, cache_write_tokens=2), reasoning="Hm.", refusal=None
    )

    encoded = openai.encode_completion(completion, created=1)

    assert encoded["usage"]["prompt_tokens_details"]["cache_write_tokens"] == 2
    assert encoded["choices"][0]["message"]["reasoning_content"] == "Hm."
    assert encoded["choices"][0]["finish_reason"] == "length"


def test_a_refusal_has_no_content() -> None:
    encoded = openai.encode_completion(Completion("i", "m", "", FinishReason.STOP, None, refusal="No."), created=1)

    assert encoded["choices"][0]["message"]["content"] is None
    assert encoded["choices"][0]["message"]["refusal"] == "No."


EMBEDDINGS = Embeddings("text-embedding-3-small", ((0.5, -0.25, 1.0), (0.0, 2.0, -1.5)), Usage(8))


@pytest.mark.parametrize(
    ("encoding", "name"),
    [(None, "embeddings"), ("float", "embeddings"), ("base64", "embeddings_base64")],
)
def test_vectors_are_encoded_like_openai_s(encoding: Any, name: str) -> None:
    assert openai.encode_embeddings(EMBEDDINGS, encoding) == json.loads(recorded(f"openai/{name}.json"))


def test_base64_vectors_are_little_endian_floats() -> None:
    [row, _] = openai.encode_embeddings(EMBEDDINGS, "base64")["data"]

    assert struct.unpack("<3f", base64.b64decode(row["embedding"])) == (0.5, -0.25, 1.0)
