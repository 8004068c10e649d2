"""Chat completions, requested and read by OpenAI's own client."""

import json
import math
from typing import Any, cast

import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageFunctionToolCall

from tests.simulator_process import SimulatorProcess

MODEL = "gpt-4o-mini"

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["c", "f"]}},
            "required": ["city", "unit"],
        },
    },
}
CLOCK: Any = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}}}


def says(text: str) -> Any:
    return [{"role": "user", "content": text}]


def tokens(text: str) -> int:
    """The token rule once more, written independently of the simulator's."""
    return math.ceil(len(text.encode("utf-8")) / 4)


def stream(openai: OpenAI, **wanted: Any) -> list[ChatCompletionChunk]:
    chunks = openai.chat.completions.create(**{"model": MODEL, "messages": says("Hello"), "stream": True, **wanted})
    return list(cast("Any", chunks))


def text_of(chunks: list[ChatCompletionChunk], choice: int = 0) -> str:
    return "".join(part.delta.content or "" for chunk in chunks for part in chunk.choices if part.index == choice)


def test_an_answer_has_every_field_of_the_wire(openai: OpenAI) -> None:
    raw = openai.chat.completions.with_raw_response.create(model=MODEL, messages=says("Hello"))
    body = json.loads(raw.text)

    assert list(body) == ["id", "object", "created", "model", "choices", "usage", "service_tier", "system_fingerprint"]
    assert body["object"] == "chat.completion"
    assert body["model"] == "gpt-4o-mini-2024-07-18"
    assert list(body["choices"][0]) == ["index", "message", "logprobs", "finish_reason"]
    assert list(body["choices"][0]["message"]) == ["role", "content", "refusal", "annotations"]
    assert body["choices"][0]["message"]["refusal"] is None
    assert body["usage"]["prompt_tokens_details"] == {"cached_tokens": 0, "audio_tokens": 0}
    assert body["usage"]["completion_tokens_details"] == {
        "reasoning_tokens": 0,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    }


def test_an_answer_carries_openais_headers(openai: OpenAI) -> None:
    raw = openai.chat.completions.with_raw_response.create(model=MODEL, messages=says("Hello"))

    assert raw.headers["content-type"] == "application/json"
    assert raw.headers["x-request-id"].startswith("req_")
    assert raw.headers["openai-version"] == "2020-10-01"
    assert raw.headers["x-ratelimit-reset-requests"] == "6ms"
    assert int(raw.headers["x-ratelimit-remaining-tokens"]) > 0


def test_the_same_question_has_the_same_answer_and_another_one_has_another(openai: OpenAI) -> None:
    first, second, other = (
        openai.chat.completions.create(model=MODEL, messages=says(text)) for text in ("Hello", "Hello", "Goodbye")
    )

    assert first.choices == second.choices
    assert first.usage == second.usage
    assert first.id != second.id
    assert other.choices != first.choices


def test_stable_ids_make_the_same_bytes(openai: OpenAI) -> None:
    model = f"{MODEL}@stable_ids"
    first, second = (
        openai.chat.completions.with_raw_response.create(model=model, messages=says("Hello")) for _ in range(2)
    )

    assert first.text == second.text


def test_usage_is_the_token_rule_to_the_token(openai: OpenAI) -> None:
    messages: Any = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Grüße aus Köln – 你好"}]},
    ]

    answer = openai.chat.completions.create(model=MODEL, messages=messages)

    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 3 + (3 + tokens("Be brief.")) + (3 + tokens("Grüße aus Köln – 你好"))
    assert answer.usage.completion_tokens == tokens(answer.choices[0].message.content or "")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_images_files_and_tools_cost_what_the_rule_says(openai: OpenAI) -> None:
    parts: Any = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "file", "file": {"file_id": "file-1"}},
    ]
    function = WEATHER["function"]
    schema = json.dumps(function["parameters"], separators=(",", ":"))

    answer = openai.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": parts}], tools=[WEATHER], tool_choice="none"
    )

    assert answer.usage is not None
    expected = 3 + 3 + tokens("What is this?") + 2 * 765 + 100
    expected += tokens(function["name"]) + tokens(function["description"]) + tokens(schema)
    assert answer.usage.prompt_tokens == expected


def test_max_tokens_is_respected_to_the_token(openai: OpenAI) -> None:
    answer = openai.chat.completions.create(model=MODEL, messages=says("Hello"), max_completion_tokens=5)

    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5


