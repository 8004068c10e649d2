"""Neutral requests, answers and stream events: the types between the edge and the provider adapters.

Every dialect (`providers/dialects/`) translates to and from these. Nothing here does I/O or imports a dialect.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal, Protocol, TypeAlias

import msgspec
from msgspec import Raw, Struct

from providers.invalid_request import InvalidRequest
from providers.sse import Frame
from providers.tiers import NON_PREMIUM_TIERS, Tier

#: A JSON object as it was on the wire: a tool's schema, a tool call's input. Never interpreted on the way through.
JSONObject: TypeAlias = dict[str, Any]


class Dialect(StrEnum):
    """What a provider speaks. (What a caller speaks is a wire format: `api.live.wire_formats`.)"""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    #: OpenAI's bodies at Azure's URLs, with Azure's header and error codes.
    AZURE = "azure"

    @property
    def body_dialect(self) -> "Dialect":
        """The dialect whose bodies it uses."""
        return Dialect.OPENAI if self is Dialect.AZURE else self


# Requests


@dataclass(frozen=True, slots=True)
class TextPart:
    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    """An image by URL, or as base64 data with its media type."""

    url: str | None = None
    media_type: str | None = None
    data: str | None = None
    detail: Literal["auto", "low", "high"] | None = None


@dataclass(frozen=True, slots=True)
class OpaquePart:
    """Content that only the caller's own dialect can express: a file, audio, a result of a vendor's tool."""

    #: Estimated.
    tokens: int


ContentPart: TypeAlias = TextPart | ImagePart | OpaquePart


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call by the model. `arguments` is JSON text, as the model wrote it."""

    id: str
    name: str
    arguments: str


