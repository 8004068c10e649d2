"""OpenAI's dialect, client side."""

import json
from dataclasses import replace
from typing import Any

import pytest

from providers.catalogue import ModelInfo, find_model
from providers.dialects.openai_upstream import (
    COMPATIBLE_FLAVOR,
    OPENAI_FLAVOR,
    OpenAIFlavor,
    OpenAIStreamDecoder,
    to_completion,
    to_embedding_payload,
    to_embeddings,
    to_payload,
)
from providers.errors import (
    BadResponse,
    ContentRefused,
    ProviderKeyRejected,
    ProviderOverloaded,
    TransientFailure,
    UnsupportedFeature,
)
from providers.sse import Frame, SSEDecoder
from providers.types import (
    AnswerFinished,
    AnswerStarted,
    ChatMessage,
    ChatRequest,
    EmbeddingRequest,
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
REQUEST = ChatRequest("gpt-4o-mini", (HELLO,))
TOOL = Tool("get_weather", "The weather", {"type": "object"})


def model(name: str) -> ModelInfo:
    found = find_model("openai", name)
    assert found is not None
    return found


def test_a_minimal_request_sends_no_other_field() -> None:
    assert to_payload(REQUEST) == {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}


def test_a_request_with_every_field_is_encoded_as_expected() -> None:
    request = ChatRequest(
        model="gpt-4o-mini",
        messages=(
            ChatMessage(Role.SYSTEM, (TextPart("Be brief."),)),
            ChatMessage(
                Role.USER,
                (
                    TextPart("Look"),
                    ImagePart(url="https://x.test/a.png", detail="low"),
                    ImagePart(media_type="image/png", data="iVBORw=="),
                ),
            ),
            ChatMessage(Role.ASSISTANT, tool_calls=(ToolCall("call_a", "get_weather", "{}"),)),
            ChatMessage(Role.TOOL, (TextPart("rain"),), tool_call_id="call_a", is_error=True),
        ),
        max_tokens=9,
        temperature=0.5,
        top_p=1.0,
        presence_penalty=0.1,
        frequency_penalty=-2.0,
        stop=("a", "b"),
        tools=(replace(TOOL, strict=True),),
        tool_choice=ToolChoice("named", "get_weather"),
        parallel_tool_calls=False,
        output_format=OutputFormat("json_schema", "mood", "A mood", {"type": "object"}, True),
        seed=7,
        user="u1",
    )

    assert to_payload(request, stream=True) == {
        "model": "gpt-4o-mini",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look"},
                    {"type": "image_url", "image_url": {"url": "https://x.test/a.png", "detail": "low"}},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "call_a", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
                ],
            },
            {"role": "tool", "content": "rain", "tool_call_id": "call_a"},
        ],
        "max_completion_tokens": 9,
        "temperature": 0.5,
        "top_p": 1.0,
        "presence_penalty": 0.1,
        "frequency_penalty": -2.0,
        "stop": ["a", "b"],
        "seed": 7,
        "user": "u1",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "mood", "description": "A mood", "schema": {"type": "object"}, "strict": True},
        },
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "get_weather",
                    "description": "The weather",
                    "parameters": {"type": "object"},
                    "strict": True,
                },
            }
        ],
        "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
        "parallel_tool_calls": False,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


@pytest.mark.parametrize(
    ("flavor", "name", "field"),
    [
        (OPENAI_FLAVOR, "gpt-4o-mini", "max_completion_tokens"),
        (COMPATIBLE_FLAVOR, "gpt-4o-mini", "max_tokens"),
        # A reasoning model rejects the older field, wherever it is served.
        (COMPATIBLE_FLAVOR, "gpt-5", "max_completion_tokens"),
    ],
)
def test_max_tokens_has_the_field_name_that_the_server_accepts(flavor: OpenAIFlavor, name: str, field: str) -> None:
    payload = to_payload(replace(REQUEST, max_tokens=9), flavor=flavor, model=model(name))

    assert payload[field] == 9


def test_max_tokens_above_the_model_s_maximum_is_reduced() -> None:
    payload = to_payload(replace(REQUEST, max_tokens=10**6), model=model("gpt-4o-mini"))

    assert payload["max_completion_tokens"] == 16384


