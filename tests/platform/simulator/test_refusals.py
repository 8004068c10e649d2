"""What the providers refuse, as the official clients see it: statuses, codes, types."""

from typing import Any

import anthropic as anthropic_sdk
import httpx
import openai as openai_sdk
import pytest
from anthropic import Anthropic
from openai import AzureOpenAI, OpenAI

from tests.simulator_process import SimulatorProcess

HELLO: Any = [{"role": "user", "content": "Hello"}]
CLAUDE = "claude-haiku-4-5"
GPT = "gpt-4o-mini"

OPENAI_ERRORS = [
    (400, openai_sdk.BadRequestError, "invalid_request_error", None),
    (401, openai_sdk.AuthenticationError, "invalid_request_error", "invalid_api_key"),
    (403, openai_sdk.PermissionDeniedError, "invalid_request_error", "unsupported_country_region_territory"),
    (404, openai_sdk.NotFoundError, "invalid_request_error", "model_not_found"),
    (408, openai_sdk.APIStatusError, "server_error", "request_timeout"),
    (409, openai_sdk.ConflictError, "conflict", None),
    (413, openai_sdk.APIStatusError, "invalid_request_error", None),
    (422, openai_sdk.UnprocessableEntityError, "invalid_request_error", None),
    (429, openai_sdk.RateLimitError, "requests", "rate_limit_exceeded"),
    (500, openai_sdk.InternalServerError, "server_error", None),
    (502, openai_sdk.InternalServerError, "server_error", None),
    (503, openai_sdk.InternalServerError, "service_unavailable_error", "server_is_overloaded"),
    (504, openai_sdk.InternalServerError, "server_error", None),
]

ANTHROPIC_ERRORS: list[tuple[int, type[anthropic_sdk.APIStatusError], str]] = [
    (400, anthropic_sdk.BadRequestError, "invalid_request_error"),
    (401, anthropic_sdk.AuthenticationError, "authentication_error"),
    (402, anthropic_sdk.APIStatusError, "billing_error"),
    (403, anthropic_sdk.PermissionDeniedError, "permission_error"),
    (404, anthropic_sdk.NotFoundError, "not_found_error"),
    (409, anthropic_sdk.ConflictError, "conflict_error"),
    (413, anthropic_sdk.APIStatusError, "request_too_large"),
    (429, anthropic_sdk.RateLimitError, "rate_limit_error"),
    (500, anthropic_sdk.InternalServerError, "api_error"),
    (503, anthropic_sdk.InternalServerError, "api_error"),
    (504, anthropic_sdk.InternalServerError, "timeout_error"),
    (529, anthropic_sdk.InternalServerError, "overloaded_error"),
]


def ask_openai(client: OpenAI, **wanted: Any) -> Any:
    return client.chat.completions.create(**{"model": GPT, "messages": HELLO, **wanted})


def ask_anthropic(client: Anthropic, **wanted: Any) -> Any:
    return client.messages.create(**{"model": CLAUDE, "max_tokens": 100, "messages": HELLO, **wanted})


@pytest.mark.parametrize(("status", "kind", "error_type", "code"), OPENAI_ERRORS)
def test_every_status_is_openais_error(
    openai: OpenAI, status: int, kind: type[openai_sdk.APIStatusError], error_type: str, code: str | None
) -> None:
    with pytest.raises(kind) as raised:
        ask_openai(openai, model=f"{GPT}@status={status}")

    assert raised.value.status_code == status
    assert raised.value.request_id
    assert set(raised.value.body or ()) == {"message", "type", "param", "code"}  # type: ignore[call-overload]
    assert (raised.value.type, raised.value.code) == (error_type, code)


