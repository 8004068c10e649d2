"""Anthropic's SDK against every provider; only its base URL and key are changed."""

import asyncio
import json
from typing import Any, Literal

import pytest
from anthropic import Anthropic, AsyncAnthropic, BadRequestError, Omit, beta_tool
from pydantic import BaseModel

from tests.api.live.sdks import PNG, SAYS, Sdks, each_dialect, every_upstream, on_both_servers

pytestmark = pytest.mark.django_db

CLASSIC, STRICT = "2023-06-01", "2026-10-21"
TOOLS: Any = [
    {
        "name": name,
        "input_schema": {"type": "object", "properties": {argument: {"type": "string"}}, "required": [argument]},
    }
    for name, argument in (("get_weather", "city"), ("get_time", "zone"))
]


class Mood(BaseModel):
    mood: Literal["good", "bad"]
    reasons: list[str]


def ask(sdks: Sdks, model: str, messages: Any = SAYS, *, streamed: bool = False, **wanted: Any) -> Any:
    """Return the message; if streamed, assembled by the SDK's own helper."""
    parameters = {"model": model, "max_tokens": 200, "messages": messages, **wanted}
    if not streamed:
        return sdks.anthropic.messages.create(**parameters)
    with sdks.anthropic.messages.stream(**parameters) as stream:
        return stream.get_final_message()


def text_of(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


either_way = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])


# Text


@on_both_servers
@either_way
@every_upstream
def test_a_complete_answer(sdks: Sdks, model: str, streamed: bool) -> None:
    message = ask(sdks, model, streamed=streamed, system="Be brief.")

    assert (message.type, message.role, message.stop_reason) == ("message", "assistant", "end_turn")
    assert text_of(message)
    assert message.usage.input_tokens > 0
    assert message.usage.output_tokens > 0


@each_dialect
def test_a_complete_answer_has_its_request_id(sdks: Sdks, model: str) -> None:
    assert (ask(sdks, model)._request_id or "").startswith("req_")


@every_upstream
def test_a_stream_event_by_event(sdks: Sdks, model: str) -> None:
    kinds = [
        event.type for event in sdks.anthropic.messages.create(model=model, max_tokens=200, messages=SAYS, stream=True)
    ]

    assert (kinds[0], kinds[1]) == ("message_start", "content_block_start")
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) == {"content_block_delta"}


@each_dialect
def test_the_text_stream(sdks: Sdks, model: str) -> None:
    with sdks.anthropic.messages.stream(model=model, max_tokens=200, messages=SAYS) as stream:
        pieces = list(stream.text_stream)

        assert "".join(pieces) == stream.get_final_text()
    assert len(pieces) > 1


@each_dialect
def test_length_and_stop_parameters_shape_the_answer(sdks: Sdks, model: str) -> None:
    word = text_of(ask(sdks, model)).split()[2]

    short = ask(sdks, model, max_tokens=2, metadata={"user_id": "u-1"})
    stopped = ask(sdks, model, stop_sequences=[word])

    assert short.stop_reason == "max_tokens"
    assert word not in text_of(stopped)


# Tools


def calls_of(message: Any) -> list[tuple[str, list[str]]]:
    return [(block.name, list(block.input)) for block in message.content if block.type == "tool_use"]


@either_way
@every_upstream
def test_parallel_tool_calls_and_their_results(sdks: Sdks, model: str, streamed: bool) -> None:
    message = ask(sdks, model, streamed=streamed, tools=TOOLS, tool_choice={"type": "any"})

    assert message.stop_reason == "tool_use"
    assert calls_of(message) == [("get_weather", ["city"]), ("get_time", ["zone"])]
    ids = [block.id for block in message.content]
    assert len(set(ids)) == 2
    results = [{"type": "tool_result", "tool_use_id": each, "content": "12"} for each in ids]
    # As in the SDK's own examples: the blocks are sent back unchanged.
    turns = [{"role": "assistant", "content": message.content}, {"role": "user", "content": results}]

    answer = ask(sdks, model, [*SAYS, *turns], streamed=streamed, tools=TOOLS)

    assert (answer.stop_reason, bool(text_of(answer))) == ("end_turn", True)


