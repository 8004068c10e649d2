"""Every live address as people and programs are told of it: bodies, answers, and what may go wrong."""

from dataclasses import dataclass
from typing import Any, TypeAlias

from django.db import OperationalError

from api.errors import BodyTimeout, BodyTooLarge, ResourceNotFound
from api.live import response_schemas
from api.live.wire_formats import WireFormat
from core.redis import RedisUnavailable
from inference.errors import NoProviderKey, RequestTooLong, UnknownModel
from jobs.errors import JobNotFound
from live.errors import ConcurrencyLimitExceeded, RateLimiterUnavailable, RateLimitExceeded, ShuttingDown
from providers.dialects import anthropic_wire, openai_wire
from providers.dialects.envelope import EnvelopeBody
from providers.errors import ProviderError
from providers.invalid_request import InvalidRequest
from streams.errors import CursorError, StreamOrphaned, StreamsClosed, StreamUnknown
from tenants.errors import Forbidden, IdempotencyConflict, Unauthenticated

ErrorTypes: TypeAlias = tuple[type[BaseException], ...]

#: What may happen to whoever asks for anything,
AUTH_ERRORS: ErrorTypes = (Unauthenticated, Forbidden, ShuttingDown, OperationalError)
#: has a body,
BODY_ERRORS: ErrorTypes = (InvalidRequest, BodyTimeout, BodyTooLarge, UnknownModel)
#: wants an answer of a provider,
ADMISSION_ERRORS: ErrorTypes = (
    *BODY_ERRORS,
    RequestTooLong,
    NoProviderKey,
    IdempotencyConflict,
    RateLimitExceeded,
    ConcurrencyLimitExceeded,
    RateLimiterUnavailable,
)
INFERENCE_ERRORS: ErrorTypes = (*ADMISSION_ERRORS, ProviderError)
#: or reads what was begun.
READ_ERRORS: ErrorTypes = (Unauthenticated, Forbidden, CursorError, RedisUnavailable, OperationalError)


@dataclass(frozen=True, slots=True)
class LiveOperation:
    """One address of the live path."""

    method: str
    path: str
    name: str
    summary: str
    tag: str = "Live"
    description: str = ""
    wire: WireFormat = WireFormat.OPENAI
    body: Any = None
    response: Any = None
    status: int = 200
    streams: bool = False
    parameters: tuple[str, ...] = ()
    errors: ErrorTypes = ()
    is_public: bool = False


IDEMPOTENCY_PARAMETERS = ("IdempotencyKey", "XClientRequestID")
ANSWER_PARAMETERS = (*IDEMPOTENCY_PARAMETERS, "CacheControl")
STREAM_PARAMETERS = (*ANSWER_PARAMETERS, "XNightdeskContinue")
CURSOR_PARAMETERS = ("LastEventID", "After")
IDEMPOTENCY_NOTE = "The same again, by `Idempotency-Key`, is answered from the same call: attached to it, or replayed."


def _chat_operation(
    path: str,
    name: str,
    summary: str,
    body: Any,
    answer: Any,
    *,
    description: str = "Whole, or with `stream` as events.",
    wire: WireFormat = WireFormat.OPENAI,
    extra_parameters: tuple[str, ...] = (),
) -> LiveOperation:
    """Describe one that asks for a chat, whole or as events. They differ in their dialects alone."""
    return LiveOperation(
        "POST",
        path,
        name,
        summary,
        description=f"{description} {IDEMPOTENCY_NOTE}",
        wire=wire,
        body=body,
        response=answer,
        streams=True,
        parameters=(*STREAM_PARAMETERS, *extra_parameters),
        errors=(*AUTH_ERRORS, *INFERENCE_ERRORS, StreamsClosed),
    )