@pytest.mark.parametrize(("status", "kind", "error_type"), ANTHROPIC_ERRORS)
def test_every_status_is_anthropics_error(
    anthropic: Anthropic, status: int, kind: type[anthropic_sdk.APIStatusError], error_type: str
) -> None:
    with pytest.raises(kind) as raised:
        ask_anthropic(anthropic, model=f"{CLAUDE}@status={status}")

    body: Any = raised.value.body
    assert raised.value.status_code == status
    assert list(body) == ["type", "error", "request_id"]
    assert body["type"] == "error"
    assert body["error"]["type"] == error_type
    assert body["request_id"] == raised.value.response.headers["request-id"]


@pytest.mark.parametrize("stream", [False, True])
def test_errors_come_before_a_stream_as_json(openai: OpenAI, stream: bool) -> None:
    with pytest.raises(openai_sdk.RateLimitError) as raised:
        ask_openai(openai, model=f"{GPT}@status=429", stream=stream)

    assert raised.value.response.headers["content-type"] == "application/json"
    assert raised.value.response.headers["retry-after"] == "1"


def test_code_message_and_retry_after_are_set_by_controls(openai: OpenAI) -> None:
    controls = {
        "x-sim-status": "429",
        "x-sim-error-code": "slow_down",
        "x-sim-error-message": "Slow down, please.",
        "x-sim-retry-after": "2.5",
    }

    with pytest.raises(openai_sdk.RateLimitError) as raised:
        ask_openai(openai, extra_headers=controls)

    assert (raised.value.code, raised.value.type) == ("slow_down", "rate_limit_error")
    assert "Slow down, please." in str(raised.value)
    headers = raised.value.response.headers
    assert (headers["retry-after"], headers["retry-after-ms"]) == ("3", "2500")


def test_money_that_is_used_up_has_no_retry_after(simulator: SimulatorProcess) -> None:
    with (
        OpenAI(base_url=simulator.openai_url, api_key="sk-quota-1", max_retries=0) as openai,
        Anthropic(base_url=simulator.url, api_key="sk-quota-1", max_retries=0) as anthropic,
    ):
        with pytest.raises(openai_sdk.RateLimitError) as first:
            ask_openai(openai)
        with pytest.raises(anthropic_sdk.RateLimitError) as second:
            ask_anthropic(anthropic)

    body: Any = second.value.body
    assert (first.value.type, first.value.code) == ("insufficient_quota", "insufficient_quota")
    assert body["error"]["details"] == {"error_code": "enforced_spend_limit_reached"}
    assert "retry-after" not in first.value.response.headers
    assert "retry-after" not in second.value.response.headers


@pytest.mark.parametrize(("key", "status"), [("sk-bad-0123456789-secret", 401), ("sk-forbidden", 403)])
def test_some_keys_are_refused_in_every_dialect_and_never_repeated(
    simulator: SimulatorProcess, key: str, status: int
) -> None:
    with (
        OpenAI(base_url=simulator.openai_url, api_key=key, max_retries=0) as openai,
        Anthropic(base_url=simulator.url, api_key=key, max_retries=0) as anthropic,
    ):
        with pytest.raises(openai_sdk.APIStatusError) as first:
            ask_openai(openai)
        with pytest.raises(anthropic_sdk.APIStatusError) as second:
            ask_anthropic(anthropic)

    assert (first.value.status_code, second.value.status_code) == (status, status)
    assert "0123456789" not in first.value.response.text
    assert "0123456789" not in second.value.response.text
    assert "0123456789" not in str(simulator.journal())


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/v1/chat/completions", {}),
        ("/v1/chat/completions", {"x-api-key": "not OpenAI's header"}),
        ("/v1/chat/completions", {"authorization": "Bearer"}),
        ("/v1/messages", {"anthropic-version": "2023-06-01"}),
        ("/openai/v1/chat/completions", {"x-api-key": "not Azure's header"}),
    ],
)
def test_without_a_key_nothing_is_answered(http: httpx.Client, path: str, headers: dict[str, str]) -> None:
    answer = http.post(path, json={"model": GPT, "messages": HELLO}, headers=headers)

    assert answer.status_code == 401
    assert answer.json()["error"]["message"]


