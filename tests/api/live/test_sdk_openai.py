"""OpenAI's SDK against every provider; only its base URL and key are changed."""

import asyncio
import json
from pathlib import Path
from typing import Any, Literal

import pytest
from openai import AsyncOpenAI, BadRequestError, OpenAI
from pydantic import BaseModel

from devstack.stack import ROOT
from tests.api.live.sdks import PNG, SAYS, Sdks, each_dialect, every_upstream, on_both_servers

pytestmark = pytest.mark.django_db

WEATHER, CLOCK = (
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {"type": "object", "properties": {argument: {"type": "string"}}, "required": [argument]},
        },
    }
    for name, argument in (("get_weather", "city"), ("get_time", "zone"))
)
TOOLS: Any = [WEATHER, CLOCK]


class Mood(BaseModel):
    mood: Literal["good", "bad"]
    reasons: list[str]


#: The providers of this dialect: every field reaches them.
of_this_dialect = pytest.mark.parametrize("model", ["openai", "azure", "azure-dated"])

# Text


@on_both_servers
@every_upstream
def test_a_complete_answer(sdks: Sdks, model: str) -> None:
    answer = sdks.openai.chat.completions.create(model=model, messages=SAYS, max_completion_tokens=64)

    assert (answer.object, answer.choices[0].message.role) == ("chat.completion", "assistant")
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0
    assert (answer._request_id or "").startswith("req_")


@on_both_servers
@every_upstream
def test_a_stream_with_its_usage(sdks: Sdks, model: str) -> None:
    chunks = list(
        sdks.openai.chat.completions.create(
            model=model, messages=SAYS, stream=True, stream_options={"include_usage": True}
        )
    )

    assert len({(chunk.id, chunk.created) for chunk in chunks if chunk.choices and chunk.choices[0].delta.content}) == 1
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices][-1] == "stop"
    usage = chunks[-1].usage
    assert usage is not None
    assert chunks[-1].choices == []
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens > 0


@every_upstream
def test_a_stream_has_no_usage_unless_requested(sdks: Sdks, model: str) -> None:
    chunks = list(sdks.openai.chat.completions.create(model=model, messages=SAYS, stream=True))

    assert [chunk.usage for chunk in chunks if chunk.usage] == []
    assert chunks[-1].choices[0].finish_reason == "stop"


@every_upstream
def test_the_stream_helper_assembles_the_answer(sdks: Sdks, model: str) -> None:
    with sdks.openai.chat.completions.stream(
        model=model, messages=SAYS, stream_options={"include_usage": True}
    ) as stream:
        kinds = {event.type for event in stream}
        answer = stream.get_final_completion()

    assert kinds >= {"chunk", "content.delta", "content.done"}
    assert answer.choices[0].message.content
    assert answer.usage is not None


@each_dialect
def test_length_and_stop_parameters_shape_the_answer(sdks: Sdks, model: str) -> None:
    create = sdks.openai.chat.completions.create
    full = create(model=model, messages=SAYS).choices[0].message.content or ""
    word = full.split()[2]

    short = create(model=model, messages=SAYS, max_tokens=2, temperature=0.5, top_p=0.9, user="u-1")
    stopped = create(model=model, messages=SAYS, stop=[word])

    assert short.choices[0].finish_reason == "length"
    assert word not in (stopped.choices[0].message.content or "")
    assert stopped.choices[0].finish_reason == "stop"


# Several choices, and what only this dialect has


@of_this_dialect
def test_several_choices_with_log_probabilities(sdks: Sdks, model: str) -> None:
    answer = sdks.openai.chat.completions.create(
        model=model, messages=SAYS, n=3, logprobs=True, top_logprobs=2, max_completion_tokens=20
    )

    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    for choice in answer.choices:
        assert choice.finish_reason in ("stop", "length")
        assert choice.logprobs is not None
        tokens = choice.logprobs.content or []
        assert "".join(token.token for token in tokens) == choice.message.content
        assert {len(token.top_logprobs) for token in tokens} == {2}
    (call,) = sdks.simulator.finished()
    assert answer.usage is not None
    assert answer.usage.completion_tokens == call["output_tokens"]


