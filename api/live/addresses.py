"""Every live address as people and programs are told of it: bodies, answers, and what may go wrong."""

from dataclasses import dataclass
from typing import Any, TypeAlias

from django.db import OperationalError

from api.errors import (
    Draining,
    LimitReached,
    NoFastMemory,
    ResourceNotFound,
    TooLarge,
    TooManyAtOnce,
    TooSlow,
)
from api.live import shapes
from api.live.edges import Wire
from core.redis import RedisAway
from inference.errors import NoProvider, RequestTooLong, UnknownModel
from jobs.errors import IdempotencyConflict, JobNotFound
from providers.dialects import anthropic_wire, openai_wire
from providers.dialects.envelope import EnvelopeBody
from providers.dialects.errors import InvalidRequest
from providers.errors import ProviderError
from streams.errors import CursorError, Orphaned, StreamsClosed, StreamUnknown
from tenants.errors import Forbidden, Unauthenticated

Errors: TypeAlias = tuple[type[BaseException], ...]

#: What may happen to whoever asks for anything,
ENTERING: Errors = (Unauthenticated, Forbidden, Draining, OperationalError)
#: has a body,
WITH_BODY: Errors = (InvalidRequest, TooSlow, TooLarge, UnknownModel)
#: wants an answer of a provider,
ADMITTED: Errors = (
    *WITH_BODY,
    RequestTooLong,
    NoProvider,
    IdempotencyConflict,
    LimitReached,
    TooManyAtOnce,
    NoFastMemory,
)
ASKING: Errors = (*ADMITTED, ProviderError)
#: or reads what was begun.
READING: Errors = (Unauthenticated, Forbidden, CursorError, RedisAway, OperationalError)


@dataclass(frozen=True, slots=True)
class Live:
    """One address of the live path."""

    method: str
    path: str
    name: str
    summary: str
    tag: str = "Live"
    description: str = ""
    wire: Wire = Wire.OPENAI
    body: Any = None
    answer: Any = None
    status: int = 200
    streams: bool = False
    parameters: tuple[str, ...] = ()
    errors: Errors = ()
    is_open: bool = False


ONCE = ("IdempotencyKey", "XClientRequestID")
ANSWER = (*ONCE, "CacheControl")
STREAMED = (*ANSWER, "XNightdeskContinue")
PLACE = ("LastEventID", "After")
REPEATED = "The same again, by `Idempotency-Key`, is answered from the same call: attached to it, or replayed."


def _chat(
    path: str,
    name: str,
    summary: str,
    body: Any,
    answer: Any,
    *,
    description: str = "Whole, or with `stream` as events.",
    wire: Wire = Wire.OPENAI,
    more: tuple[str, ...] = (),
) -> Live:
    """Describe one that asks for a chat, whole or as events. They differ in their dialects alone."""
    return Live(
        "POST",
        path,
        name,
        summary,
        description=f"{description} {REPEATED}",
        wire=wire,
        body=body,
        answer=answer,
        streams=True,
        parameters=(*STREAMED, *more),
        errors=(*ENTERING, *ASKING, StreamsClosed),
    )