def test_a_missing_model_is_not_found_in_each_dialect(openai: OpenAI, anthropic: Anthropic) -> None:
    with pytest.raises(openai_sdk.NotFoundError) as first:
        ask_openai(openai, model="missing-model")
    with pytest.raises(anthropic_sdk.NotFoundError) as second:
        ask_anthropic(anthropic, model="missing-model")

    body: Any = second.value.body
    assert first.value.code == "model_not_found"
    assert body["error"] == {"type": "not_found_error", "message": "model: missing-model"}


@pytest.mark.parametrize("model", ["tiny-context", f"{GPT}@context=100"])
def test_a_prompt_longer_than_the_context_is_refused(openai: OpenAI, anthropic: Anthropic, model: str) -> None:
    long: Any = [{"role": "user", "content": "word " * 1000}]

    with pytest.raises(openai_sdk.BadRequestError) as first:
        ask_openai(openai, model=model, messages=long)
    with pytest.raises(anthropic_sdk.BadRequestError, match="prompt is too long: 1256 tokens > "):
        ask_anthropic(anthropic, model=model, messages=long)

    assert (first.value.code, first.value.param) == ("context_length_exceeded", "messages")


def test_a_control_that_does_not_exist_is_refused(openai: OpenAI) -> None:
    with pytest.raises(openai_sdk.BadRequestError, match="ttft_seconds"):
        ask_openai(openai, model=f"{GPT}@ttft_seconds=1")
    with pytest.raises(openai_sdk.BadRequestError, match="not an outcome"):
        ask_openai(openai, extra_headers={"x-sim-outcomes": "503,explode"})
    with pytest.raises(openai_sdk.BadRequestError, match="status"):
        ask_openai(openai, extra_headers={"x-sim-status": "200"})


TOOL: Any = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}

REFUSED_CHATS: list[tuple[dict[str, Any], str | None, str | None]] = [
    ({"messages": []}, "invalid_value", "messages"),
    ({"messages": [{"role": "wizard", "content": "x"}]}, "invalid_value", "messages[0].role"),
    ({"temperature": 3}, "invalid_value", "temperature"),
    ({"n": 0}, "invalid_value", "n"),
    ({"stop": ["a", "b", "c", "d", "e"]}, "invalid_value", "stop"),
    ({"max_completion_tokens": 99_999}, "invalid_value", "max_tokens"),
    ({"extra_body": {"no_such_field": 1}}, None, None),
    ({"model": "o3", "max_tokens": 5}, "unsupported_parameter", "max_tokens"),
    ({"tool_choice": "required"}, None, "tool_choice"),
    ({"stream_options": {"include_usage": True}}, None, "stream_options"),
    ({"top_logprobs": 2}, None, "top_logprobs"),
    ({"model": "gpt-6-luna", "tools": [TOOL], "reasoning_effort": "low"}, None, "reasoning_effort"),
    ({"model": "gpt-6-astra", "tools": [TOOL]}, None, "reasoning_effort"),
    ({"model": "gpt-6.1-sol", "reasoning_effort": "none"}, "unsupported_value", "reasoning_effort"),
    ({"model": "gpt-6-luna", "temperature": 0.5, "reasoning_effort": "high"}, "unsupported_value", "temperature"),
    ({"messages": [{"role": "tool", "tool_call_id": "x", "content": "y"}]}, None, "messages[0].role"),
    ({"tools": [{"type": "function", "function": {"name": "not a name"}}]}, "invalid_value", None),
    (
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"type": "array", "minItems": "many"}},
            }
        },
        None,
        None,
    ),
]


@pytest.mark.parametrize(("wanted", "code", "param"), REFUSED_CHATS)
def test_what_openai_refuses_is_refused(
    openai: OpenAI, wanted: dict[str, Any], code: str | None, param: str | None
) -> None:
    with pytest.raises(openai_sdk.BadRequestError) as raised:
        ask_openai(openai, **wanted)

    assert raised.value.type == "invalid_request_error"
    assert raised.value.code == code
    if param is not None:
        assert raised.value.param == param


