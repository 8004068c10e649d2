"""What travels between the edge and the adapters: requests and answers in neutral form.

Every dialect translates to and from these (wire formats: `providers/dialects/`). Nothing here does I/O.
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

#: A JSON object as it stood on the wire: a tool's schema, a tool call's input. Never interpreted on the way through.
JSONObject: TypeAlias = dict[str, Any]


class Dialect(StrEnum):
    """The wires that a provider or a caller may speak."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    #: OpenAI's bodies at Azure's addresses, with Azure's header and error codes.
    AZURE = "azure"

    @property
    def body_dialect(self) -> "Dialect":
        """Whose bodies it has."""
        return Dialect.OPENAI if self is Dialect.AZURE else self


# Requests


@dataclass(frozen=True, slots=True)
class TextPart:
    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    """An image by address, or as base64 data with its media type."""

    url: str | None = None
    media_type: str | None = None
    data: str | None = None
    detail: Literal["auto", "low", "high"] | None = None


@dataclass(frozen=True, slots=True)
class OpaquePart:
    """Something that only the caller's own dialect can say: a file, a sound, what a vendor's tool found."""

    #: About how many it is.
    tokens: int


ContentPart: TypeAlias = TextPart | ImagePart | OpaquePart


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model asks for. `arguments` is JSON text, as the model wrote it."""

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
    #: For role TOOL: which call this answers, and whether the tool failed.
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
    """How the answer must be shaped. `schema` is set only for kind "json_schema"."""

    kind: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema: JSONObject | None = None
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class OriginalRequest:
    """What a caller sent, in its own dialect: a provider of the same dialect gets all of it, known to us or not."""

    dialect: Dialect
    #: The body's fields, each as it was written.
    fields: Mapping[str, Raw] = field(repr=False)
    #: The headers that are a part of the request.
    headers: Mapping[str, str] = field(default_factory=dict)
    #: What no other dialect can say, and would change the answer; None where there is nothing of that.
    untranslatable: InvalidRequest | None = None

    def with_turn(self, text: str) -> "OriginalRequest":
        """Return it with one more turn of the model's, which both dialects write alike."""
        turn = msgspec.json.encode({"role": "assistant", "content": text})
        messages = bytes(self.fields["messages"]).rstrip().removesuffix(b"]")
        return replace(self, fields={**self.fields, "messages": Raw(messages + b"," + turn + b"]")})


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One chat inference. None means that the caller did not say."""

    model: str
    messages: tuple[ChatMessage, ...]
    #: Of each answer.
    max_tokens: int | None = None
    #: How many answers are asked for.
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
    #: How long the answer should be: "low", "medium" or "high".
    verbosity: str | None = None
    seed: int | None = None
    #: The caller's name for the person asking, for the vendor's abuse checks.
    user: str | None = None
    #: At which of the model's prices; a provider of another dialect than the caller's is not told. No other request,
    #: for it is answered alike.
    tier: Tier = field(default=Tier.STANDARD, compare=False)
    #: The same as it was sent; None where nobody sent it. All above is read from it, so it makes no other request.
    original: OriginalRequest | None = field(default=None, compare=False, repr=False)

    @property
    def untranslatable(self) -> InvalidRequest | None:
        """What of it is not here, but only in what was sent; None where the neutral form says it all."""
        return self.original.untranslatable if self.original is not None else None

    @property
    def premium_tier_refusal(self) -> InvalidRequest | None:
        """Why somebody may not ask for it who may ask for no dearer tier than the standard; None where they may."""
        if self.tier in NON_PREMIUM_TIERS:
            return None
        is_anthropic = self.original is not None and self.original.dialect is Dialect.ANTHROPIC
        place_or_speed = "speed" if self.tier in (Tier.FAST, Tier.FAST_US) else "inference_geo"
        field_ = place_or_speed if is_anthropic else "service_tier"
        return InvalidRequest(
            f"Your token does not allow this {field_}: it may cost more than the standard tier.", field_
        )


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """Texts (or token lists) to embed, in order."""

    model: str
    inputs: tuple[str, ...] | tuple[tuple[int, ...], ...]
    dimensions: int | None = None
    user: str | None = None
    #: What else was sent, as it was written: servers of the dialect have settings of their own.
    extra_fields: Mapping[str, Any] = field(default_factory=dict)


InferenceRequest: TypeAlias = ChatRequest | EmbeddingRequest


# Answers


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call. `input_tokens` is the whole prompt: cached and cache-written tokens are part of it,
    and `output_tokens` includes reasoning (OpenAI's way of counting; wire formats, 15 and 16)."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    #: The part of `cache_write_tokens` that was written for an hour; it has its own price.
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
    """A whole chat answer. `usage` is None where the provider sent none: that is not zero."""

    id: str
    #: The model's name as the provider gave it, often a dated snapshot of the alias asked for.
    model: str
    text: str
    finish_reason: FinishReason
    usage: Usage | None
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str = ""
    refusal: str | None = None
    #: Which tier the provider says it used; None where it does not say.
    tier: Tier | None = None
    #: What the others say, where several answers were asked for; only `body` has them whole.
    other_choices: tuple[str, ...] = ()
    #: What the provider wrote, verbatim; empty where the answer came as a stream.
    body: bytes = field(default=b"", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One vector per input, in order."""

    model: str
    vectors: tuple[tuple[float, ...], ...]
    usage: Usage | None
    #: What the provider wrote, verbatim.
    body: bytes = field(default=b"", compare=False, repr=False)


