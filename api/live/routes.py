"""The addresses of the live path."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

from django.conf import settings

from api.live import job_events, model_endpoints, stream_endpoints, wire_formats
from api.live.http_handler import Handler
from api.live.infer import InferenceEndpoint, create_stream
from api.live.metrics import send_metrics
from api.live.wire_formats import WireFormat
from tenants.access import TokenScope

EXACT_ROUTES: Mapping[tuple[str, str], Handler] = {
    ("POST", "/v1/chat/completions"): InferenceEndpoint(
        "chat_completions", WireFormat.OPENAI, TokenScope.CHAT_WRITE, wire_formats.parse_chat
    ),
    ("POST", "/v1/embeddings"): InferenceEndpoint(
        "embeddings", WireFormat.OPENAI, TokenScope.EMBEDDINGS_WRITE, wire_formats.parse_embeddings
    ),
    ("POST", "/v1/messages"): InferenceEndpoint(
        "messages", WireFormat.ANTHROPIC, TokenScope.CHAT_WRITE, wire_formats.parse_messages
    ),
    ("POST", "/v1/messages/count_tokens"): model_endpoints.count_tokens,
    ("POST", "/v1/chat"): InferenceEndpoint(
        "chat", WireFormat.WORDPRESS, TokenScope.CHAT_WRITE, wire_formats.parse_wordpress
    ),
    ("POST", "/api/v1/chat"): InferenceEndpoint(
        "envelope", WireFormat.ENVELOPE, TokenScope.CHAT_WRITE, wire_formats.parse_envelope
    ),
    ("POST", "/v1/streams"): create_stream,
    ("GET", "/v1/models"): model_endpoints.list_models,
    ("GET", "/metrics"): send_metrics,
}

ParameterHandler: TypeAlias = Callable[..., Any]

#: With a name in the path, which the handler is given.
PARAMETER_ROUTES: tuple[tuple[str, re.Pattern[str], ParameterHandler], ...] = (
    ("GET", re.compile(r"/v1/models/(.{1,200})"), model_endpoints.get_model),
    ("GET", re.compile(r"/v1/streams/([^/]{1,64})/events"), stream_endpoints.read_stream),
    ("GET", re.compile(r"/v1/jobs/([^/]{1,64})/events"), job_events.read_job),
    ("DELETE", re.compile(r"/v1/streams/([^/]{1,64})"), stream_endpoints.cancel_stream),
)

_PATHS = frozenset(path for _, path in EXACT_ROUTES)


def find_handler(method: str, path: str) -> Handler | None:
    """Return who answers a live address; None for all others, which Django answers."""
    if (handler := EXACT_ROUTES.get((method, path))) is not None:
        return handler
    for wanted, form, named in PARAMETER_ROUTES:
        if method == wanted and (match := form.fullmatch(path)):
            return partial(_call_with_parameter, named, match[1])
    return None


def max_body_bytes(path: str) -> int:
    """Return how many bytes a body may have."""
    return int(settings.MAX_LIVE_BODY_BYTES if path in _PATHS else settings.MAX_BODY_BYTES)


async def _call_with_parameter(handler: ParameterHandler, name: str, http_request: Any, response: Any) -> None:
    await handler(http_request, response, name)
