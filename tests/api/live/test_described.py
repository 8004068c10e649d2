"""The live addresses in the OpenAPI document are those that are served, and say what is answered."""

import json
from datetime import date
from typing import Any

import msgspec
import pytest

from api.errors import LimitReached, problem_of
from api.live import routes, shapes
from api.live.addresses import LIVE, Live
from api.live.edges import Wire, encode_error
from api.schema import document
from providers.dialects import anthropic, openai
from providers.dialects.envelope import encode_envelope
from providers.dialects.model_list import (
    ListedModel,
    anthropic_model,
    anthropic_models,
    openai_model,
    openai_models,
)
from providers.types import Completion, Embeddings, FinishReason, ToolCall, Usage

NAMES = {"{model}": "gpt-5-mini", "{stream_id}": "stm_1", "{job_id}": "job_1"}
COMPLETION = Completion(
    "id", "gpt-5-mini", "Hello", FinishReason.TOOL_CALLS, Usage(3, 1), tool_calls=(ToolCall("call_1", "find", "{}"),)
)
MODEL = ListedModel("gpt-5-mini", "openai")
ERROR = problem_of(LimitReached("Wait.", 3))


def example(live: Live) -> str:
    path = live.path
    for name, value in NAMES.items():
        path = path.replace(name, value)
    return path


@pytest.fixture(scope="module")
def paths() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(document())["paths"]
    return found


@pytest.mark.parametrize("live", LIVE, ids=lambda live: live.name)
def test_what_is_described_is_served(live: Live, paths: dict[str, Any]) -> None:
    assert routes.find(live.method, example(live)) is not None
    assert paths[live.path][live.method.lower()]["operationId"] == live.name


def test_what_is_served_is_described() -> None:
    described = {(live.method, example(live)) for live in LIVE}
    exact = set(routes.EXACT)
    named = [
        [path for asked, path in described - exact if asked == method and form.fullmatch(path)]
        for method, form, _ in routes.NAMED
    ]

    assert exact <= described
    assert all(len(found) == 1 for found in named)
    assert {path for found in named for path in found} == {path for _, path in described - exact}


def test_the_document_says_of_nothing_else_that_it_is_live(paths: dict[str, Any]) -> None:
    described = {(live.method.lower(), live.path) for live in LIVE}

    for path, operations in paths.items():
        for method in operations:
            is_live = routes.find(method.upper(), path) is not None
            assert is_live == ((method, path) in described), (method, path)


@pytest.mark.parametrize(
    ("written", "shape"),
    [
        (openai.encode_completion(COMPLETION, created=1), shapes.ChatCompletion),
        (openai.encode_embeddings(Embeddings("m", ((0.5, 1.0),), Usage(2))), shapes.EmbeddingList),
        (openai.encode_embeddings(Embeddings("m", ((0.5, 1.0),), Usage(2)), "base64"), shapes.EmbeddingList),
        (openai_models([MODEL]), shapes.OpenAIModels),
        (openai_model(MODEL), shapes.OpenAIModel),
        (anthropic.encode_completion(COMPLETION), shapes.Message),
        (anthropic_models([MODEL], {}, today=date(2026, 11, 22)), shapes.AnthropicModels),
        (anthropic_model(MODEL, today=date(2026, 11, 22)), shapes.AnthropicModel),
    ],
)
def test_answers_have_the_shape_that_is_described(written: Any, shape: type[Any]) -> None:
    # Strictly, so that a number is no text.
    msgspec.json.decode(msgspec.json.encode(written), type=shape)


def test_an_answer_in_an_envelope_has_the_shape_that_is_described() -> None:
    body = encode_envelope("id", "openai", "gpt-5-mini", openai.encode_completion(COMPLETION, created=1))

    assert msgspec.json.decode(body, type=shapes.Enveloped).data.choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize(
    ("wire", "shape"), [(Wire.OPENAI, shapes.OpenAIError), (Wire.ANTHROPIC, shapes.AnthropicError)]
)
def test_errors_have_the_shape_of_their_dialect(wire: Wire, shape: type[Any]) -> None:
    assert msgspec.json.decode(encode_error(wire, ERROR, "req_1"), type=shape).error.message == "Wait."


def test_overload_is_told_in_the_words_of_each_dialect(paths: dict[str, Any]) -> None:
    assert "529" in paths["/v1/messages"]["post"]["responses"]
    assert "529" not in paths["/v1/chat/completions"]["post"]["responses"]
    assert "server_is_overloaded" in paths["/v1/chat/completions"]["post"]["responses"]["503"]["description"]
