"""Every live operation for the OpenAPI document: parameters, bodies, responses and errors."""

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

#: Errors of every operation that needs a credential.
AUTH_ERRORS: ErrorTypes = (Unauthenticated, Forbidden, ShuttingDown, OperationalError)
#: Errors of operations with a body.
BODY_ERRORS: ErrorTypes = (InvalidRequest, BodyTimeout, BodyTooLarge, UnknownModel)
#: Errors of operations that are admitted (`live.admit`).
ADMISSION_ERRORS: ErrorTypes = (
    *BODY_ERRORS,
    RequestTooLong,
    NoProviderKey,
    IdempotencyConflict,
    RateLimitExceeded,
    ConcurrencyLimitExceeded,
    RateLimiterUnavailable,
)
#: Errors of operations whose response is a provider's answer.
INFERENCE_ERRORS: ErrorTypes = (*ADMISSION_ERRORS, ProviderError)
#: Errors of operations that read events.
READ_ERRORS: ErrorTypes = (Unauthenticated, Forbidden, CursorError, RedisUnavailable, OperationalError)


@dataclass(frozen=True, slots=True)
class LiveOperation:
    """One operation of the live path."""

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
IDEMPOTENCY_NOTE = "A retry with the same `Idempotency-Key` gets the answer of the first request, which runs once."


def _chat_operation(
    path: str,
    name: str,
    summary: str,
    body: Any,
    answer: Any,
    *,
    description: str = "A complete answer, or with `stream` server-sent events.",
    wire: WireFormat = WireFormat.OPENAI,
    extra_parameters: tuple[str, ...] = (),
) -> LiveOperation:
    """Return a chat operation, complete or streamed. They differ only in their dialects."""
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
        description="OpenAI's body and chunks. A complete stream ends with `event: done`, a failed one with "
        "`event: error`.",
    ),
    _chat_operation(
        "/api/v1/chat",
        "chat_envelope",
        "Chat, with the provider's name and an id of your own",
        EnvelopeBody,
        response_schemas.EnvelopeResponse,
        description="OpenAI's body, with `provider` to insist on one provider, and `request_id`, which is an "
        "idempotency key. Streams are those of `/v1/chat`.",
    ),
    LiveOperation(
        "POST",
        "/v1/embeddings",
        "embeddings",
        "Embeddings, in OpenAI's dialect",
        description="The response cache holds each input's vector; only the others are requested from the provider.",
        body=openai_wire.EmbeddingBody,
        response=response_schemas.EmbeddingList,
        parameters=ANSWER_PARAMETERS,
        errors=(*AUTH_ERRORS, *INFERENCE_ERRORS),
    ),
    LiveOperation(
        "POST",
        "/v1/messages/count_tokens",
        "count_tokens",
        "Estimate the tokens of a prompt",
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
        "List the models that you may use",
        description="With the header `anthropic-version` in Anthropic's dialect, in pages.",
        response=response_schemas.OpenAIModels | response_schemas.AnthropicModels,
        parameters=("AnthropicVersion", "Limit", "AfterID", "BeforeID"),
        errors=(*AUTH_ERRORS, InvalidRequest),
    ),
    LiveOperation(
        "GET",
        "/v1/models/{model}",
        "get_model",
        "Retrieve one model",
        response=response_schemas.OpenAIModel | response_schemas.AnthropicModel,
        parameters=("Model", "AnthropicVersion"),
        errors=(*AUTH_ERRORS, ResourceNotFound),
    ),
    LiveOperation(
        "POST",
        "/v1/streams",
        "start_stream",
        "Start a stream for another client to read",
        "Streams",
        description="The body is in the dialect that `dialect` names. The stream runs to its end with or without a "
        f"reader; the ticket authorizes reading it. {IDEMPOTENCY_NOTE}",
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
        description="Authorized by its ticket (`Authorization: Bearer`), or by a credential with `streams:read`. The "
        "events are in the dialect of the request that started it; a failure before the first event has a status.",
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
        description="202: the provider call is being closed. 200: the stream had ended. Earlier tokens are billed.",
        response=response_schemas.StreamCanceled,
        status=202,
        parameters=("StreamID",),
        errors=(*AUTH_ERRORS, StreamUnknown, RedisUnavailable),
    ),
    LiveOperation(
        "GET",
        "/v1/jobs/{job_id}/events",
        "read_job",
        "Follow a job: its states, and its tokens as they arrive",
        "Jobs",
        streams=True,
        parameters=("JobID", *CURSOR_PARAMETERS),
        errors=(*READ_ERRORS, JobNotFound),
    ),
    LiveOperation(
        "GET",
        "/metrics",
        "metrics",
        "Metrics of this process, for Prometheus",
        "Operations",
        description="Requires `METRICS_TOKEN` as bearer token; if that is not set, a client on the same machine.",
        errors=(ResourceNotFound,),
        is_public=True,
    ),
)