@either_way
@each_dialect
def test_a_single_tool_call(sdks: Sdks, model: str, streamed: bool) -> None:
    alone = {"type": "any", "disable_parallel_tool_use": True}
    one = ask(sdks, model, streamed=streamed, tools=TOOLS, tool_choice=alone)
    chosen = ask(sdks, model, streamed=streamed, tools=TOOLS, tool_choice={"type": "tool", "name": "get_time"})

    assert calls_of(one) == [("get_weather", ["city"])]
    assert calls_of(chosen) == [("get_time", ["zone"])]


@each_dialect
def test_another_provider_continues_a_cut_answer(sdks: Sdks, model: str) -> None:
    parameters: Any = {"model": f"{model}-continued", "messages": SAYS, "max_tokens": 200}

    with sdks.anthropic.messages.stream(**parameters, extra_headers={"X-Nightdesk-Continue": "true"}) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()

    assert message.stop_reason == "end_turn"
    assert [block.text for block in message.content if block.type == "text"] == [text]
    assert {call["dialect"] for call in sdks.simulator.finished(2)} == {"openai", "anthropic"}


def test_fields_of_this_dialect_only_reach_its_provider_and_are_rejected_elsewhere(sdks: Sdks) -> None:
    document: Any = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Rye."}}
    says: Any = [{"role": "user", "content": [document, {"type": "text", "text": "What is in it?"}]}]
    parameters: Any = {"max_tokens": 50, "messages": says}

    assert sdks.anthropic.messages.create(model="anthropic", **parameters).content
    with pytest.raises(BadRequestError, match=r"messages\.0\.content\.0"):
        sdks.anthropic.messages.create(model="openai", **parameters)
    assert len(sdks.simulator.finished()) == 1


@each_dialect
def test_the_tool_runner(sdks: Sdks, model: str) -> None:
    cities: list[str] = []

    @beta_tool
    def get_weather(city: str) -> str:
        """Return the weather."""
        cities.append(city)
        return "Sunny."

    runner = sdks.anthropic.beta.messages.tool_runner(
        model=f"{model}-tools", max_tokens=200, messages=SAYS, tools=[get_weather], max_iterations=2
    )
    messages = list(runner)

    # The second turn has the tool's result. The SDK tried threads first, which no gateway can store.
    assert [calls_of(message) for message in messages] == [[("get_weather", ["city"])]] * 2
    assert cities
    assert len(sdks.simulator.journal()) == 2


# Structured output and images


@on_both_servers
@each_dialect
def test_parsed_output(sdks: Sdks, model: str) -> None:
    parsed = sdks.anthropic.messages.parse(model=model, max_tokens=200, messages=SAYS, output_format=Mood)
    with sdks.anthropic.messages.stream(model=model, max_tokens=200, messages=SAYS, output_format=Mood) as stream:
        streamed = stream.get_final_message()

    assert isinstance(parsed.parsed_output, Mood)
    assert isinstance(streamed.parsed_output, Mood)


@every_upstream
def test_a_schema_in_the_output_config(sdks: Sdks, model: str) -> None:
    schema = {**Mood.model_json_schema(), "additionalProperties": False}

    message = ask(sdks, model, output_config={"format": {"type": "json_schema", "schema": schema}})

    assert Mood.model_validate(json.loads(text_of(message)))


@every_upstream
def test_an_image_as_base64(sdks: Sdks, model: str) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}

    message = ask(sdks, model, [{"role": "user", "content": [image, {"type": "text", "text": "What is this?"}]}])

    assert text_of(message)


# Models and counts


