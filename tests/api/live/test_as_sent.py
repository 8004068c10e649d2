"""Every field of a caller reaches a provider of the same dialect unchanged, known to the gateway or not."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from inference.models import ProviderAccount
from tenants.models import Limit
from tests.api.live.conftest import Live
from tests.api.live.test_stream_endpoints import lines_of
from tests.factories import make_provider, make_route
from tests.platform.providers.vendors import recorded
from tests.request_signing import token

FILES = {"/v1/chat/completions": "openai/chat_text", "/v1/messages": "anthropic/messages_text"}

HELLO: Any = {"role": "user", "content": [{"type": "text", "text": "Hello", "x_weight": 0.5}], "x_note": [1, None]}
OPENAI_BODY: dict[str, Any] = {
    "model": "passthrough",
    "messages": [{"role": "developer", "content": "Be brief.", "name": "boss"}, HELLO],
    "n": 1,
    "logprobs": True,
    "prediction": {"type": "content", "content": "x"},
    "service_tier": "flex",
    "metadata": {"k": "v"},
    "tools": [{"type": "function", "function": {"name": "f", "x_cost": 1}, "x_cache": True}],
    "vendor_setting": {"deep": [{"er": True}]},
}
ANTHROPIC_BODY: dict[str, Any] = {
    "model": "passthrough",
    "max_tokens": 50,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "messages": [HELLO],
    "top_k": 5,
    "mcp_servers": [{"type": "url", "url": "https://x.test", "name": "x"}],
    "tools": [{"type": "mcp_toolset", "mcp_server_name": "x"}],
    "beta_setting": True,
}


@dataclass
class Vendor:
    """A provider that sends recorded answers and records its requests."""

    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


@pytest.fixture
def vendor() -> Iterator[Vendor]:
    vendor = Vendor()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # noqa: N802 (the library's name)
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            vendor.bodies.append(body)
            vendor.headers.append({name.lower(): value for name, value in self.headers.items()})
            kind = "sse" if body.get("stream") else "json"
            answer = recorded(f"{FILES[self.path]}.{kind}")
            self.send_response(200)
            self.send_header("content-type", "text/event-stream" if kind == "sse" else "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    vendor.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield vendor
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def passthrough(live: Live, vendor: Vendor) -> Live:
    openai = make_provider("openai-itself", base_url=f"{vendor.url}/v1")
    anthropic = make_provider("anthropic-itself", dialect="anthropic", base_url=vendor.url, price_list="anthropic")
    make_route("passthrough", (openai, "gpt-4o"), (anthropic, "claude-opus-4-5"))
    make_route("passthrough-anthropic", (anthropic, "claude-opus-4-5"))
    return live


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/chat", "/api/v1/chat"])
@pytest.mark.parametrize("stream", [False, True])
def test_every_field_of_an_openai_body_reaches_the_provider(
    passthrough: Live, vendor: Vendor, path: str, stream: bool
) -> None:
    ours = {"provider": "openai-itself", "request_id": "r-1"} if path == "/api/v1/chat" else {}
    answer = passthrough.post(path, {**OPENAI_BODY, **ours, "stream": stream})

    delivery = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    assert answer.status_code == 200, answer.text
    assert vendor.bodies == [{**OPENAI_BODY, "model": "gpt-4o", **delivery}]


@pytest.mark.parametrize("stream", [False, True])
def test_every_field_of_an_anthropic_body_reaches_the_provider_with_version_and_betas(
    passthrough: Live, vendor: Vendor, stream: bool
) -> None:
    said = {"anthropic_version": "2023-06-01", "anthropic_beta": "mcp-client-2025-11-20,other"}
    answer = passthrough.post(
        "/v1/messages", {**ANTHROPIC_BODY, "model": "passthrough-anthropic", "stream": stream}, **said
    )

    delivery = {"stream": True} if stream else {}
    assert answer.status_code == 200, answer.text
    assert vendor.bodies == [{**ANTHROPIC_BODY, "model": "claude-opus-4-5", **delivery}]
    (headers,) = vendor.headers
    assert (headers["anthropic-version"], headers["anthropic-beta"]) == ("2023-06-01", "mcp-client-2025-11-20,other")
    assert passthrough.key not in str(headers)


def test_the_newer_version_header_is_forwarded(passthrough: Live, vendor: Vendor) -> None:
    body = {"model": "passthrough-anthropic", "max_tokens": 50, "messages": [HELLO]}

    passthrough.post("/v1/messages", body, anthropic_version="2026-10-21")

    assert vendor.headers[0]["anthropic-version"] == "2026-10-21"


def test_a_target_of_another_dialect_is_skipped(passthrough: Live, vendor: Vendor) -> None:
    answer = passthrough.post("/v1/messages", {**ANTHROPIC_BODY, "stream": True}, anthropic_version="2023-06-01")

    assert answer.status_code == 200, answer.text
    assert lines_of(answer.text, "event")[-1] == "message_stop"
    assert [event.provider for event in passthrough.usage(1)] == ["anthropic-itself"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/chat/completions", {"n": 2}, "n"),
        ("/v1/chat/completions", {"logprobs": True, "stream": True}, "logprobs"),
        ("/v1/chat", {"no_such_field": 1}, "no_such_field"),
        ("/api/v1/chat", {"modalities": ["audio"]}, "modalities"),
        ("/v1/streams", {"n": 2}, "n"),
    ],
)
def test_a_field_that_no_provider_supports_is_named_and_no_call_is_made(
    passthrough: Live, vendor: Vendor, path: str, body: dict[str, Any], param: str
) -> None:
    answer = passthrough.post(path, {"model": "passthrough-anthropic", "messages": [HELLO], **body})

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
    assert vendor.bodies == []


def test_an_invalid_body_is_rejected_before_a_call(passthrough: Live, vendor: Vendor) -> None:
    for field_, value in (("n", 0), ("top_logprobs", 99), ("temperature", 9), ("logit_bias", [1])):
        answer = passthrough.post("/v1/chat/completions", {"model": "passthrough", "messages": [HELLO], field_: value})

        assert (answer.status_code, answer.json()["error"]["param"]) == (400, field_)
    assert vendor.bodies == []


def test_a_cached_answer_is_for_exactly_the_same_body(passthrough: Live, vendor: Vendor) -> None:
    plain = {"model": "passthrough", "messages": [HELLO]}
    bodies = [plain, {**plain, "vendor_setting": 1}, {**plain, "vendor_setting": 2}, {**plain, "service_tier": "flex"}]

    first = [passthrough.post("/v1/chat/completions", body).headers["x-cache"] for body in bodies]
    again = [passthrough.post("/v1/chat/completions", body).headers["x-cache"] for body in bodies]

    assert (first, again) == (["MISS"] * 4, ["HIT"] * 4)
    assert len(vendor.bodies) == 4


def test_tokens_are_reserved_for_each_choice(live: Live) -> None:
    Limit.objects.create(site=live.made.site, tokens_per_minute=1_000)
    body = {"model": "openai-chat", "messages": [HELLO], "max_tokens": 400, "stream": False}

    once, twice = live.post("/v1/chat/completions", body), live.post("/v1/chat/completions", {**body, "n": 3})

    assert once.status_code == 200
    assert (twice.status_code, twice.json()["error"]["param"]) == (400, "max_tokens"), twice.text


def test_a_narrow_token_bounds_all_choices_together(passthrough: Live, vendor: Vendor) -> None:
    narrow = f"Bearer {token(passthrough.made, max_tokens=100)}"
    body = {"model": "passthrough", "messages": [HELLO], "n": 3}

    bounded = passthrough.post("/v1/chat/completions", body, authorization=narrow)
    too_many = passthrough.post("/v1/chat/completions", {**body, "max_tokens": 34}, authorization=narrow)
    none_left = passthrough.post("/v1/chat/completions", {**body, "n": 101}, authorization=narrow)

    assert bounded.status_code == 200, bounded.text
    assert [each["max_completion_tokens"] for each in vendor.bodies] == [33]
    assert {(each.status_code, each.json()["error"]["param"]) for each in (too_many, none_left)} == {
        (400, "max_tokens")
    }


@pytest.mark.parametrize("stream", [False, True])
def test_usage_of_several_choices_is_recorded_to_the_token(live: Live, stream: bool) -> None:
    live.post("/v1/chat/completions", {"model": "openai-chat", "messages": [HELLO], "n": 3, "stream": stream})

    (event,) = live.usage(1)
    (call,) = live.simulator.finished()
    assert (event.input_tokens, event.output_tokens) == (call["input_tokens"], call["output_tokens"])
    assert (event.outcome, event.estimated) == ("ok", False)


@pytest.mark.parametrize("stream", [False, True])
def test_without_usage_every_choice_is_estimated(live: Live, stream: bool) -> None:
    openai = ProviderAccount.objects.get(name="sim-openai")
    make_route("silent", (openai, "gpt-4o-mini@drop_usage,tokens=100"))

    for answers in (1, 3):
        body = {"model": "silent", "messages": [HELLO], "n": answers, "stream": stream}
        assert live.post("/v1/chat/completions", body).status_code == 200

    one, three = live.usage(2)
    assert one.estimated
    assert three.estimated
    assert 100 <= one.output_tokens < 200
    assert 300 <= three.output_tokens < 600
