"""Schemas of live responses for the OpenAPI document. Other modules encode them; a test compares both."""

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

# OpenAI's


class FunctionCallSchema(Struct):
    name: str
    #: JSON as text, verbatim from the model.
    arguments: str


class ToolCallSchema(Struct):
    id: str
    type: Literal["function"]
    function: FunctionCallSchema


class AssistantMessageSchema(Struct):
    role: Literal["assistant"]
    content: str | None
    refusal: str | None | UnsetType = UNSET
    tool_calls: list[ToolCallSchema] | None | UnsetType = UNSET


class ChatChoiceSchema(Struct):
    index: int
    message: AssistantMessageSchema
    finish_reason: str


class ChatUsage(Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletion(Struct):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoiceSchema]
    usage: ChatUsage | None | UnsetType = UNSET


class Embedding(Struct):
    object: Literal["embedding"]
    index: int
    #: Numbers, or base64 of little-endian float32.
    embedding: list[float] | str


class EmbeddingUsage(Struct):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Struct):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage | UnsetType = UNSET


class OpenAIModel(Struct):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    kind: str | UnsetType = UNSET
    context_window: int | None | UnsetType = UNSET
    max_output_tokens: int | None | UnsetType = UNSET


class OpenAIModels(Struct):
    object: Literal["list"]
    data: list[OpenAIModel]


class OpenAIErrorDetail(Struct):
    message: str
    type: str
    #: The part of the request that is wrong.
    param: str | None
    #: Stable; programs may depend on it.
    code: str | None


class OpenAIError(Struct):
    """The request id is in the header `X-Request-ID`."""

    error: OpenAIErrorDetail


# Anthropic's


class AnthropicUsage(Struct):
    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int | None | UnsetType = UNSET
    cache_read_input_tokens: int | None | UnsetType = UNSET


class AnthropicMessage(Struct):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    #: Blocks: `text`, `tool_use`, `thinking`.
    content: list[dict[str, Any]]
    stop_reason: str
    stop_sequence: str | None
    usage: AnthropicUsage


class InputTokens(Struct):
    """An estimate, without the vendor's tokenizer."""

    input_tokens: int


class AnthropicModel(Struct):
    type: Literal["model"]
    id: str
    display_name: str
    created_at: str
    max_input_tokens: int | None
    max_tokens: int | None


class AnthropicModels(Struct):
    data: list[AnthropicModel]
    first_id: str | None
    last_id: str | None
    has_more: bool


class AnthropicErrorCode(Struct):
    #: Our code. Stable; programs may depend on it.
    error_code: str


class AnthropicErrorDetail(Struct):
    type: str
    message: str
    details: AnthropicErrorCode | UnsetType = UNSET


class AnthropicError(Struct):
    type: Literal["error"]
    error: AnthropicErrorDetail
    request_id: str | None


# Our own


class EnvelopeResponse(Struct):
    id: str
    #: The provider that answered.
    provider: str
    model: str
    data: ChatCompletion


class StreamStarted(Struct):
    id: str
    events_url: str
    #: Authorizes reading this stream, for `TICKET_TTL_SECONDS`, from one origin.
    ticket: str
    expires_at: str


class StreamCanceled(Struct):
    id: str
    #: False: the stream had already ended.
    canceled: bool
