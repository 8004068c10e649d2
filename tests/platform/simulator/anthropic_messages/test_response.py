"""Messages, requested and read by Anthropic's own client."""

import json
import math
from typing import Any, cast

import pytest
from anthropic import Anthropic
from anthropic.types import Message, TextBlock, ThinkingBlock, ToolUseBlock

from tests.simulator_process import SimulatorProcess

MODEL = "claude-haiku-4-5"
CLASSIC = {"anthropic-version": "2023-06-01"}

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "maximum": 7}},
    "required": ["city", "days"],
}
WEATHER: Any = {"name": "get_weather", "description": "The weather in a city", "input_schema": SCHEMA}
CLOCK: Any = {"name": "get_time", "input_schema": {"type": "object", "properties": {}}}


def says(text: str) -> Any:
    return [{"role": "user", "content": text}]


def tokens(text: str) -> int:
    """The token rule once more, written independently of the simulator's."""
    return math.ceil(len(text.encode("utf-8")) / 4)


def create(anthropic: Anthropic, **wanted: Any) -> Message:
    return cast(
        "Message",
        anthropic.messages.create(**{"model": MODEL, "max_tokens": 1000, "messages": says("Hello"), **wanted}),
    )


def text_of(message: Message) -> str:
    return "".join(block.text for block in message.content if isinstance(block, TextBlock))


def events_of(anthropic: Anthropic, **wanted: Any) -> list[tuple[str, Any]]:
    """The frames of a stream as they are on the wire: name and data."""
    asked = {"model": MODEL, "max_tokens": 1000, "messages": says("Hello"), "stream": True, **wanted}
    with anthropic.messages.with_streaming_response.create(**asked) as raw:
        frames = raw.read().decode().split("\n\n")
    assert frames[-1] == ""
    lines = [frame.split("\n") for frame in frames[:-1]]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in lines]


def test_an_answer_has_every_field_of_the_wire(anthropic: Anthropic) -> None:
    raw = anthropic.messages.with_raw_response.create(model=MODEL, max_tokens=100, messages=says("Hello"))
    body = json.loads(raw.text())

    assert list(body) == [
        "id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "stop_details", "usage",
    ]  # fmt: skip
    assert body["model"] == "claude-haiku-4-5-20251001"
    assert body["id"].startswith("msg_01")
    assert body["usage"] == {
        "input_tokens": 3 + 3 + tokens("Hello"),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": tokens(body["content"][0]["text"]),
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens_details": {"thinking_tokens": 0},
        "server_tool_use": None,
        "service_tier": "standard",
        "inference_geo": "global",
        "speed": "standard",
    }


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"speed": "fast"}, ("fast", "global")),
        ({"inference_geo": "us"}, ("standard", "us")),
        ({"speed": "fast", "inference_geo": "us"}, ("fast", "us")),
    ],
)
def test_speed_and_place_are_told_in_the_answer_and_at_the_beginning_of_a_stream(
    anthropic: Anthropic, asked: dict[str, str], told: tuple[str, str]
) -> None:
    body = {"model": MODEL, "max_tokens": 10, "messages": says("Hello"), **asked}

    whole = cast("dict[str, Any]", anthropic.post("/v1/messages", body=body, cast_to=object))["usage"]
    name, start = events_of(anthropic, extra_body=asked)[0]

    assert (whole["speed"], whole["inference_geo"]) == told
    assert (name, start["message"]["usage"]["speed"], start["message"]["usage"]["inference_geo"]) == (
        "message_start",
        *told,
    )


def test_an_answer_carries_anthropics_headers(anthropic: Anthropic) -> None:
    raw = anthropic.messages.with_raw_response.create(model=MODEL, max_tokens=100, messages=says("Hello"))

    assert raw.headers["request-id"].startswith("req_")
    for kind in ("requests", "tokens", "input-tokens", "output-tokens"):
        assert int(raw.headers[f"anthropic-ratelimit-{kind}-remaining"]) > 0
        assert raw.headers[f"anthropic-ratelimit-{kind}-reset"].endswith("Z")