@on_both_servers
def test_models(sdks: Sdks) -> None:
    listed = {model.id for model in sdks.anthropic.models.list(limit=2)}
    one = sdks.anthropic.models.retrieve("openai")

    # The SDK fetches the pages.
    assert listed >= {"openai", "anthropic", "azure", "embed", "slow"}
    assert (one.id, one.type) == ("openai", "model")


@on_both_servers
def test_tokens_are_counted(sdks: Sdks) -> None:
    count = sdks.anthropic.messages.count_tokens
    few = count(model="anthropic", messages=SAYS)
    more = count(model="anthropic", messages=SAYS, system="Be brief.", tools=TOOLS)

    assert 0 < few.input_tokens < more.input_tokens


# Versions, headers, the asynchronous client, retries


@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
@pytest.mark.parametrize("version", [CLASSIC, STRICT])
def test_both_versions_and_both_ways_to_send_the_key(sdks: Sdks, version: str, header: str) -> None:
    headers: Any = {"anthropic-version": version}
    if header == "x-api-key":
        headers |= {"x-api-key": sdks.key, "authorization": Omit()}
    client = sdks.anthropic.with_options(default_headers=headers)

    message = client.messages.create(model="anthropic", max_tokens=9, messages=SAYS)

    assert text_of(message)
    assert {model.id for model in client.models.list()} >= {"anthropic"}


@each_dialect
def test_sampling_settings_are_for_the_classic_version(sdks: Sdks, model: str) -> None:
    body: Any = {"temperature": 1.0}
    classic = ask(sdks, model, extra_body=body, extra_headers={"anthropic-version": CLASSIC})

    assert text_of(classic)
    with pytest.raises(BadRequestError, match="temperature"):
        ask(sdks, model, extra_body=body, extra_headers={"anthropic-version": STRICT})
    with pytest.raises(BadRequestError, match="anthropic-version"):
        ask(sdks, model, extra_headers={"anthropic-version": "2030-01-01"})


@on_both_servers
def test_raw_responses_have_the_headers_of_the_dialect(sdks: Sdks) -> None:
    parameters: Any = {"model": "openai", "max_tokens": 200, "messages": SAYS}
    raw = sdks.anthropic.messages.with_raw_response.create(**parameters)
    with sdks.anthropic.messages.with_streaming_response.create(**parameters, stream=True) as streamed:
        lines = list(streamed.iter_lines())

    assert text_of(raw.parse())
    assert raw.request_id == raw.headers["request-id"] == raw.headers["x-request-id"]
    for headers in (raw.headers, streamed.headers):
        assert headers["anthropic-ratelimit-requests-limit"] == "10000"
        assert int(headers["anthropic-ratelimit-tokens-remaining"]) < 10_000_000
        assert headers["anthropic-ratelimit-tokens-reset"].endswith("Z")
    assert "event: message_stop" in lines


@on_both_servers
async def test_the_asynchronous_client(sdks: Sdks) -> None:
    async with AsyncAnthropic(base_url=sdks.url, api_key=sdks.key, max_retries=0) as client:

        async def whole(model: str) -> str:
            return text_of(await client.messages.create(model=model, max_tokens=200, messages=SAYS))

        async def streamed(model: str) -> str:
            async with client.messages.stream(model=model, max_tokens=200, messages=SAYS) as stream:
                return "".join([text async for text in stream.text_stream])

        waits = [does(model) for does in (whole, streamed) for model in ("openai", "anthropic")]
        assert all(await asyncio.gather(*waits))


def test_a_retry_with_an_idempotency_key_is_one_call_upstream(sdks: Sdks) -> None:
    # The first try times out long before the provider answers; the SDK retries half a second later.
    with Anthropic(base_url=sdks.url, api_key=sdks.key, max_retries=2, timeout=0.3) as client:
        answer = client.messages.with_raw_response.create(
            model="slow", max_tokens=200, messages=SAYS, extra_headers={"Idempotency-Key": "order-17"}
        )

    assert answer.retries_taken > 0
    assert text_of(answer.parse())
    assert len(sdks.simulator.journal()) == 1