def test_a_tool_call_without_its_answer_is_refused(openai: OpenAI, anthropic: Anthropic) -> None:
    call: Any = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    use: Any = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}

    with pytest.raises(openai_sdk.BadRequestError, match="call_1"):
        ask_openai(openai, messages=[*HELLO, {"role": "assistant", "tool_calls": [call]}, *HELLO])
    with pytest.raises(anthropic_sdk.BadRequestError, match="toolu_1"):
        ask_anthropic(anthropic, messages=[*HELLO, {"role": "assistant", "content": [use]}, *HELLO])


def test_an_answered_tool_call_is_taken(openai: OpenAI, anthropic: Anthropic) -> None:
    call: Any = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    use: Any = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}
    result: Any = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "done"}

    chat = [
        *HELLO,
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "done"},
    ]
    messages = [*HELLO, {"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]

    assert ask_openai(openai, messages=chat).choices[0].message.content
    assert ask_anthropic(anthropic, messages=messages).content


CLAUDE_TOOL: Any = {"name": "f", "input_schema": {"type": "object"}}

REFUSED_MESSAGES: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "assistant", "content": "x"}]}, "first message"),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]}, "non-empty"),
    ({"extra_body": {"no_such_field": 1}}, "no_such_field: Extra inputs"),
    ({"extra_body": {"max_tokens": -1}}, "max_tokens"),
    ({"max_tokens": 100_000}, "max_tokens: 100000 > 64000"),
    ({"tool_choice": {"type": "any"}}, "tools"),
    ({"tools": [CLAUDE_TOOL], "tool_choice": {"type": "tool", "name": "g"}}, "'g' not found"),
    ({"model": "claude-sonnet-5-5", "tools": [CLAUDE_TOOL], "tool_choice": {"type": "any"}}, "not supported"),
    ({"model": "claude-opus-5-5", "thinking": {"type": "disabled"}}, "cannot be disabled"),
    ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, "greater than"),
    (
        {"model": "claude-sonnet-5", "max_tokens": 9000, "thinking": {"type": "enabled", "budget_tokens": 2048}},
        "adaptive",
    ),
    (
        {
            "model": "claude-sonnet-5",
            "extra_body": {"temperature": 0.3},
            "extra_headers": {"anthropic-version": "2023-06-01"},
        },
        "default",
    ),
    (
        {
            "messages": [
                *HELLO,
                {
                    "role": "assistant",
                    "content": [
                        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}}
                    ],
                },
                *HELLO,
            ]
        },
        "document blocks",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "citations": [{"type": "x"}]}]}]},
        "citations",
    ),
    ({"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "z"}]}]}, "z"),
]


@pytest.mark.parametrize(("wanted", "match"), REFUSED_MESSAGES)
def test_what_anthropic_refuses_is_refused(anthropic: Anthropic, wanted: dict[str, Any], match: str) -> None:
    with pytest.raises(anthropic_sdk.BadRequestError, match=match) as raised:
        ask_anthropic(anthropic, **wanted)

    body: Any = raised.value.body
    assert body["error"]["type"] == "invalid_request_error"


def test_anthropic_wants_a_version(http: httpx.Client) -> None:
    answer = http.post("/v1/messages", json={"model": CLAUDE, "messages": HELLO}, headers={"x-api-key": "a"})

    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "anthropic-version: header is required"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"[]",
        b'"text"',
        b"{}",
        b'{"model": 1}',
        b'{"model": "\xff"}',
        b"[" * 20_000,
        b'{"a":' * 10_000,
    ],
    ids=["empty", "nonsense", "list", "string", "nothing", "number", "not UTF-8", "deep list", "deep object"],
)
@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/messages", "/v1/messages/count_tokens", "/v1/embeddings"]
)
def test_a_broken_body_is_the_callers_fault(http: httpx.Client, path: str, body: bytes) -> None:
    headers = (
        {"authorization": "Bearer a", "anthropic-version": "2023-06-01"}
        if "messages" in path
        else {"authorization": "Bearer a"}
    )

    answer = http.post(path, content=body, headers=headers)

    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/chat/completions"), ("POST", "/v1/nothing"), ("POST", "/v2/chat/completions")]
)
def test_an_unknown_address_is_not_found(
    http: httpx.Client, simulator: SimulatorProcess, method: str, path: str
) -> None:
    answer = http.request(method, path, headers={"authorization": "Bearer a"})

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "unknown_url"
    assert simulator.journal()[-1]["outcome"] == "error"