def test_a_server_without_stream_options_gets_none() -> None:
    assert "stream_options" not in to_payload(REQUEST, stream=True, flavor=OpenAIFlavor(stream_usage=False))


@pytest.mark.parametrize(
    ("name", "requested", "sent"),
    [
        ("gpt-4o-mini", "high", None),
        ("gpt-5", "none", "minimal"),
        ("gpt-5", "xhigh", "high"),
        ("gpt-5.1", "none", "none"),
        ("gpt-5.2", "max", "xhigh"),
        ("gpt-6-sol", "max", "xhigh"),
        ("gpt-6-astra", "none", "low"),
        ("o3", "minimal", "low"),
        ("gpt-6-sol", None, None),
    ],
)
def test_the_effort_is_the_nearest_that_the_model_accepts(name: str, requested: str | None, sent: str | None) -> None:
    payload = to_payload(replace(REQUEST, reasoning_effort=requested), model=model(name))

    assert payload.get("reasoning_effort") == sent


@pytest.mark.parametrize(
    ("name", "effort", "taken"),
    [
        ("gpt-4o", None, True),
        ("gpt-5", None, False),
        ("o3", "low", False),
        ("gpt-6-sol", "none", True),
        ("gpt-6-sol", "low", False),
        ("gpt-6.1-sol", "none", False),
    ],
)
def test_temperature_is_sent_only_to_models_that_accept_it(name: str, effort: str | None, taken: bool) -> None:
    payload = to_payload(replace(REQUEST, temperature=0.3, reasoning_effort=effort), model=model(name))

    assert ("temperature" in payload) is taken


def test_an_unknown_model_gets_the_request_unadapted() -> None:
    request = replace(REQUEST, temperature=1.5, reasoning_effort="max", verbosity="low", max_tokens=10**6)

    payload = to_payload(request)

    assert (payload["temperature"], payload["reasoning_effort"], payload["verbosity"]) == (1.5, "max", "low")


def test_tools_disable_reasoning_for_models_that_accept_only_one() -> None:
    payload = to_payload(replace(REQUEST, tools=(TOOL,), temperature=0.3), model=model("gpt-6-sol"))

    assert payload["reasoning_effort"] == "none"
    assert payload["temperature"] == 0.3


@pytest.mark.parametrize(("name", "effort"), [("gpt-6-sol", "high"), ("gpt-6.1-sol", None), ("gpt-6-astra", "none")])
def test_tools_with_reasoning_are_unsupported_where_they_require_another_endpoint(
    name: str, effort: str | None
) -> None:
    with pytest.raises(UnsupportedFeature, match="accepts tools here only"):
        to_payload(replace(REQUEST, tools=(TOOL,), reasoning_effort=effort), model=model(name))


def test_an_image_in_a_tool_result_is_unsupported() -> None:
    answer = ChatMessage(Role.TOOL, (TextPart("see"), ImagePart(url="https://x.test/a.png")), tool_call_id="call_a")

    with pytest.raises(UnsupportedFeature):
        to_payload(replace(REQUEST, messages=(HELLO, answer)))


def test_tool_settings_are_sent_only_with_tools() -> None:
    payload = to_payload(replace(REQUEST, tool_choice=ToolChoice("auto"), parallel_tool_calls=True))

    assert payload.keys() == {"model", "messages"}


def test_embedding_inputs_are_sent_without_encoding_format() -> None:
    assert to_embedding_payload(EmbeddingRequest("m", ("a", "b"), 256, "u")) == {
        "model": "m",
        "input": ["a", "b"],
        "dimensions": 256,
        "user": "u",
    }
    assert to_embedding_payload(EmbeddingRequest("m", ((1, 2),))) == {"model": "m", "input": [(1, 2)]}


# Answers


def answer(**fields: Any) -> bytes:
    message = {"role": "assistant", "content": "Hi", **fields}
    return json.dumps({"id": "i", "model": "m", "choices": [{"message": message, "finish_reason": "stop"}]}).encode()


