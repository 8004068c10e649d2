"""One HTTP call as received, and the API surface of the provider that it addresses."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

from simulator.errors import Dialect

AsgiScope: TypeAlias = dict[str, Any]
AsgiReceive: TypeAlias = Callable[[], Awaitable[dict[str, Any]]]

#: Anthropic's limit; those of the others are similar.
MAX_BODY_BYTES = 32 * 1024 * 1024


class Endpoint(StrEnum):
    CHAT = "chat"
    MESSAGES = "messages"
    COUNT_TOKENS = "count_tokens"
    EMBEDDINGS = "embeddings"
    MODELS = "models"
    MODEL = "model"


#: What OpenAI serves under /v1, Azure serves under /openai/v1 and, dated, under each deployment.
ENDPOINTS: dict[str, tuple[str, Endpoint]] = {
    "/chat/completions": ("POST", Endpoint.CHAT),
    "/embeddings": ("POST", Endpoint.EMBEDDINGS),
    "/messages": ("POST", Endpoint.MESSAGES),
    "/messages/count_tokens": ("POST", Endpoint.COUNT_TOKENS),
    "/models": ("GET", Endpoint.MODELS),
}
ROOT = re.compile(r"(?:/openai)?/v1(?=/)|/openai/deployments/([^/]+)")
ONE_MODEL = re.compile(r"/models/(.+)")

#: Endpoints whose calls name a model; faults apply to them.
INFERENCE = frozenset((Endpoint.CHAT, Endpoint.MESSAGES, Endpoint.COUNT_TOKENS, Endpoint.EMBEDDINGS))


@dataclass(frozen=True, slots=True)
class Call:
    method: str
    path: str
    query: dict[str, str]
    raw_headers: list[tuple[bytes, bytes]]
    headers: dict[bytes, bytes]
    body: bytes
    is_too_large: bool = False

    def header(self, name: bytes) -> str | None:
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")


@dataclass(frozen=True, slots=True)
class ApiSurface:
    dialect: Dialect
    #: None if nothing is served there, or not with this method.
    endpoint: Endpoint | None
    #: The deployment or the model named in the path.
    name: str = ""
    #: Azure's older surface, which requires an `api-version`.
    is_dated: bool = False


async def read_call(scope: AsgiScope, receive: AsgiReceive) -> Call | None:
    """Return the call with its complete body; None if the client disconnected first."""
    body = bytearray()
    is_too_large = False
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        is_too_large = is_too_large or len(body) + len(message["body"]) > MAX_BODY_BYTES
        if not is_too_large:
            body += message["body"]
        if not message["more_body"]:
            break
    query = dict(parse_qsl(scope["query_string"].decode("latin-1"))) if scope["query_string"] else {}
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    return Call(scope["method"], scope["path"], query, headers, dict(headers), bytes(body), is_too_large)


def surface_for(call: Call) -> ApiSurface:
    return _surface(call.method, call.path, b"anthropic-version" in call.headers)


def api_key_of(dialect: Dialect, headers: dict[bytes, bytes]) -> bytes:
    """Return the caller's API key, empty if none. Azure and Anthropic accept a bearer token beside their own header."""
    bearer = headers.get(b"authorization", b"")
    own = {Dialect.ANTHROPIC: b"x-api-key", Dialect.AZURE: b"api-key"}.get(dialect)
    if own is not None and (key := headers.get(own, b"").strip()):
        return key
    scheme, _, key = bearer.partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else b""


@lru_cache(maxsize=4096)
def hash_api_key(key: bytes) -> str:
    return sha256(key).hexdigest() if key else ""


@lru_cache(maxsize=1024)
def _surface(method: str, path: str, names_version: bool) -> ApiSurface:
    dialect = _dialect_of(path, names_version)
    root = ROOT.match(path)
    if root is None:
        return ApiSurface(dialect, None)
    rest = path[root.end() :].rstrip("/")
    deployment = root[1] or ""
    if rest in ENDPOINTS:
        expected, endpoint = ENDPOINTS[rest]
        return ApiSurface(dialect, endpoint if method == expected else None, deployment, is_dated=bool(deployment))
    if method == "GET" and (one := ONE_MODEL.fullmatch(rest)):
        return ApiSurface(dialect, Endpoint.MODEL, one[1])
    return ApiSurface(dialect, None)


def _dialect_of(path: str, names_version: bool) -> Dialect:
    if path.startswith("/openai/"):
        return Dialect.AZURE
    if names_version or path.startswith("/v1/messages"):
        return Dialect.ANTHROPIC
    return Dialect.OPENAI
