"""What a caller sends reaches a provider of its dialect, all of it, known to the desk or not."""

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
    "model": "asked",
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
    "model": "asked",
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
    """Answers as recorded, and remembers what it was asked."""

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
            """Say nothing."""

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
def asked(live: Live, vendor: Vendor) -> Live:
    openai = make_provider("openai-itself", base_url=f"{vendor.url}/v1")
    anthropic = make_provider("anthropic-itself", dialect="anthropic", base_url=vendor.url, price_list="anthropic")
    make_route("asked", (openai, "gpt-4o"), (anthropic, "claude-opus-4-5"))
    make_route("asked-of-anthropic", (anthropic, "claude-opus-4-5"))
    return live


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/chat", "/api/v1/chat"])
@pytest.mark.parametrize("stream", [False, True])
def test_openai_s_body_arrives_whole(asked: Live, vendor: Vendor, path: str, stream: bool) -> None:
    ours = {"provider": "openai-itself", "request_id": "r-1"} if path == "/api/v1/chat" else {}
    answer = asked.post(path, {**OPENAI_BODY, **ours, "stream": stream})

    delivery = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    assert answer.status_code == 200, answer.text
    assert vendor.bodies == [{**OPENAI_BODY, "model": "gpt-4o", **delivery}]


@pytest.mark.parametrize("stream", [False, True])
def test_anthropic_s_body_arrives_whole_with_its_version_and_betas(asked: Live, vendor: Vendor, stream: bool) -> None:
    said = {"anthropic_version": "2023-06-01", "anthropic_beta": "mcp-client-2025-11-20,other"}
    answer = asked.post("/v1/messages", {**ANTHROPIC_BODY, "model": "asked-of-anthropic", "stream": stream}, **said)

    delivery = {"stream": True} if stream else {}
    assert answer.status_code == 200, answer.text
    assert vendor.bodies == [{**ANTHROPIC_BODY, "model": "claude-opus-4-5", **delivery}]
    (headers,) = vendor.headers
    assert (headers["anthropic-version"], headers["anthropic-beta"]) == ("2023-06-01", "mcp-client-2025-11-20,other")
    assert asked.key not in str(headers)


def test_the_newer_version_is_the_provider_s_to_heed(asked: Live, vendor: Vendor) -> None:
    body = {"model": "asked-of-anthropic", "max_tokens": 50, "messages": [HELLO]}

    asked.post("/v1/messages", body, anthropic_version="2026-10-21")

    assert vendor.headers[0]["anthropic-version"] == "2026-10-21"


def test_a_target_of_another_dialect_is_passed_over(asked: Live, vendor: Vendor) -> None:
    answer = asked.post("/v1/messages", {**ANTHROPIC_BODY, "stream": True}, anthropic_version="2023-06-01")

    assert answer.status_code == 200, answer.text
    assert lines_of(answer.text, "event")[-1] == "message_stop"
    assert [event.provider for event in asked.usage(1)] == ["anthropic-itself"]


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
def test_where_no_provider_can_say_it_the_field_is_named_and_nobody_is_asked(
    asked: Live, vendor: Vendor, path: str, body: dict[str, Any], param: str
) -> None:
    answer = asked.post(path, {"model": "asked-of-anthropic", "messages": [HELLO], **body})

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
    assert vendor.bodies == []


def test_nonsense_is_refused_before_anybody_is_asked(asked: Live, vendor: Vendor) -> None:
    for field_, value in (("n", 0), ("top_logprobs", 99), ("temperature", 9), ("logit_bias", [1])):
        answer = asked.post("/v1/chat/completions", {"model": "asked", "messages": [HELLO], field_: value})

        assert (answer.status_code, answer.json()["error"]["param"]) == (400, field_)
    assert vendor.bodies == []


def test_a_kept_answer_is_for_the_very_same_body(asked: Live, vendor: Vendor) -> None:
    plain = {"model": "asked", "messages": [HELLO]}
    bodies = [plain, {**plain, "vendor_setting": 1}, {**plain, "vendor_setting": 2}, {**plain, "service_tier": "flex"}]

    first = [asked.post("/v1/chat/completions", body).headers["x-cache"] for body in bodies]
    again = [asked.post("/v1/chat/completions", body).headers["x-cache"] for body in bodies]

    assert (first, again) == (["MISS"] * 4, ["HIT"] * 4)
    assert len(vendor.bodies) == 4


def test_tokens_are_reserved_for_each_of_several_answers(live: Live) -> None:
    Limit.objects.create(site=live.made.site, tokens_per_minute=1_000)
    body = {"model": "openai-chat", "messages": [HELLO], "max_tokens": 400, "stream": False}

    once, twice = live.post("/v1/chat/completions", body), live.post("/v1/chat/completions", {**body, "n": 3})

    assert once.status_code == 200
    assert (twice.status_code, twice.json()["error"]["param"]) == (400, "max_tokens"), twice.text


def test_a_narrow_token_bounds_all_answers_together(asked: Live, vendor: Vendor) -> None:
    narrow = f"Bearer {token(asked.made, max_tokens=100)}"
    body = {"model": "asked", "messages": [HELLO], "n": 3}

    bounded = asked.post("/v1/chat/completions", body, authorization=narrow)
    too_many = asked.post("/v1/chat/completions", {**body, "max_tokens": 34}, authorization=narrow)
    none_left = asked.post("/v1/chat/completions", {**body, "n": 101}, authorization=narrow)

    assert bounded.status_code == 200, bounded.text
    assert [each["max_completion_tokens"] for each in vendor.bodies] == [33]
    assert {(each.status_code, each.json()["error"]["param"]) for each in (too_many, none_left)} == {
        (400, "max_tokens")
    }


@pytest.mark.parametrize("stream", [False, True])
def test_several_answers_are_accounted_for_to_the_token(live: Live, stream: bool) -> None:
    live.post("/v1/chat/completions", {"model": "openai-chat", "messages": [HELLO], "n": 3, "stream": stream})

    (event,) = live.usage(1)
    (call,) = live.simulator.finished()
    assert (event.input_tokens, event.output_tokens) == (call["input_tokens"], call["output_tokens"])
    assert (event.outcome, event.estimated) == ("ok", False)


@pytest.mark.parametrize("stream", [False, True])
def test_without_usage_all_of_several_answers_are_estimated(live: Live, stream: bool) -> None:
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