InferenceResponse: TypeAlias = Completion | Embeddings


# Stream events, in order: Started, deltas, Finished. A stream that ends without Finished was cut.
# Structs, for they are made by the thousand a second, and a frozen dataclass takes four times as long to make.


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
    """Something that only the frames tell: another of several answers, a sound, a vendor's tool at work.

    `text` is what of it counts.
    """

    text: str


class AnswerFinished(Struct, frozen=True):
    """`refused` says that the text is what the model said instead of an answer."""

    reason: FinishReason
    usage: Usage | None
    refused: bool = False


StreamEvent: TypeAlias = (
    AnswerStarted | TextDelta | ReasoningDelta | ToolCallStarted | ToolCallDelta | OpaqueDelta | AnswerFinished
)


@dataclass(frozen=True, slots=True)
class Burst:
    """What came at one time: the events, and the frames of the provider's dialect that brought them."""

    events: Sequence[StreamEvent]
    frames: Sequence[Frame] = ()
    #: What the call used, once the provider has said all of it: often before its last word.
    usage: Usage | None = None
    #: Which tier the provider says it uses: often with its first word.
    tier: Tier | None = None


# The seam


@dataclass(frozen=True, slots=True)
class CallContext:
    """What one call may take and how it is known. All times are in seconds."""

    #: Sent upstream as `X-Client-Request-ID`, so that the vendor's log and ours can be matched.
    call_id: str
    total_seconds: float
    connect_seconds: float = 5.0
    first_byte_seconds: float = 120.0
    idle_seconds: float = 60.0


class Provider(Protocol):
    """One vendor endpoint with one key. Every method raises `ProviderError` and nothing else."""

    name: str

    def stream(self, request: ChatRequest, call: CallContext) -> AsyncGenerator[Burst, None]:
        """Yield events as they arrive, those of one read in one burst; the last is `AnswerFinished`, or it raises.

        Close it (`contextlib.aclosing`) when you stop before the end: that closes the connection upstream.
        """
        ...

    async def complete(self, request: ChatRequest, call: CallContext) -> Completion:
        """Return the whole answer of a call without stream."""
        ...

    async def embed(self, request: EmbeddingRequest, call: CallContext) -> Embeddings: ...

    async def close(self) -> None: ...