@pytest.mark.parametrize("wanted", [1, 2, 7, 64, 1000])
def test_the_control_tokens_sets_the_length_exactly(openai: OpenAI, wanted: int) -> None:
    answer = openai.chat.completions.create(model=f"{MODEL}@tokens={wanted}", messages=says("Ça va?"))

    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == wanted == tokens(answer.choices[0].message.content or "")


def test_cached_written_and_reasoning_tokens_are_told_on_request(openai: OpenAI) -> None:
    controls = "cached_tokens=4,cache_write_tokens=2,reasoning_tokens=50,tokens=10"

    answer = openai.chat.completions.create(model=f"{MODEL}@{controls}", messages=says("Hello there, dear machine"))

    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.completion_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 4
    assert answer.usage.prompt_tokens_details.cache_write_tokens == 2
    assert answer.usage.completion_tokens_details.reasoning_tokens == 50
    assert answer.usage.completion_tokens == 60


def test_a_stop_word_ends_the_answer_before_it(openai: OpenAI) -> None:
    whole = openai.chat.completions.create(model=MODEL, messages=says("Hello")).choices[0].message.content or ""
    word = whole.split()[5]

    stopped = openai.chat.completions.create(model=MODEL, messages=says("Hello"), stop=[word])

    assert stopped.choices[0].message.content == whole[: whole.index(word)]
    assert stopped.choices[0].finish_reason == "stop"


def test_of_several_stop_words_the_first_in_the_text_ends_it(openai: OpenAI) -> None:
    whole = openai.chat.completions.create(model=MODEL, messages=says("Hello")).choices[0].message.content or ""
    early, late = whole[10:14], whole[40:44]

    for words in ([early, late], [late, early]):
        stopped = openai.chat.completions.create(model=MODEL, messages=says("Hello"), stop=words)
        assert stopped.choices[0].message.content == whole[: whole.index(early)]


def test_a_long_text_is_answered_with_sentences_of_its_own(openai: OpenAI) -> None:
    sentences = [f"This is sentence number {number} of a rather long article." for number in range(40)]
    prompt = "Summarize the following article.\n\n" + " ".join(sentences)

    answer = openai.chat.completions.create(model=MODEL, messages=says(prompt)).choices[0].message.content or ""

    quoted = [sentence for sentence in sentences if sentence in answer]
    assert 2 <= len(quoted) <= 6
    assert "Summarize" not in answer


@pytest.mark.parametrize("streamed", [False, True])
def test_likelihoods_come_with_each_token(openai: OpenAI, streamed: bool) -> None:
    wanted: Any = {"messages": says("Hello"), "n": 2, "logprobs": True, "top_logprobs": 3}
    if streamed:
        with openai.chat.completions.stream(model=MODEL, **wanted) as chunks:
            answer: Any = chunks.get_final_completion()
    else:
        answer = openai.chat.completions.create(model=MODEL, **wanted)

    for choice in answer.choices:
        tokens = choice.logprobs.content
        assert "".join(token.token for token in tokens) == choice.message.content
        assert bytes(tokens[0].bytes).decode() == tokens[0].token
        assert {len(token.top_logprobs) for token in tokens} == {3}
        assert tokens[0].logprob <= 0


def test_n_choices_are_all_counted(openai: OpenAI) -> None:
    answer = openai.chat.completions.create(model=MODEL, messages=says("Hello"), n=3)

    texts = [choice.message.content or "" for choice in answer.choices]
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len(set(texts)) == 3
    assert answer.usage is not None
    assert answer.usage.completion_tokens == sum(map(tokens, texts))


def test_a_stream_says_what_the_whole_answer_says(openai: OpenAI) -> None:
    whole = openai.chat.completions.create(model=MODEL, messages=says("Hello"))

    chunks = stream(openai, stream_options={"include_usage": True})

    assert text_of(chunks) == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage


def test_a_stream_has_role_deltas_finish_usage_and_done_in_this_order(openai: OpenAI) -> None:
    with openai.chat.completions.with_streaming_response.create(
        model=f"{MODEL}@tokens=4", messages=says("Hello"), stream=True, stream_options={"include_usage": True}
    ) as raw:
        assert raw.headers["content-type"] == "text/event-stream; charset=utf-8"
        frames = raw.read().decode().split("\n\n")

    assert frames[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(frame.removeprefix("data: ")) for frame in frames[:-2]]
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    assert chunks[0]["choices"] == [
        {
            "index": 0,
            "delta": {"role": "assistant", "content": "", "refusal": None},
            "logprobs": None,
            "finish_reason": None,
        }
    ]
    assert [list(chunk["choices"][0]["delta"]) for chunk in chunks[1:-2]] == [["content"]] * (len(chunks) - 3)
    assert chunks[-2]["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}]
    assert chunks[-1]["choices"] == []
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["usage"]["completion_tokens"] == 4


def test_without_include_usage_no_chunk_has_the_key(openai: OpenAI, simulator: SimulatorProcess) -> None:
    chunks = stream(openai)

    assert all("usage" not in chunk.model_fields_set for chunk in chunks)
    assert simulator.finished()[0]["usage_reported"] is False
    assert simulator.finished()[0]["output_tokens"] == tokens(text_of(chunks))


def test_choices_of_a_stream_take_turns(openai: OpenAI) -> None:
    whole = openai.chat.completions.create(model=MODEL, messages=says("Hello"), n=2)

    chunks = stream(openai, n=2)

    assert [text_of(chunks, index) for index in (0, 1)] == [choice.message.content for choice in whole.choices]
    turns = [chunk.choices[0].index for chunk in chunks]
    assert turns[:6] == [0, 1, 0, 1, 0, 1]


def test_obfuscation_is_sent_when_it_is_asked_for(openai: OpenAI) -> None:
    plain = stream(openai)
    hidden = stream(openai, stream_options={"include_obfuscation": True})

    assert not any(chunk.to_dict().get("obfuscation") for chunk in plain)
    assert all(chunk.to_dict().get("obfuscation") for chunk in hidden)
    assert text_of(hidden) == text_of(plain)


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "get_weather"}}], ids=["required", "named"]
)
def test_a_demanded_tool_is_called_with_valid_arguments(openai: OpenAI, choice: Any) -> None:
    answer = openai.chat.completions.create(model=MODEL, messages=says("Oslo?"), tools=[WEATHER], tool_choice=choice)

    message = answer.choices[0].message
    assert message.content is None
    assert answer.choices[0].finish_reason == "tool_calls"
    [call] = cast("list[ChatCompletionMessageFunctionToolCall]", message.tool_calls)
    assert call.function.name == "get_weather"
    arguments = json.loads(call.function.arguments)
    assert set(arguments) == {"city", "unit"}
    assert arguments["unit"] in ("c", "f")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == tokens("get_weather") + tokens(call.function.arguments)


def test_tools_that_are_only_offered_are_not_called(openai: OpenAI) -> None:
    for choice in ("auto", "none"):
        answer = openai.chat.completions.create(
            model=MODEL, messages=says("Oslo?"), tools=[WEATHER], tool_choice=cast("Any", choice)
        )
        assert answer.choices[0].message.tool_calls is None
        assert answer.choices[0].message.content


def test_two_demanded_tools_are_called_in_parallel_unless_that_is_forbidden(openai: OpenAI) -> None:
    def called(parallel: bool) -> list[str]:
        answer = openai.chat.completions.create(
            model=MODEL,
            messages=says("Oslo?"),
            tools=[WEATHER, CLOCK],
            tool_choice="required",
            parallel_tool_calls=parallel,
        )
        calls = cast("list[ChatCompletionMessageFunctionToolCall]", answer.choices[0].message.tool_calls)
        assert len({call.id for call in calls}) == len(calls)
        return [call.function.name for call in calls]

    assert called(parallel=True) == ["get_weather", "get_time"]
    assert called(parallel=False) == ["get_weather"]


def test_a_control_asks_for_tool_calls(openai: OpenAI) -> None:
    answer = openai.chat.completions.create(
        model=f"{MODEL}@tool_calls=3", messages=says("Oslo?"), tools=[WEATHER, CLOCK]
    )

    calls = cast("list[ChatCompletionMessageFunctionToolCall]", answer.choices[0].message.tool_calls)
    assert [call.function.name for call in calls] == ["get_weather", "get_time", "get_weather"]


def test_allowed_tools_narrow_the_choice(openai: OpenAI) -> None:
    allowed: Any = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [CLOCK]}}

    answer = openai.chat.completions.create(
        model=MODEL, messages=says("Oslo?"), tools=[WEATHER, CLOCK], tool_choice=allowed
    )

    [call] = cast("list[ChatCompletionMessageFunctionToolCall]", answer.choices[0].message.tool_calls)
    assert call.function.name == "get_time"