class Role(StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class ChatMessage:
    role: Role
    parts: tuple[ContentPart, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    #: For role TOOL: the id of the call that this is the result of, and whether the tool failed.
    tool_call_id: str | None = None
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    description: str | None
    #: JSON schema of the arguments.
    parameters: JSONObject
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """`name` is set only for mode "named"."""

    mode: Literal["none", "auto", "required", "named"]
    name: str | None = None


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """The required format of the answer. `schema` is set only for kind "json_schema"."""

    kind: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema: JSONObject | None = None
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class OriginalRequest:
    """The request in the caller's own dialect. A provider of the same dialect gets all of it, known to us or not."""

    dialect: Dialect
    #: The body's fields, each as JSON text as it was sent.
    fields: Mapping[str, Raw] = field(repr=False)
    #: The headers that are part of the request.
    headers: Mapping[str, str] = field(default_factory=dict)
    #: The refusal for a provider of another dialect: names the first field that no other dialect can express and that
    #: would change the answer. None if any dialect can express the request.
    untranslatable: InvalidRequest | None = None

    def with_turn(self, text: str) -> "OriginalRequest":
        """Return it with one more assistant turn, which both dialects write alike."""
        turn = msgspec.json.encode({"role": "assistant", "content": text})
        messages = bytes(self.fields["messages"]).rstrip().removesuffix(b"]")
        return replace(self, fields={**self.fields, "messages": Raw(messages + b"," + turn + b"]")})


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One chat inference. None means that the caller did not set the field."""

    model: str
    messages: tuple[ChatMessage, ...]
    #: Of each choice.
    max_tokens: int | None = None
    #: The number of choices to generate.
    choice_count: int = 1
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    output_format: OutputFormat | None = None
    reasoning_effort: str | None = None
    #: Desired length of the answer: "low", "medium" or "high".
    verbosity: str | None = None
    seed: int | None = None
    #: The caller's id of its end user, for the vendor's abuse checks.
    user: str | None = None
    #: The requested price tier; sent only to a provider of the caller's dialect. Not compared: it does not change the
    #: answer.
    tier: Tier = field(default=Tier.STANDARD, compare=False)
    #: The request as the caller sent it; None if no caller sent one. Not compared: all fields above come from it.
    original: OriginalRequest | None = field(default=None, compare=False, repr=False)

    @property
    def untranslatable(self) -> InvalidRequest | None:
        """The refusal for providers of another dialect (`OriginalRequest.untranslatable`); None if there is none."""
        return self.original.untranslatable if self.original is not None else None

    @property
    def premium_tier_refusal(self) -> InvalidRequest | None:
        """The refusal for a caller that may not use tiers above the standard price; None if the tier is not one."""
        if self.tier in NON_PREMIUM_TIERS:
            return None
        is_anthropic = self.original is not None and self.original.dialect is Dialect.ANTHROPIC
        place_or_speed = "speed" if self.tier in (Tier.FAST, Tier.FAST_US) else "inference_geo"
        field_ = place_or_speed if is_anthropic else "service_tier"
        return _premium_tier_refusal(field_)


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """Texts (or token lists) to embed, in order."""

    model: str
    inputs: tuple[str, ...] | tuple[tuple[int, ...], ...]
    dimensions: int | None = None
    user: str | None = None
    #: Other fields of the caller's body, passed on unchanged: compatible servers have settings of their own.
    extra_fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def premium_tier_refusal(self) -> InvalidRequest | None:
        """The refusal for a caller that may not use tiers above the standard price; None if the tier is not one."""
        if self.extra_fields.get("service_tier") in NON_PREMIUM_SERVICE_TIERS:
            return None
        return _premium_tier_refusal("service_tier")


InferenceRequest: TypeAlias = ChatRequest | EmbeddingRequest

#: OpenAI's names of `NON_PREMIUM_TIERS`; None: the field is absent.
NON_PREMIUM_SERVICE_TIERS = (None, "auto", "default", "flex")


def _premium_tier_refusal(field_name: str) -> InvalidRequest:
    return InvalidRequest(
        f"Your token does not allow this {field_name}: it may cost more than the standard tier.", field_name
    )


# Answers


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call. `input_tokens` is the whole prompt: cached and cache-written tokens are part of it,
    and `output_tokens` includes reasoning (OpenAI's way of counting; docs/reference/wire-formats.md, 15 and 16)."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    #: The part of `cache_write_tokens` with a lifetime of one hour; it has its own price.
    cache_write_1h_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens


class FinishReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"


@dataclass(frozen=True, slots=True)
class Completion:
    """A complete chat answer. `usage` is None if the provider sent none, which does not mean zero."""

    id: str
    #: The model's name as the provider gave it, often a dated snapshot of the requested alias.
    model: str
    text: str
    finish_reason: FinishReason
    usage: Usage | None
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str = ""
    refusal: str | None = None
    #: The tier that the provider reports; None if it reports none.
    tier: Tier | None = None
    #: The text of further choices, if several were requested; only `body` has them complete.
    other_choices: tuple[str, ...] = ()
    #: The provider's response body, verbatim; empty if the answer was streamed.
    body: bytes = field(default=b"", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One vector per input, in order."""

    model: str
    vectors: tuple[tuple[float, ...], ...]
    usage: Usage | None
    #: The provider's response body, verbatim.
    body: bytes = field(default=b"", compare=False, repr=False)


InferenceResponse: TypeAlias = Completion | Embeddings


# Stream events, in order: AnswerStarted, deltas, AnswerFinished. Without AnswerFinished the stream was interrupted.
# Structs, because a process creates thousands per second, and creating a frozen dataclass takes four times as long.


class AnswerStarted(Struct, frozen=True):
    id: str
    model: str


class TextDelta(Struct, frozen=True):
    text: str


class ReasoningDelta(Struct, frozen=True):
    text: str


class ToolCallStarted(Struct, frozen=True):
    """`index` counts tool calls only, from 0 (not content blocks)."""

    index: int
    id: str
    name: str


class ToolCallDelta(Struct, frozen=True):
    index: int
    arguments: str


class OpaqueDelta(Struct, frozen=True):
    """Content that only the frames hold: another choice, audio, the work of a vendor's tool.

    `text` is the part that counts as output tokens.
    """

    text: str


class AnswerFinished(Struct, frozen=True):
    """`refused`: the text is the model's refusal instead of an answer."""

    reason: FinishReason
    usage: Usage | None
    refused: bool = False


StreamEvent: TypeAlias = (
    AnswerStarted | TextDelta | ReasoningDelta | ToolCallStarted | ToolCallDelta | OpaqueDelta | AnswerFinished
)


@dataclass(frozen=True, slots=True)
class Burst:
    """The events of one read, and the frames of the provider's dialect that they were decoded from."""

    events: Sequence[StreamEvent]
    frames: Sequence[Frame] = ()
    #: The usage of the call, once the provider has reported all of it: often before `AnswerFinished`.
    usage: Usage | None = None
    #: The tier that the provider reports: often with its first event.
    tier: Tier | None = None


# The provider interface


@dataclass(frozen=True, slots=True)
class CallContext:
    """The id and the timeouts of one call."""

    #: Sent upstream as `X-Client-Request-ID`, so that the vendor's log can be matched with ours.
    call_id: str
    total_seconds: float
    connect_seconds: float = 5.0
    first_byte_seconds: float = 120.0
    idle_seconds: float = 60.0


class Provider(Protocol):
    """One vendor endpoint with one key. Every method raises `ProviderError` and nothing else."""

    name: str

    def stream(self, request: ChatRequest, call: CallContext) -> AsyncGenerator[Burst, None]:
        """Yield events as they arrive, those of one read in one burst; the last is `AnswerFinished`, or this raises.

        Close the generator (`contextlib.aclosing`) if you stop early: that closes the connection upstream.
        """
        ...

    async def complete(self, request: ChatRequest, call: CallContext) -> Completion:
        """Return the answer of a non-streaming call."""
        ...

    async def embed(self, request: EmbeddingRequest, call: CallContext) -> Embeddings: ...

    async def close(self) -> None: ...