LIVE: tuple[Live, ...] = (
    _chat(
        "/v1/chat/completions",
        "chat_completions",
        "Chat, in OpenAI's dialect",
        openai_wire.ChatBody,
        shapes.ChatCompletion,
    ),
    _chat(
        "/v1/messages",
        "messages",
        "Chat, in Anthropic's dialect",
        anthropic_wire.MessagesBody,
        shapes.Message,
        wire=Wire.ANTHROPIC,
        more=("AnthropicVersion", "AnthropicBeta"),
    ),
    _chat(
        "/v1/chat",
        "chat",
        "Chat for pages: events that end with `done` or `error`",
        openai_wire.ChatBody,
        shapes.ChatCompletion,
        description="OpenAI's body and chunks. A whole stream ends with `event: done`, and a failed one with "
        "`event: error`.",
    ),
    _chat(
        "/api/v1/chat",
        "chat_in_an_envelope",
        "Chat, with the provider's name and an id of your own",
        EnvelopeBody,
        shapes.Enveloped,
        description="OpenAI's body, `provider` if only that one may answer, and `request_id`, which is an "
        "idempotency key. Streams are those of `/v1/chat`.",
    ),
    Live(
        "POST",
        "/v1/embeddings",
        "embeddings",
        "Embeddings, in OpenAI's dialect",
        description="Vectors that were asked for before are not asked for again, one by one.",
        body=openai_wire.EmbeddingBody,
        answer=shapes.EmbeddingList,
        parameters=ANSWER,
        errors=(*ENTERING, *ASKING),
    ),
    Live(
        "POST",
        "/v1/messages/count_tokens",
        "count_tokens",
        "About how many tokens a prompt has",
        wire=Wire.ANTHROPIC,
        body=anthropic_wire.CountBody,
        answer=shapes.InputTokens,
        parameters=("AnthropicVersion",),
        errors=(*ENTERING, *WITH_BODY),
    ),
    Live(
        "GET",
        "/v1/models",
        "list_models",
        "The models that you may ask for",
        description="With the header `anthropic-version` in Anthropic's form, and in pages.",
        answer=shapes.OpenAIModels | shapes.AnthropicModels,
        parameters=("AnthropicVersion", "Limit", "AfterID", "BeforeID"),
        errors=(*ENTERING, InvalidRequest),
    ),
    Live(
        "GET",
        "/v1/models/{model}",
        "get_model",
        "One model",
        answer=shapes.OpenAIModel | shapes.AnthropicModel,
        parameters=("Model", "AnthropicVersion"),
        errors=(*ENTERING, ResourceNotFound),
    ),
    Live(
        "POST",
        "/v1/streams",
        "start_stream",
        "Start a stream for somebody else to read",
        "Streams",
        description="The body is that of `dialect`. The stream runs to its end whether it is read or not; the "
        f"ticket reads it. {REPEATED}",
        body=openai_wire.ChatBody | anthropic_wire.MessagesBody | EnvelopeBody,
        answer=shapes.StreamStarted,
        status=202,
        parameters=(*ONCE, "Dialect", "XTicketOrigin", "XNightdeskContinue", "AnthropicVersion", "AnthropicBeta"),
        errors=(*ENTERING, *ADMITTED, StreamsClosed),
    ),
    Live(
        "GET",
        "/v1/streams/{stream_id}/events",
        "read_stream",
        "Read a stream, from the beginning or after an event",
        "Streams",
        description="By its ticket (`Authorization: Bearer`), or by a proof with `streams:read`. The events are those "
        "of the dialect it was started in; what failed before its first event has that status and body.",
        answer=shapes.ChatCompletion | shapes.Message | shapes.Enveloped | shapes.EmbeddingList,
        streams=True,
        parameters=("StreamID", *PLACE),
        errors=(*READING, StreamUnknown, Orphaned),
    ),
    Live(
        "DELETE",
        "/v1/streams/{stream_id}",
        "cancel_stream",
        "Cancel a stream",
        "Streams",
        description="202: its call upstream is being closed. 200: it had ended. What came until then is paid.",
        answer=shapes.StreamCanceled,
        status=202,
        parameters=("StreamID",),
        errors=(*ENTERING, StreamUnknown, RedisAway),
    ),
    Live(
        "GET",
        "/v1/jobs/{job_id}/events",
        "read_job",
        "Follow a job: its states, and its tokens as they come",
        "Jobs",
        streams=True,
        parameters=("JobID", *PLACE),
        errors=(*READING, JobNotFound),
    ),
    Live(
        "GET",
        "/metrics",
        "metrics",
        "What this process counts, for Prometheus",
        "Operations",
        description="For whoever shows `METRICS_TOKEN`, or where none is set, for programs on the same machine.",
        errors=(ResourceNotFound,),
        is_open=True,
    ),
)