def test_a_body_beyond_the_limit_is_too_large(http: httpx.Client) -> None:
    headers = {"x-api-key": "a", "anthropic-version": "2023-06-01"}

    answer = http.post("/v1/messages", content=b" " * (33 * 1024 * 1024), headers=headers, timeout=20)

    assert answer.status_code == 413
    assert answer.json()["error"]["type"] == "request_too_large"


def azure(simulator: SimulatorProcess, key: str = "azure-key") -> AzureOpenAI:
    return AzureOpenAI(azure_endpoint=simulator.url, api_key=key, api_version="2024-10-21", max_retries=0)


def test_azures_dated_surface_answers_with_its_filters(simulator: SimulatorProcess) -> None:
    with azure(simulator) as client:
        answer = client.chat.completions.create(model=GPT, messages=HELLO)
        chunks = list(client.chat.completions.create(model=GPT, messages=HELLO, stream=True))

    text = answer.choices[0].message.content
    assert (answer.model_extra or {})["prompt_filter_results"]
    assert (answer.choices[0].model_extra or {})["content_filter_results"]["hate"]["filtered"] is False
    assert chunks[0].choices == []
    assert (chunks[0].model_extra or {})["prompt_filter_results"]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[1:]) == text
    assert {entry["dialect"] for entry in simulator.journal()} == {"azure"}
    assert {entry["path"] for entry in simulator.journal()} == {f"/openai/deployments/{GPT}/chat/completions"}


def test_azures_newer_surface_is_openais_with_another_header(http: httpx.Client) -> None:
    answer = http.post(
        "/openai/v1/chat/completions",
        json={"model": GPT, "messages": HELLO},
        headers={"api-key": "azure-key"},
    )

    assert answer.status_code == 200
    assert answer.headers["apim-request-id"]
    assert answer.headers["x-ratelimit-reset-requests"].isdecimal()
    assert answer.json()["choices"][0]["message"]["content"]


def test_azures_refusals_are_its_own(simulator: SimulatorProcess) -> None:
    with azure(simulator) as client:
        with pytest.raises(openai_sdk.NotFoundError) as missing:
            client.chat.completions.create(model="missing-one", messages=HELLO)
        with pytest.raises(openai_sdk.RateLimitError) as limited:
            client.chat.completions.create(model=f"{GPT}@status=429", messages=HELLO)
        with pytest.raises(openai_sdk.BadRequestError) as filtered:
            client.chat.completions.create(model=f"{GPT}@status=400,error_code=content_filter", messages=HELLO)
    with azure(simulator, "sk-bad") as client, pytest.raises(openai_sdk.AuthenticationError) as denied:
        client.chat.completions.create(model=GPT, messages=HELLO)

    assert missing.value.code == "DeploymentNotFound"
    assert limited.value.code == "429"
    assert limited.value.response.headers["retry-after"] == "1"
    assert denied.value.code == "401"
    inner: Any = filtered.value.body
    assert inner["code"] == "content_filter"
    assert inner["innererror"]["code"] == "ResponsibleAIPolicyViolation"


def test_azures_dated_surface_wants_a_version(http: httpx.Client) -> None:
    answer = http.post(
        "/openai/deployments/{GPT}/chat/completions",
        json={"messages": HELLO},
        headers={"api-key": "a"},
    )

    assert answer.status_code == 404