@of_this_dialect
def test_several_choices_in_one_stream(sdks: Sdks, model: str) -> None:
    with sdks.openai.chat.completions.stream(
        model=model, messages=SAYS, n=2, logprobs=True, stream_options={"include_usage": True}
    ) as stream:
        answer = stream.get_final_completion()

    assert [choice.finish_reason for choice in answer.choices] == ["stop", "stop"]
    assert all(choice.message.content and choice.logprobs and choice.logprobs.content for choice in answer.choices)
    (call,) = sdks.simulator.finished()
    assert answer.usage is not None
    assert answer.usage.completion_tokens == call["output_tokens"]


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
        ({"extra_body": {"vendor_setting": 1}}, "vendor_setting"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_parameter_that_no_provider_supports_is_rejected_before_a_call(
    sdks: Sdks, parameters: dict[str, Any], param: str, stream: bool
) -> None:
    with pytest.raises(BadRequestError) as caught:
        sdks.openai.chat.completions.create(model="anthropic", messages=SAYS, stream=stream, **parameters)

    assert caught.value.param == param
    assert sdks.simulator.journal() == []


def test_a_provider_without_a_required_feature_is_skipped(sdks: Sdks) -> None:
    answer = sdks.openai.chat.completions.create(model="anthropic-then-openai", messages=SAYS, n=2)

    assert len(answer.choices) == 2
    assert [call["dialect"] for call in sdks.simulator.finished()] == ["openai"]


def test_optional_hints_do_not_restrict_the_providers(sdks: Sdks) -> None:
    hints: Any = {"metadata": {"k": "v"}, "store": True, "service_tier": "flex", "user": "u1", "prompt_cache_key": "k"}

    for model in ("openai", "anthropic"):
        assert sdks.openai.chat.completions.create(model=model, messages=SAYS, **hints).choices[0].message.content


@each_dialect
def test_another_provider_continues_a_cut_answer(sdks: Sdks, model: str) -> None:
    parameters: Any = {
        "model": f"{model}-continued",
        "messages": SAYS,
        "extra_headers": {"X-Nightdesk-Continue": "true"},
    }

    chunks = list(sdks.openai.chat.completions.create(**parameters, stream=True))
    with sdks.openai.chat.completions.stream(**parameters) as stream:
        helped = stream.get_final_completion()

    markers = [chunk.model_extra["nightdesk"] for chunk in chunks if "nightdesk" in (chunk.model_extra or {})]
    assert markers == [{"continued_by": "anthropic" if model == "openai" else "openai"}]
    # Clients that read the first choice of each chunk find one.
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert helped.choices[0].message.content == text
    assert helped.choices[0].finish_reason == "stop"


# Tools


def calls_of(message: Any) -> list[tuple[str, list[str]]]:
    return [(call.function.name, list(json.loads(call.function.arguments))) for call in message.tool_calls or []]


def turn(sdks: Sdks, model: str, messages: Any, *, streamed: bool, **wanted: Any) -> Any:
    """Return the choice; if streamed, assembled by the SDK's own helper."""
    if not streamed:
        return sdks.openai.chat.completions.create(model=model, messages=messages, tools=TOOLS, **wanted).choices[0]
    with sdks.openai.chat.completions.stream(model=model, messages=messages, tools=TOOLS, **wanted) as stream:
        return stream.get_final_completion().choices[0]


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@every_upstream
def test_parallel_tool_calls_and_their_results(sdks: Sdks, model: str, streamed: bool) -> None:
    choice = turn(sdks, model, SAYS, streamed=streamed, tool_choice="required")

    assert choice.finish_reason == "tool_calls"
    assert calls_of(choice.message) == [("get_weather", ["city"]), ("get_time", ["zone"])]
    assert len({call.id for call in choice.message.tool_calls}) == 2
    said = choice.message.model_dump(exclude_none=True, include={"role", "content", "tool_calls"})
    for call in said["tool_calls"]:
        call["function"].pop("parsed_arguments", None)
        call.pop("index", None)
    results = [{"role": "tool", "tool_call_id": call.id, "content": "12"} for call in choice.message.tool_calls]

    answer = turn(sdks, model, [*SAYS, said, *results], streamed=streamed)

    assert (answer.finish_reason, bool(answer.message.content)) == ("stop", True)


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@each_dialect
def test_a_single_tool_call(sdks: Sdks, model: str, streamed: bool) -> None:
    one = turn(sdks, model, SAYS, streamed=streamed, tool_choice="required", parallel_tool_calls=False)
    named: Any = {"type": "function", "function": {"name": "get_time"}}
    chosen = turn(sdks, model, SAYS, streamed=streamed, tool_choice=named)

    assert calls_of(one.message) == [("get_weather", ["city"])]
    assert calls_of(chosen.message) == [("get_time", ["zone"])]


# Structured output and images


@on_both_servers
@every_upstream
def test_parsed_output(sdks: Sdks, model: str) -> None:
    answer = sdks.openai.chat.completions.parse(model=model, messages=SAYS, response_format=Mood)
    with sdks.openai.chat.completions.stream(model=model, messages=SAYS, response_format=Mood) as stream:
        streamed = stream.get_final_completion()

    assert isinstance(answer.choices[0].message.parsed, Mood)
    assert isinstance(streamed.choices[0].message.parsed, Mood)


@each_dialect
def test_a_schema_given_as_json(sdks: Sdks, model: str) -> None:
    answer = sdks.openai.chat.completions.create(
        model=model,
        messages=SAYS,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "mood", "schema": {**Mood.model_json_schema(), "additionalProperties": False}},
        },
    )

    assert Mood.model_validate_json(answer.choices[0].message.content or "")


@every_upstream
def test_an_image_as_a_data_url(sdks: Sdks, model: str) -> None:
    parts: Any = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}", "detail": "low"}},
    ]
    answer = sdks.openai.chat.completions.create(model=model, messages=[{"role": "user", "content": parts}])

    assert answer.choices[0].message.content