LIVE_OPERATIONS: tuple[LiveOperation, ...] = (
    _chat_operation(
        "/v1/chat/completions",
        "chat_completions",
        "Chat, in OpenAI's dialect",
        openai_wire.ChatBody,
        response_schemas.ChatCompletion,
    ),
    _chat_operation(
        "/v1/messages",
        "messages",
        "Chat, in Anthropic's dialect",
        anthropic_wire.MessagesBody,
        response_schemas.AnthropicMessage,
        wire=WireFormat.ANTHROPIC,
        extra_parameters=("AnthropicVersion", "AnthropicBeta"),
    ),
    _chat_operation(
        "/v1/chat",
        "chat",
        "Chat for pages: events that end with `done` or `error`",
        openai_wire.ChatBody,
        response_schemas.ChatCompletion,
        description="OpenAI's body and chunks. A whole stream ends with `event: done`, and a failed one with "
        "`event: error`.",
    ),
    _chat_operation(
        "/api/v1/chat",
        "chat_envelope",
        "Chat, with the provider's name and an id of your own",
        EnvelopeBody,
        response_schemas.EnvelopeResponse,
        description="OpenAI's body, `provider` if only that one may answer, and `request_id`, which is an "
        "idempotency key. Streams are those of `/v1/chat`.",
    ),
    LiveOperation(
        "POST",
        "/v1/embeddings",
        "embeddings",
        "Embeddings, in OpenAI's dialect",
        description="Vectors that were asked for before are not asked for again, one by one.",
        body=openai_wire.EmbeddingBody,
        response=response_schemas.EmbeddingList,
        parameters=ANSWER_PARAMETERS,
        errors=(*AUTH_ERRORS, *INFERENCE_ERRORS),
    ),
    LiveOperation(
        "POST",
        "/v1/messages/count_tokens",
        "count_tokens",
        "About how many tokens a prompt has",
        wire=WireFormat.ANTHROPIC,
        body=anthropic_wire.CountTokensBody,
        response=response_schemas.InputTokens,
        parameters=("AnthropicVersion",),
        errors=(*AUTH_ERRORS, *BODY_ERRORS),
    ),
    LiveOperation(
        "GET",
        "/v1/models",
        "list_models",
        "The models that you may ask for",
        description="With the header `anthropic-version` in Anthropic's form, and in pages.",
        response=response_schemas.OpenAIModels | response_schemas.AnthropicModels,
        parameters=("AnthropicVersion", "Limit", "AfterID", "BeforeID"),
        errors=(*AUTH_ERRORS, InvalidRequest),
    ),
    LiveOperation(
        "GET",
        "/v1/models/{model}",
        "get_model",
        "One model",
        response=response_schemas.OpenAIModel | response_schemas.AnthropicModel,
        parameters=("Model", "AnthropicVersion"),
        errors=(*AUTH_ERRORS, ResourceNotFound),
    ),
    LiveOperation(
        "POST",
        "/v1/streams",
        "start_stream",
        "Start a stream for somebody else to read",
        "Streams",
        description="The body is that of `dialect`. The stream runs to its end whether it is read or not; the "
        f"ticket reads it. {IDEMPOTENCY_NOTE}",
        body=openai_wire.ChatBody | anthropic_wire.MessagesBody | EnvelopeBody,
        response=response_schemas.StreamStarted,
        status=202,
        parameters=(
            *IDEMPOTENCY_PARAMETERS,
            "Dialect",
            "XTicketOrigin",
            "XNightdeskContinue",
            "AnthropicVersion",
            "AnthropicBeta",
        ),
        errors=(*AUTH_ERRORS, *ADMISSION_ERRORS, StreamsClosed),
    ),
    LiveOperation(
        "GET",
        "/v1/streams/{stream_id}/events",
        "read_stream",
        "Read a stream, from the beginning or after an event",
        "Streams",
        description="By its ticket (`Authorization: Bearer`), or by a proof with `streams:read`. The events are those "
        "of the dialect it was started in; what failed before its first event has that status and body.",
        response=response_schemas.ChatCompletion
        | response_schemas.AnthropicMessage
        | response_schemas.EnvelopeResponse
        | response_schemas.EmbeddingList,
        streams=True,
        parameters=("StreamID", *CURSOR_PARAMETERS),
        errors=(*READ_ERRORS, StreamUnknown, StreamOrphaned),
    ),
    LiveOperation(
        "DELETE",
        "/v1/streams/{stream_id}",
        "cancel_stream",
        "Cancel a stream",
        "Streams",
        description="202: its call upstream is being closed. 200: it had ended. What came until then is paid.",
        response=response_schemas.StreamCanceled,
        status=202,
        parameters=("StreamID",),
        errors=(*AUTH_ERRORS, StreamUnknown, RedisUnavailable),
    ),
    LiveOperation(
        "GET",
        "/v1/jobs/{job_id}/events",
        "read_job",
        "Follow a job: its states, and its tokens as they come",
        "Jobs",
        streams=True,
        parameters=("JobID", *CURSOR_PARAMETERS),
        errors=(*READ_ERRORS, JobNotFound),
    ),
    LiveOperation(
        "GET",
        "/metrics",
        "metrics",
        "What this process counts, for Prometheus",
        "Operations",
        description="For whoever shows `METRICS_TOKEN`, or where none is set, for programs on the same machine.",
        errors=(ResourceNotFound,),
        is_public=True,
    ),
)