def test_both_headers_for_the_key_are_accepted(simulator: SimulatorProcess) -> None:
    for key in ({"api_key": "a"}, {"auth_token": "a"}):
        with Anthropic(base_url=simulator.url, max_retries=0, **cast("Any", key)) as client:
            assert text_of(create(client))


def test_a_dialogue_with_system_images_and_tools_costs_what_the_rule_says(anthropic: Anthropic) -> None:
    image: Any = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    document: Any = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}}
    messages: Any = [
        {"role": "user", "content": [{"type": "text", "text": "Was zeigt das Bild?"}, image, document]},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"city": "Köln"}}],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "Rain"}]},
    ]

    answer = create(anthropic, messages=messages, system="Be brief.", tools=[WEATHER])

    expected = 3 + (3 + tokens("Be brief.")) + (3 + tokens("Was zeigt das Bild?") + 765 + 100)
    expected += 3 + tokens("get_weather") + tokens('{"city":"Köln"}') + (3 + tokens("Rain"))
    expected += (
        tokens("get_weather") + tokens(WEATHER["description"]) + tokens(json.dumps(SCHEMA, separators=(",", ":")))
    )
    assert answer.usage.input_tokens == expected


def test_counting_tokens_gives_what_asking_then_costs(anthropic: Anthropic) -> None:
    wanted: Any = {"messages": says("How do I proof bread?"), "system": "Be brief.", "tools": [WEATHER]}

    counted = anthropic.messages.count_tokens(model=MODEL, **wanted)

    assert counted.input_tokens == create(anthropic, **wanted).usage.input_tokens


def test_cached_tokens_are_left_out_of_the_input(anthropic: Anthropic) -> None:
    plain = create(anthropic, messages=says("Hello there, dear machine")).usage

    usage = create(
        anthropic, model=f"{MODEL}@cached_tokens=4,cache_write_tokens=2", messages=says("Hello there, dear machine")
    ).usage

    assert (usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (4, 2)
    assert usage.input_tokens + 4 + 2 == plain.input_tokens
    assert usage.cache_creation is not None
    assert usage.cache_creation.ephemeral_5m_input_tokens == 2


def test_max_tokens_is_respected_to_the_token(anthropic: Anthropic) -> None:
    answer = create(anthropic, max_tokens=5)

    assert answer.stop_reason == "max_tokens"
    assert answer.usage.output_tokens == 5


def test_a_stop_sequence_is_named(anthropic: Anthropic) -> None:
    whole = text_of(create(anthropic))
    word = whole.split()[4]

    stopped = create(anthropic, stop_sequences=[word])

    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", word)
    assert text_of(stopped) == whole[: whole.index(word)]


def test_a_stream_has_its_events_in_the_right_order(anthropic: Anthropic) -> None:
    events = events_of(anthropic, model=f"{MODEL}@deltas=3,tokens=9")

    assert [name for name, _ in events] == [
        "message_start",
        "content_block_start",
        "ping",
        "content_block_delta",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert all(data["type"] == name for name, data in events)
    start, end = events[0][1]["message"], events[-2][1]
    assert start["content"] == []
    assert start["usage"]["output_tokens"] == 1
    assert end["delta"] == {"stop_reason": "end_turn", "stop_sequence": None, "stop_details": None}
    assert end["usage"]["output_tokens"] == 9


def test_a_stream_says_what_the_whole_answer_says(anthropic: Anthropic) -> None:
    whole = create(anthropic)

    with anthropic.messages.stream(model=MODEL, max_tokens=1000, messages=says("Hello")) as stream:
        streamed = stream.get_final_message()

    assert text_of(streamed) == text_of(whole)
    assert streamed.usage.output_tokens == whole.usage.output_tokens
    assert streamed.stop_reason == whole.stop_reason


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "get_weather"}], ids=["any", "named"])
def test_a_demanded_tool_is_called_with_valid_arguments(anthropic: Anthropic, choice: Any) -> None:
    answer = create(anthropic, tools=[WEATHER], tool_choice=choice)

    assert answer.stop_reason == "tool_use"
    [call] = cast("list[ToolUseBlock]", answer.content)
    assert call.name == "get_weather"
    assert set(call.input) == {"city", "days"}
    assert 1 <= cast("int", call.input["days"]) <= 7
    assert answer.usage.output_tokens == tokens("get_weather") + tokens(
        json.dumps(call.input, separators=(",", ":"), ensure_ascii=False)
    )


