"""The addresses of the live path."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

from django.conf import settings

from api.live import edges, job_events, lists, streams
from api.live.edges import Wire
from api.live.infer import Edge, start_stream
from api.live.metrics import tell_metrics
from api.live.request import Handler
from tenants.limits import Scope

EXACT: Mapping[tuple[str, str], Handler] = {
    ("POST", "/v1/chat/completions"): Edge("chat_completions", Wire.OPENAI, Scope.CHAT_WRITE, edges.read_chat),
    ("POST", "/v1/embeddings"): Edge("embeddings", Wire.OPENAI, Scope.EMBEDDINGS_WRITE, edges.read_embeddings),
    ("POST", "/v1/messages"): Edge("messages", Wire.ANTHROPIC, Scope.CHAT_WRITE, edges.read_messages),
    ("POST", "/v1/messages/count_tokens"): lists.count_tokens,
    ("POST", "/v1/chat"): Edge("chat", Wire.WORDPRESS, Scope.CHAT_WRITE, edges.read_wordpress),
    ("POST", "/api/v1/chat"): Edge("envelope", Wire.ENVELOPE, Scope.CHAT_WRITE, edges.read_envelope),
    ("POST", "/v1/streams"): start_stream,
    ("GET", "/v1/models"): lists.list_models,
    ("GET", "/metrics"): tell_metrics,
}

Named: TypeAlias = Callable[..., Any]

#: With a name in the path, which the handler is given.
NAMED: tuple[tuple[str, re.Pattern[str], Named], ...] = (
    ("GET", re.compile(r"/v1/models/(.{1,200})"), lists.get_model),
    ("GET", re.compile(r"/v1/streams/([^/]{1,64})/events"), streams.read_stream),
    ("GET", re.compile(r"/v1/jobs/([^/]{1,64})/events"), job_events.read_job),
    ("DELETE", re.compile(r"/v1/streams/([^/]{1,64})"), streams.cancel_stream),
)

_PATHS = frozenset(path for _, path in EXACT)


def find(method: str, path: str) -> Handler | None:
    """Return who answers a live address; None for all others, which Django answers."""
    if (handler := EXACT.get((method, path))) is not None:
        return handler
    for wanted, form, named in NAMED:
        if method == wanted and (match := form.fullmatch(path)):
            return partial(_named, named, match[1])
    return None


def limit_of(path: str) -> int:
    """Return how many bytes a body may have."""
    return int(settings.MAX_LIVE_BODY_BYTES if path in _PATHS else settings.MAX_BODY_BYTES)


async def _named(handler: Named, name: str, asked: Any, reply: Any) -> None:
    await handler(asked, reply, name)