def test_an_answer_without_usage_has_usage_none() -> None:
    assert to_completion(answer()).usage is None


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        ({"reasoning_content": "Hm."}, "reasoning", "Hm."),
        ({"reasoning": "Hm."}, "reasoning", "Hm."),
        ({"content": None, "refusal": "No."}, "refusal", "No."),
        ({"content": None}, "text", ""),
        ({"tool_calls": [{"function": {"name": "f"}}]}, "tool_calls", (ToolCall("call_0", "f", "{}"),)),
    ],
)
def test_each_field_of_an_answer_is_decoded(fields: JSONObject, name: str, value: object) -> None:
    assert getattr(to_completion(answer(**fields)), name) == value


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, None),
        ({}, None),
        ({"prompt_tokens": 5}, Usage(5, 0)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, Usage(0, 0)),
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 20,
                "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30},
                "completion_tokens_details": {"reasoning_tokens": 15},
            },
            Usage(100, 20, cached_input_tokens=60, cache_write_tokens=30, reasoning_tokens=15),
        ),
        # Inconsistent counts never become negative.
        (
            {"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 50, "cache_write_tokens": 9}},
            Usage(10, 0, cached_input_tokens=10),
        ),
    ],
)
def test_usage_is_decoded_to_neutral_counts(usage: Any, expected: Usage | None) -> None:
    body = json.loads(answer()) | {"usage": usage}

    assert to_completion(json.dumps(body).encode()).usage == expected