# Embeddings and models


@on_both_servers
def test_embeddings_in_both_encodings(sdks: Sdks) -> None:
    embed = sdks.openai.embeddings.create
    # By default this SDK requests base64 and decodes it.
    read = embed(model="embed", input=["a", "b"])
    # Not from the cache, because cached vectors use no tokens.
    uncached: Any = {"extra_headers": {"Cache-Control": "no-store"}}
    numbers = embed(model="embed", input=["a", "b"], encoding_format="float", **uncached)
    packed: Any = embed(model="embed", input="a", encoding_format="base64")

    assert [row.index for row in read.data] == [0, 1]
    assert [row.embedding for row in read.data] == [pytest.approx(row.embedding) for row in numbers.data]
    assert len(read.data[0].embedding) == 1536
    assert isinstance(packed.data[0].embedding, str)
    assert read.usage.total_tokens == numbers.usage.total_tokens > 0


def test_embeddings_of_tokens_with_fewer_dimensions(sdks: Sdks) -> None:
    got = sdks.openai.embeddings.create(model="embed", input=[[1, 2, 3], [4]], dimensions=256)

    assert [len(row.embedding) for row in got.data] == [256, 256]


@on_both_servers
def test_models(sdks: Sdks) -> None:
    listed = {model.id: model for model in sdks.openai.models.list()}
    one = sdks.openai.models.retrieve("azure-dated")

    assert set(listed) >= {"openai", "anthropic", "azure", "embed"}
    assert (one.id, one.object, one.owned_by) == ("azure-dated", "model", "azure-dated")


# Headers, the asynchronous client, retries


@on_both_servers
def test_raw_responses_have_the_headers_of_the_dialect(sdks: Sdks) -> None:
    raw = sdks.openai.chat.completions.with_raw_response.create(
        model="openai", messages=SAYS, extra_headers={"X-Client-Request-ID": "mine-1"}
    )
    with sdks.openai.chat.completions.with_streaming_response.create(
        model="openai", messages=SAYS, stream=True
    ) as streamed:
        lines = list(streamed.iter_lines())

    assert raw.parse().choices[0].message.content
    assert raw.request_id == raw.headers["x-request-id"]
    assert raw.headers["x-client-request-id"] == "mine-1"
    for headers in (raw.headers, streamed.headers):
        assert headers["x-ratelimit-limit-requests"] == "10000"
        assert int(headers["x-ratelimit-remaining-tokens"]) < 10_000_000
        assert headers["x-ratelimit-reset-requests"].endswith("s")
    assert "data: [DONE]" in lines


@on_both_servers
async def test_the_asynchronous_client(sdks: Sdks) -> None:
    async with AsyncOpenAI(base_url=sdks.openai_url, api_key=sdks.key, max_retries=0) as client:

        async def streamed(model: str) -> str:
            chunks = await client.chat.completions.create(model=model, messages=SAYS, stream=True)
            return "".join([choice.delta.content or "" async for chunk in chunks for choice in chunk.choices])

        async def helped(model: str) -> str | None:
            async with client.chat.completions.stream(model=model, messages=SAYS) as stream:
                return (await stream.get_final_completion()).choices[0].message.content

        async def parsed(model: str) -> Mood | None:
            answer = await client.chat.completions.parse(model=model, messages=SAYS, response_format=Mood)
            return answer.choices[0].message.parsed

        waits = [does(model) for does in (streamed, helped, parsed) for model in ("openai", "anthropic")]
        assert all(await asyncio.gather(*waits))


def test_a_retry_with_an_idempotency_key_is_one_call_upstream(sdks: Sdks) -> None:
    # The first try times out long before the provider answers; the SDK retries half a second later.
    with OpenAI(base_url=sdks.openai_url, api_key=sdks.key, max_retries=2, timeout=0.3) as client:
        answer = client.chat.completions.with_raw_response.create(
            model="slow", messages=SAYS, extra_headers={"Idempotency-Key": "order-17"}
        )

    assert answer.retries_taken > 0
    assert answer.headers["idempotent-replayed"] == "true"
    assert answer.parse().choices[0].message.content
    assert len(sdks.simulator.journal()) == 1


def test_the_how_to_runs_as_pasted(
    sdks: Sdks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".nightdesk").mkdir()
    card = {"base_url": sdks.url, "api_key": sdks.key}
    (tmp_path / ".nightdesk" / "local.json").write_text(json.dumps(card))
    monkeypatch.chdir(tmp_path)
    _, _, rest = (ROOT / "docs" / "how-to" / "use-official-sdks.md").read_text().partition("```python\n")
    names: dict[str, Any] = {}

    exec(rest.partition("```")[0], names)  # noqa: S102 (our own words)
    names["openai"].close()
    names["anthropic"].close()

    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].rpartition(" ")[2].startswith("req_")
    assert len([line for line in lines if line]) >= 4
