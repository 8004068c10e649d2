"""The vendors' official clients, reading our bytes without a server in between."""

from collections.abc import Iterable
from typing import Any

import httpx2
from anthropic import Anthropic
from openai import OpenAI

SAYS: Any = [{"role": "user", "content": "Hello"}]


def openai_client(body: bytes | Iterable[bytes], status: int = 200) -> OpenAI:
    """Return OpenAI's client; every response is this one."""
    return OpenAI(api_key="k", max_retries=0, http_client=httpx2.Client(transport=_answering(body, status)))


def anthropic_client(body: bytes | Iterable[bytes], status: int = 200) -> Anthropic:
    """Return Anthropic's client; every response is this one."""
    return Anthropic(api_key="k", max_retries=0, http_client=httpx2.Client(transport=_answering(body, status)))


def _answering(body: bytes | Iterable[bytes], status: int) -> httpx2.MockTransport:
    kind = "application/json" if isinstance(body, bytes) else "text/event-stream; charset=utf-8"
    return httpx2.MockTransport(
        lambda _: httpx2.Response(status, headers={"content-type": kind, "request-id": "req_1"}, content=body)
    )