def test_tools_are_called_in_parallel_unless_that_is_disabled(anthropic: Anthropic) -> None:
    both = create(anthropic, tools=[WEATHER, CLOCK], tool_choice={"type": "any"})
    one = create(anthropic, tools=[WEATHER, CLOCK], tool_choice={"type": "any", "disable_parallel_tool_use": True})

    assert [cast("ToolUseBlock", block).name for block in both.content] == ["get_weather", "get_time"]
    assert len({cast("ToolUseBlock", block).id for block in both.content}) == 2
    assert [cast("ToolUseBlock", block).name for block in one.content] == ["get_weather"]


def test_streamed_tool_calls_are_the_whole_ones(anthropic: Anthropic) -> None:
    asked: Any = {"tools": [WEATHER, CLOCK], "tool_choice": {"type": "any"}}
    whole = create(anthropic, **asked)

    with anthropic.messages.stream(model=MODEL, max_tokens=1000, messages=says("Hello"), **asked) as stream:
        streamed = stream.get_final_message()

    def calls(message: Message) -> list[tuple[str, dict[str, object]]]:
        return [(block.name, block.input) for block in message.content if isinstance(block, ToolUseBlock)]

    assert calls(streamed) == calls(whole)
    assert len(calls(whole)) == 2


def test_duplicate_tool_index_gives_all_blocks_one_index(anthropic: Anthropic) -> None:
    events = events_of(
        anthropic, model=f"{MODEL}@duplicate_tool_index", tools=[WEATHER, CLOCK], tool_choice={"type": "any"}
    )

    assert [data["index"] for name, data in events if name == "content_block_start"] == [0, 0]


def test_thinking_comes_first_and_is_signed(anthropic: Anthropic) -> None:
    asked: Any = {"model": f"{MODEL}@reasoning_tokens=20", "thinking": {"type": "enabled", "budget_tokens": 1024}}

    answer = create(anthropic, max_tokens=2000, **asked)
    events = events_of(anthropic, max_tokens=2000, **asked)

    thought, said = answer.content
    assert isinstance(thought, ThinkingBlock)
    assert tokens(thought.thinking) == 20
    assert thought.signature
    assert isinstance(said, TextBlock)
    assert answer.usage.output_tokens == 20 + tokens(said.text)
    deltas = [data["delta"] for name, data in events if name == "content_block_delta"]
    assert "".join(delta.get("thinking", "") for delta in deltas) == thought.thinking
    kinds = [delta["type"] for delta in deltas]
    assert kinds.index("signature_delta") < kinds.index("text_delta")


def test_structured_output_is_valid_for_its_schema(anthropic: Anthropic) -> None:
    answer = create(anthropic, output_config={"format": {"type": "json_schema", "schema": SCHEMA}})

    value = json.loads(text_of(answer))
    assert set(value) == {"city", "days"}
    assert 1 <= value["days"] <= 7


def test_the_newest_version_refuses_sampling_and_the_classic_one_takes_it(anthropic: Anthropic) -> None:
    for name, value in (("temperature", 1.0), ("top_p", 0.9), ("top_k", 40)):
        with pytest.raises(Exception, match=name):
            create(anthropic, **{"extra_body": {name: value}})
        assert create(anthropic, extra_body={name: value}, extra_headers=CLASSIC).content


def test_a_missing_or_unknown_version_is_refused(simulator: SimulatorProcess, anthropic: Anthropic) -> None:
    with pytest.raises(Exception, match="anthropic-version"):
        create(anthropic, extra_headers={"anthropic-version": "1999-01-01"})
    assert simulator.journal()[-1]["status"] == 400