def test_a_custom_tool_is_called_with_free_text(openai: OpenAI) -> None:
    tool: Any = {"type": "custom", "custom": {"name": "run"}}

    whole = openai.chat.completions.create(model=MODEL, messages=says("x"), tools=[tool], tool_choice="required")
    chunks = stream(openai, messages=says("x"), tools=[tool], tool_choice="required")

    [call] = cast("Any", whole.choices[0].message.tool_calls)
    assert (call.type, call.custom.name) == ("custom", "run")
    parts: list[Any] = [part for chunk in chunks for part in chunk.choices[0].delta.tool_calls or ()]
    assert parts[0].type == "custom"
    assert "".join(part.model_extra["custom"]["input"] for part in parts) == call.custom.input


def calls_in(chunks: list[ChatCompletionChunk]) -> dict[int, tuple[str, str]]:
    """Name and arguments of every tool call of a stream, put together by index."""
    calls: dict[int, tuple[str, str]] = {}
    for chunk in chunks:
        for part in chunk.choices[0].delta.tool_calls or ():
            assert part.function is not None
            name, arguments = calls.get(part.index, ("", ""))
            calls[part.index] = (name + (part.function.name or ""), arguments + (part.function.arguments or ""))
    return calls


def test_streamed_tool_calls_put_together_are_the_whole_ones(openai: OpenAI) -> None:
    whole = openai.chat.completions.create(
        model=MODEL, messages=says("Oslo?"), tools=[WEATHER, CLOCK], tool_choice="required"
    )
    wanted = cast("list[ChatCompletionMessageFunctionToolCall]", whole.choices[0].message.tool_calls)

    chunks = stream(openai, messages=says("Oslo?"), tools=[WEATHER, CLOCK], tool_choice="required")

    assert list(calls_in(chunks).values()) == [(call.function.name, call.function.arguments) for call in wanted]
    first: Any = next(part for chunk in chunks for part in chunk.choices[0].delta.tool_calls or ())
    assert (first.index, first.type, first.function.arguments) == (0, "function", "")
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_duplicate_tool_index_gives_all_calls_one_index(openai: OpenAI) -> None:
    chunks = stream(
        openai,
        model=f"{MODEL}@duplicate_tool_index",
        messages=says("Oslo?"),
        tools=[WEATHER, CLOCK],
        tool_choice="required",
    )

    assert list(calls_in(chunks)) == [0]


def test_tool_calls_that_do_not_fit_are_left_out(openai: OpenAI) -> None:
    answer = openai.chat.completions.create(
        model=MODEL, messages=says("Oslo?"), tools=[WEATHER, CLOCK], tool_choice="required", max_completion_tokens=3
    )

    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].message.tool_calls is None


def test_structured_output_is_valid_for_its_schema(openai: OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {
            "title": {"type": "string", "maxLength": 60},
            "stars": {"type": "integer", "minimum": 1, "maximum": 5},
            "tags": {"type": "array", "items": {"enum": ["bread", "cake"]}, "minItems": 1},
        },
        "required": ["title", "stars", "tags"],
    }
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "review", "schema": schema, "strict": True}}

    answer = openai.chat.completions.create(model=MODEL, messages=says("Review"), response_format=wanted)

    value = json.loads(answer.choices[0].message.content or "")
    assert set(value) == {"title", "stars", "tags"}
    assert len(value["title"]) <= 60
    assert 1 <= value["stars"] <= 5
    assert set(value["tags"]) <= {"bread", "cake"}


def test_json_mode_answers_with_an_object(openai: OpenAI) -> None:
    answer = openai.chat.completions.create(
        model=MODEL, messages=says("As JSON please"), response_format={"type": "json_object"}
    )

    assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)


@pytest.mark.parametrize(("asked", "told"), [("auto", "default"), ("flex", "flex"), ("fast", "priority")])
def test_the_service_tier_is_told(openai: OpenAI, asked: Any, told: str) -> None:
    answer = openai.chat.completions.create(model=MODEL, messages=says("Hello"), service_tier=asked)

    assert answer.service_tier == told


def test_the_control_finish_sets_the_reason(openai: OpenAI) -> None:
    answer = openai.chat.completions.create(model=f"{MODEL}@finish=content_filter", messages=says("Hello"))

    assert answer.choices[0].finish_reason == "content_filter"