@pytest.mark.parametrize(
    "body",
    [
        {"choices": []},
        {"choices": [{"finish_reason": "stop"}]},
        {"choices": [{"message": {"content": "x"}, "finish_reason": None}]},
        {"choices": [{"message": {"content": "x"}, "finish_reason": "tired"}]},
        {"choices": [{"message": {"tool_calls": [{"function": {}}]}, "finish_reason": "tool_calls"}]},
        {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": -1}},
    ],
)
def test_a_body_without_an_answer_is_a_bad_response(body: JSONObject) -> None:
    with pytest.raises(BadResponse):
        to_completion(json.dumps(body).encode())


def test_an_error_with_status_200_is_an_error() -> None:
    with pytest.raises(ProviderKeyRejected, match="no money"):
        to_completion(b'{"error": {"message": "no money", "code": "insufficient_quota"}}')


def test_vectors_are_sorted_by_input_index() -> None:
    body = b'{"data": [{"index": 1, "embedding": [2]}, {"index": 0, "embedding": [1]}], "model": "m"}'

    assert to_embeddings(body, 2).vectors == ((1.0,), (2.0,))


@pytest.mark.parametrize(
    "body",
    [
        b'{"data": []}',
        b'{"data": [{"embedding": "!!"}]}',
        b'{"data": [{"embedding": "AAA="}]}',
        b'{"data": [{"embedding": null}]}',
    ],
)
def test_invalid_vectors_are_a_bad_response(body: bytes) -> None:
    with pytest.raises(BadResponse):
        to_embeddings(body, 1)


# Streams


def read(stream: bytes) -> list[StreamEvent]:
    decoder = OpenAIStreamDecoder()
    events = [event for frame in SSEDecoder().feed(stream) for event in decoder.decode(frame)]
    return [*events, decoder.finished] if decoder.finished else events


def chunk(delta: JSONObject, reason: str | None = None, index: int = 0) -> bytes:
    choice = {"index": index, "delta": delta, "finish_reason": reason}
    return b"data: " + json.dumps({"id": "i", "model": "m", "choices": [choice]}).encode() + b"\n\n"


END = chunk({}, "stop") + b"data: [DONE]\n\n"
USAGE = Usage(19, 10, cached_input_tokens=8, reasoning_tokens=2)


@pytest.mark.parametrize("name", ["openai/chat_text.sse", "azure/chat_text.sse"])
def test_a_recorded_text_stream_is_decoded(name: str) -> None:
    assert read(recorded(name)) == [
        AnswerStarted("chatcmpl-D1", "gpt-4o-mini-2024-07-18"),
        TextDelta("Grüße"),
        TextDelta(" aus Oslo 🌧"),
        AnswerFinished(FinishReason.STOP, USAGE),
    ]


def test_a_recorded_tool_call_stream_is_decoded() -> None:
    assert read(recorded("openai/chat_tools.sse")) == [
        AnswerStarted("chatcmpl-D1", "gpt-4o-mini-2024-07-18"),
        ToolCallStarted(0, "call_a", "get_weather"),
        ToolCallDelta(0, '{"ci'),
        ToolCallDelta(0, 'ty":"Oslo"}'),
        ToolCallStarted(1, "call_b", "get_time"),
        ToolCallDelta(1, "{}"),
        AnswerFinished(FinishReason.TOOL_CALLS, Usage(71, 25)),
    ]


def test_reasoning_deltas_are_decoded() -> None:
    assert read(recorded("openai/chat_reasoning.sse"))[1:4] == [
        ReasoningDelta("Rain is"),
        ReasoningDelta(" likely."),
        TextDelta("Yes."),
    ]


def test_an_error_frame_is_raised() -> None:
    with pytest.raises(TransientFailure, match="server had an error"):
        read(recorded("openai/chat_error.sse"))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": "server_is_overloaded"}, ProviderOverloaded),
        ({"code": "content_filter"}, ContentRefused),
        ({"type": "authentication_error"}, ProviderKeyRejected),
        ({"type": "server_error"}, TransientFailure),
        ("it broke", TransientFailure),
    ],
)
def test_error_frames_map_to_error_classes(error: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        read(b"data: " + json.dumps({"error": error}).encode() + b"\n\n")


def fragment(index: int | None, call_id: str | None, name: str | None, arguments: str | None) -> JSONObject:
    return {"tool_calls": [{"index": index, "id": call_id, "function": {"name": name, "arguments": arguments}}]}


@pytest.mark.parametrize(
    "fragments",
    [
        pytest.param(
            [(0, "a", "f", ""), (0, None, None, '{"x":'), (0, None, None, "1}"), (1, "b", "g", "{}")], id="as promised"
        ),
        pytest.param([(0, "a", "f", '{"x":'), (0, "a", "f", "1}"), (1, "b", "g", "{}")], id="id and name repeated"),
        pytest.param([(0, "a", "f", '{"x":1}'), (0, "b", "g", "{}")], id="one index for all"),
        pytest.param([(None, "a", "f", '{"x":1}'), (None, "b", "g", "{}")], id="no index"),
        pytest.param([(3, "a", "f", '{"x":1}'), (7, "b", "g", "{}")], id="other numbers"),
        pytest.param([(0, "a", "f", '{"x":'), (1, "b", "g", "{}"), (0, "", "", "1}")], id="interleaved, empty ids"),
    ],
)
def test_parallel_tool_calls_are_distinguished_whatever_their_index(fragments: list[tuple[Any, ...]]) -> None:
    stream = b"".join(chunk(fragment(*each)) for each in fragments) + END

    events = read(stream)

    assert [e for e in events if isinstance(e, ToolCallStarted)] == [
        ToolCallStarted(0, "a", "f"),
        ToolCallStarted(1, "b", "g"),
    ]
    arguments = ["", ""]
    for event in events:
        if isinstance(event, ToolCallDelta):
            arguments[event.index] += event.arguments
    assert arguments == ['{"x":1}', "{}"]


def test_a_tool_call_without_a_name_is_a_bad_response() -> None:
    with pytest.raises(BadResponse):
        read(chunk(fragment(0, "a", None, "{}")))


def test_a_tool_call_without_an_id_gets_one() -> None:
    assert ToolCallStarted(0, "call_0", "f") in read(chunk(fragment(0, None, "f", "{}")) + END)


def test_choices_after_the_first_are_ignored() -> None:
    events = read(chunk({"content": "a"}) + chunk({"content": "b"}, index=1) + END)

    assert [event for event in events if isinstance(event, TextDelta)] == [TextDelta("a")]


def test_a_refusal_is_decoded_as_text() -> None:
    assert read(chunk({"refusal": "No"}) + chunk({"refusal": "."}) + END)[1:] == [
        TextDelta("No"),
        TextDelta("."),
        AnswerFinished(FinishReason.STOP, None, refused=True),
    ]


def test_choices_may_be_empty_or_absent_anywhere() -> None:
    empty = b'data: {"choices": []}\n\ndata: {"object": "x"}\n\ndata: {"choices": null}\n\n'

    assert read(empty + chunk({"content": "a"}) + empty + END) == [
        AnswerStarted("i", "m"),
        TextDelta("a"),
        AnswerFinished(FinishReason.STOP, None),
    ]


@pytest.mark.parametrize(
    "stream",
    [
        chunk({"content": "a"}) + b"data: [DONE]\n\n",
        chunk({"content": "a"}, "stop"),
        b"data: [DONE]\n\n",
    ],
    ids=["mark without reason", "reason without mark", "mark alone"],
)
def test_only_the_end_marker_after_a_finish_reason_is_an_end(stream: bytes) -> None:
    assert not any(isinstance(event, AnswerFinished) for event in read(stream))


def test_a_trailing_end_marker_may_lack_its_blank_line() -> None:
    decoder = OpenAIStreamDecoder()
    list(decoder.decode(Frame("", chunk({}, "length")[6:].strip())))

    decoder.decode_trailing(Frame("", b'{"id": "half'))
    assert decoder.finished is None
    decoder.decode_trailing(Frame("", b"[DONE]"))
    assert decoder.finished == AnswerFinished(FinishReason.LENGTH, None)


# Several choices


def of_answer(index: int, reason: str | None = None, **delta: Any) -> bytes:
    choice = {"index": index, "delta": delta, "finish_reason": reason}
    return b"data: " + json.dumps({"id": "i", "model": "m", "choices": [choice]}).encode() + b"\n\n"


TOLD = b'data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}\n\n'
MARK = b"data: [DONE]\n\n"


def read_several(data: bytes, answers: int) -> tuple[list[StreamEvent], OpenAIStreamDecoder]:
    decoder = OpenAIStreamDecoder(answers)
    return [event for frame in SSEDecoder().feed(data) for event in decoder.decode(frame)], decoder


def test_of_several_choices_the_first_is_decoded_and_all_are_counted() -> None:
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}
    events, decoder = read_several(
        of_answer(0, content="A")
        + of_answer(1, content="B")
        + of_answer(1, tool_calls=[call])
        + of_answer(1, "length")
        + of_answer(0, "stop")
        + TOLD
        + MARK,
        2,
    )

    assert events == [AnswerStarted("i", "m"), TextDelta("A"), OpaqueDelta("B"), OpaqueDelta("f{}")]
    assert decoder.finished == AnswerFinished(FinishReason.STOP, Usage(9, 4))


