"""A client of the API for tests."""

import json
from typing import Any, cast

from django.http import HttpResponse
from django.test import Client

from core import clock
from tenants.credentials import NewSite
from tests.request_signing import bearer, signed

CHAT: dict[str, Any] = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "Hello"}]}
JOB: dict[str, Any] = {"kind": "chat", "body": CHAT}


class Caller:
    """Sends requests, authenticated with the API key of a site."""

    def __init__(self, made: NewSite | None) -> None:
        self.made = made
        self.client = Client(raise_request_exception=False)

    def get(self, path: str, **headers: str) -> HttpResponse:
        return self.call("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> HttpResponse:
        return self.call("POST", path, body, **headers)

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> HttpResponse:
        """Send a request. A body that is not bytes is sent as JSON. Header names have underscores."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        kind = headers.pop("content_type", "application/json")
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        credentials = (
            bearer(self.made.api_key.secret) if self.made and not {"x-signature", "authorization"} & set(named) else {}
        )
        return cast(HttpResponse, self.client.generic(method, path, data, kind, headers={**credentials, **named}))

    def post_signed(self, path: str, body: bytes, **changed: str) -> HttpResponse:
        """Send a signed request; `changed` replaces headers after signing."""
        assert self.made is not None
        headers = {**signed(self.made, "POST", path, body), **{k.replace("_", "-"): v for k, v in changed.items()}}
        return cast(HttpResponse, self.client.generic("POST", path, body, "application/json", headers=headers))


def job_body(**changes: Any) -> dict[str, Any]:
    """Return a job's body with changes; a field with the value `...` is omitted."""
    return {name: value for name, value in {**JOB, **changes}.items() if value is not ...}


def error_of(response: HttpResponse) -> dict[str, Any]:
    """Return the error of a response, after checking its structure."""
    assert response["Content-Type"] == "application/json", response.content[:200]
    found: dict[str, Any] = json.loads(response.content)
    assert set(found) == {"error"}
    assert set(found["error"]) == {"type", "code", "message", "param", "request_id"}
    assert found["error"]["request_id"] == response["X-Request-ID"]
    assert found["error"]["message"]
    return dict(found["error"])


def in_a_minute() -> int:
    return clock.unix_seconds() + 60
