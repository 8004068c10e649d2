"""CORS: what pages of other origins may request and read."""

from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import httpx
import pytest
from django.db import Error, InterfaceError, OperationalError

from api.live import infer
from tests.api.live.conftest import Live

PAGE, OTHER = "https://bakery.example", "https://evil.example"
CHAT: dict[str, Any] = {"model": "openai-chat", "messages": [{"role": "user", "content": "Hello"}], "stream": True}


@pytest.fixture
def page(live: Live) -> Live:
    """A site with an allowed origin."""
    live.made.site.origins = [PAGE]
    live.made.site.save()
    return live


def narrow_token(live: Live, **wanted: Any) -> str:
    body = {"scope": "chat:write streams:read streams:write", "origin": PAGE, **wanted}
    answer = live.post("/v1/tokens", body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["token"])


def ask(live: Live, token: str, origin: str | None, path: str = "/v1/chat/completions") -> httpx.Response:
    headers = {"authorization": f"Bearer {token}"} | ({"origin": origin} if origin else {})
    return httpx.post(f"{live.url}{path}", json=CHAT, headers=headers, timeout=20)


def test_a_page_of_the_site_may_read_the_response_and_its_headers(page: Live) -> None:
    answer = ask(page, narrow_token(page), PAGE)

    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert "X-Request-ID" in answer.headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in answer.headers
    assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize("origin", [OTHER, None, "null"])
def test_a_token_bound_to_an_origin_is_refused_from_other_origins(page: Live, origin: str | None) -> None:
    answer = ask(page, narrow_token(page), origin)

    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers
    assert page.simulator.journal() == []


def test_a_page_may_read_the_error_of_its_refused_request(page: Live) -> None:
    answer = ask(page, "nd_wrong", PAGE)

    assert answer.status_code == 401
    assert answer.headers["access-control-allow-origin"] == PAGE


def test_a_stream_that_a_page_started_is_read_only_by_that_page(page: Live) -> None:
    started = ask(page, narrow_token(page), PAGE, "/v1/streams").json()
    events = f"{page.url}/v1/streams/{started['id']}/events"
    ticket = {"authorization": f"Bearer {started['ticket']}"}

    read = httpx.get(events, headers={**ticket, "origin": PAGE}, timeout=20)
    refused = httpx.get(events, headers={**ticket, "origin": OTHER}, timeout=20)

    assert "[DONE]" in read.text
    assert (refused.status_code, "access-control-allow-origin" in refused.headers) == (403, False)


def test_a_preflight_is_allowed_only_for_origins_of_sites(page: Live) -> None:
    preflight = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }

    known = httpx.options(f"{page.url}/v1/chat/completions", headers={**preflight, "origin": PAGE})
    unknown = httpx.options(f"{page.url}/v1/chat/completions", headers={**preflight, "origin": OTHER})

    assert (known.status_code, known.headers["access-control-allow-origin"]) == (204, PAGE)
    assert (unknown.status_code, "access-control-allow-origin" in unknown.headers) == (403, False)


def test_a_narrow_token_reads_and_cancels_only_its_own_streams(page: Live) -> None:
    mine, other = narrow_token(page), narrow_token(page)
    stream_id = ask(page, mine, PAGE, "/v1/streams").json()["id"]

    def read(token: str, method: str = "GET", path: str = "/events") -> int:
        headers = {"authorization": f"Bearer {token}", "origin": PAGE}
        return httpx.request(
            method, f"{page.url}/v1/streams/{stream_id}{path}", headers=headers, timeout=20
        ).status_code

    assert (read(mine), read(other), read(page.key)) == (200, 404, 200)
    assert (read(other, "DELETE", ""), read(mine, "DELETE", "")) == (404, 200)


@pytest.mark.parametrize("error", [OperationalError("no connection"), InterfaceError("connection already closed")])
async def test_an_error_is_sent_although_the_database_cannot_confirm_the_origin(
    monkeypatch: pytest.MonkeyPatch, error: Error
) -> None:
    monkeypatch.setattr(infer, "live_runtime", AsyncMock())
    monkeypatch.setattr(infer, "is_site_origin", AsyncMock(side_effect=error))
    context: Any = SimpleNamespace(http_request=SimpleNamespace(origin=PAGE), origin=None)

    await infer._allow_origin_for_error(context)

    assert context.origin is None