def test_an_end_marker_before_every_choice_has_finished_is_an_interruption() -> None:
    _, decoder = read_several(of_answer(0, "stop") + TOLD + MARK, 2)

    assert (decoder.finished, decoder.usage) == (None, None)


def test_usage_is_known_once_all_choices_are_complete() -> None:
    _, early = read_several(TOLD + of_answer(0, content="A"), 1)
    _, reported = read_several(of_answer(0, "stop") + TOLD, 1)

    assert (early.usage, reported.usage, reported.finished) == (None, Usage(9, 4), None)


def test_content_without_a_neutral_form_is_an_opaque_delta() -> None:
    events, _ = read_several(
        of_answer(0, audio={"id": "a", "transcript": "Hi"})
        + of_answer(0, function_call={"name": "f", "arguments": "{"}),
        1,
    )

    assert events == [AnswerStarted("i", "m"), OpaqueDelta("Hi"), OpaqueDelta("f{")]


def test_a_custom_tool_call_has_its_input_as_arguments() -> None:
    events, _ = read_several(
        of_answer(
            0, tool_calls=[{"index": 0, "id": "c", "type": "custom", "custom": {"name": "sql", "input": "SELECT"}}]
        )
        + of_answer(0, tool_calls=[{"index": 0, "custom": {"input": " 1"}}]),
        1,
    )

    assert events[1:] == [ToolCallStarted(0, "c", "sql"), ToolCallDelta(0, "SELECT"), ToolCallDelta(0, " 1")]


def test_a_complete_answer_keeps_the_text_of_all_choices() -> None:
    choices = [
        {"index": 1, "message": {"content": "B"}, "finish_reason": "length"},
        {"index": 0, "message": {"content": "A"}, "finish_reason": "stop"},
    ]

    completion = to_completion(json.dumps({"id": "i", "model": "m", "choices": choices}).encode())

    assert (completion.text, completion.finish_reason, completion.other_choices) == ("A", FinishReason.STOP, ("B",))
