"""The OpenAPI document lists the live addresses that are routed, with the responses that they send."""

import json
import re
from datetime import date
from typing import Any

import msgspec
import pytest

from api.errors import to_problem
from api.live import response_schemas
from api.live.openapi_operations import LIVE_OPERATIONS, LiveOperation
from api.live.routing import LIVE_ROUTES, LiveRoute
from api.live.wire_formats import WireFormat, encode_error
from api.openapi import openapi_json
from live.errors import RateLimitExceeded
from providers.dialects import anthropic, openai
from providers.dialects.envelope import encode_envelope
from providers.dialects.model_list import (
    ListedModel,
    encode_anthropic_model,
    encode_anthropic_models,
    encode_openai_model,
    encode_openai_models,
)
from providers.types import Completion, Embeddings, FinishReason, ToolCall, Usage

NAMES = {"{model}": "gpt-5-mini", "{stream_id}": "stm_1", "{job_id}": "job_1"}
COMPLETION = Completion(
    "id", "gpt-5-mini", "Hello", FinishReason.TOOL_CALLS, Usage(3, 1), tool_calls=(ToolCall("call_1", "find", "{}"),)
)
MODEL = ListedModel("gpt-5-mini", "openai")
ERROR = to_problem(RateLimitExceeded("Wait.", 3))


def example(live: LiveOperation) -> str:
    path = live.path
    for name, value in NAMES.items():
        path = path.replace(name, value)
    return path


@pytest.fixture(scope="module")
def paths() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(openapi_json())["paths"]
    return found


def find_route(method: str, path: str) -> LiveRoute | None:
    """Return the live route of an address."""
    for route in LIVE_ROUTES:
        is_match = re.fullmatch(route.path if route.has_parameters else re.escape(route.path), path.removeprefix("/"))
        if route.method == method and is_match:
            return route
    return None


@pytest.mark.parametrize("live", LIVE_OPERATIONS, ids=lambda live: live.name)
def test_a_documented_live_operation_is_routed(live: LiveOperation, paths: dict[str, Any]) -> None:
    assert find_route(live.method, example(live)) is not None
    assert paths[live.path][live.method.lower()]["operationId"] == live.name


def test_every_live_route_is_documented_once() -> None:
    documented = [find_route(live.method, example(live)) for live in LIVE_OPERATIONS]

    assert sorted(route.path for route in documented if route) == sorted(route.path for route in LIVE_ROUTES)


def test_the_document_lists_no_other_operation_as_live(paths: dict[str, Any]) -> None:
    described = {(live.method.lower(), live.path) for live in LIVE_OPERATIONS}

    for path, operations in paths.items():
        for method in operations:
            is_live = find_route(method.upper(), path) is not None
            assert is_live == ((method, path) in described), (method, path)


@pytest.mark.parametrize(
    ("written", "shape"),
    [
        (openai.encode_completion(COMPLETION, created=1), response_schemas.ChatCompletion),
        (openai.encode_embeddings(Embeddings("m", ((0.5, 1.0),), Usage(2))), response_schemas.EmbeddingList),
        (openai.encode_embeddings(Embeddings("m", ((0.5, 1.0),), Usage(2)), "base64"), response_schemas.EmbeddingList),
        (encode_openai_models([MODEL]), response_schemas.OpenAIModels),
        (encode_openai_model(MODEL), response_schemas.OpenAIModel),
        (anthropic.encode_completion(COMPLETION), response_schemas.AnthropicMessage),
        (encode_anthropic_models([MODEL], {}, today=date(2026, 11, 22)), response_schemas.AnthropicModels),
        (encode_anthropic_model(MODEL, today=date(2026, 11, 22)), response_schemas.AnthropicModel),
    ],
)
def test_encoded_answers_match_their_schemas(written: Any, shape: type[Any]) -> None:
    # Strict, so that a number does not match a string.
    msgspec.json.decode(msgspec.json.encode(written), type=shape)


def test_an_encoded_envelope_matches_its_schema() -> None:
    body = encode_envelope("id", "openai", "gpt-5-mini", openai.encode_completion(COMPLETION, created=1))

    assert (
        msgspec.json.decode(body, type=response_schemas.EnvelopeResponse).data.choices[0].finish_reason == "tool_calls"
    )


@pytest.mark.parametrize(
    ("wire", "shape"),
    [(WireFormat.OPENAI, response_schemas.OpenAIError), (WireFormat.ANTHROPIC, response_schemas.AnthropicError)],
)
def test_encoded_errors_match_the_schema_of_their_dialect(wire: WireFormat, shape: type[Any]) -> None:
    assert msgspec.json.decode(encode_error(wire, ERROR, "req_1"), type=shape).error.message == "Wait."


def test_overload_has_status_529_only_in_anthropic_s_dialect(paths: dict[str, Any]) -> None:
    assert "529" in paths["/v1/messages"]["post"]["responses"]
    assert "529" not in paths["/v1/chat/completions"]["post"]["responses"]
    assert "server_is_overloaded" in paths["/v1/chat/completions"]["post"]["responses"]["503"]["description"]
