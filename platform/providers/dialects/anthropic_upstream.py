"""Anthropic's dialect with us as the client: neutral requests to payloads, bodies and streams to neutral answers."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from providers.capabilities import Capabilities, clamp_reasoning_effort
from providers.catalogue import ModelInfo
from providers.dialects import anthropic
from providers.dialects.anthropic import to_tool_input
from providers.dialects.anthropic_upstream_errors import AnthropicErrorBody, to_stream_error
from providers.errors import BadResponse, UnsupportedFeature
from providers.sse import Frame
from providers.tiers import Tier
from providers.types import (
    AnswerFinished,
    AnswerStarted,
    ChatMessage,
    ChatRequest,
    Completion,
    ContentPart,
    Dialect,
    FinishReason,
    ImagePart,
    JSONObject,
    OpaqueDelta,
    OriginalRequest,
    OutputFormat,
    ReasoningDelta,
    Role,
    StreamEvent,
    TextDelta,
    TextPart,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)

#: The version that our payloads are written in. 2026-10-21 refuses temperature and its kin for every model; the
#: classic one leaves that to the model, which the catalogue knows, and we use nothing that is new in the other.
API_VERSION = "2023-06-01"

#: `max_tokens` is required. This is what every model still served accepts, for those the catalogue does not know.
DEFAULT_MAX_TOKENS = 4096

#: Reasoning effort as tokens to think with, for models that take a budget.
_THINKING_BUDGETS = {"low": 1024, "medium": 4096, "high": 16_384, "xhigh": 24_576, "max": 32_768}

_NULL = Raw(b"null")

# Requests


def to_payload(request: ChatRequest, *, stream: bool = False, model: ModelInfo | None = None) -> JSONObject:
    """Return the body to send. `model` is None where the catalogue does not know it: then nothing is adapted.

    Seed, penalties and verbosity have no counterpart here and are left out: they are wishes of degree. Raises
    Unsupported for what this dialect or model cannot express.
    """
    as_sent = (
        request.original if request.original is not None and request.original.dialect is Dialect.ANTHROPIC else None
    )
    if as_sent is None and request.untranslatable is not None:
        raise UnsupportedFeature(request.untranslatable.message)
    can = model.capabilities if model else Capabilities(efforts=("low", "medium", "high", "xhigh", "max"))
    _check_supported(request, can)
    max_tokens = _max_tokens(request, model)
    thinking = _thinking(request, can, max_tokens)
    if as_sent is not None:
        return _passthrough_payload(request, as_sent, can, max_tokens, thinking, stream=stream)
    payload: JSONObject = {
        "model": request.model,
        "max_tokens": max_tokens,
        "system": _system(request.messages),
        "messages": list(_messages(request.messages)),
        "stop_sequences": list(request.stop) or None,
        **_sampling(request, can, thinking),
        "tools": [_tool(tool) for tool in request.tools] or None,
        "tool_choice": _tool_choice(request),
        "thinking": thinking,
        "output_config": _output_config(request, can),
        "metadata": {"user_id": request.user} if request.user else None,
        "stream": stream or None,
    }
    return {key: value for key, value in payload.items() if value is not None}


def _passthrough_payload(
    request: ChatRequest,
    sent: OriginalRequest,
    can: Capabilities,
    max_tokens: int,
    thinking: JSONObject | None,
    *,
    stream: bool,
) -> JSONObject:
    """Return the caller's own body, changed only where the desk or the model needs it otherwise."""
    payload: JSONObject = {**sent.fields, "model": request.model, "max_tokens": max_tokens}
    payload.pop("stream", None)
    if not can.takes_sampling(None):
        for name in ("temperature", "top_p", "top_k"):
            payload.pop(name, None)
    if not _accepts_original_thinking(sent, can, max_tokens):
        payload["thinking"] = thinking
        payload["output_config"] = _passthrough_output_config(request, sent, can)
    if stream:
        payload["stream"] = True
    return {name: value for name, value in payload.items() if value is not None}


def _accepts_original_thinking(sent: OriginalRequest, can: Capabilities, max_tokens: int) -> bool:
    """Say whether a model takes what the caller says of thinking and effort; what it means can be said otherwise."""
    effort = _decode_field(_original_object(sent, "output_config"), "effort")
    if effort is not None and (can.thinking_budget or effort not in can.efforts):
        return False
    thinking = _original_object(sent, "thinking")
    match _decode_field(thinking, "type"):
        case "enabled":
            takes_budget = can.thinking_budget or can.sampling == "always"
            return takes_budget and int(_decode_field(thinking, "budget_tokens")) < max_tokens
        case "disabled":
            return can.thinking_optional
        case "adaptive":
            return not can.thinking_budget
        case _:
            return True


def _passthrough_output_config(request: ChatRequest, sent: OriginalRequest, can: Capabilities) -> JSONObject | None:
    effort = None if can.thinking_budget else _effort(request, can)
    config: JSONObject = {**_original_object(sent, "output_config"), "effort": effort}
    return {name: value for name, value in config.items() if value is not None} or None


def _original_object(sent: OriginalRequest, name: str) -> dict[str, Raw]:
    """Return a field that was sent as an object; an empty one if it was not."""
    return msgspec.json.decode(sent.fields.get(name, _NULL), type=dict[str, Raw] | None) or {}


def _decode_field(fields: Mapping[str, Raw], name: str) -> Any:
    return msgspec.json.decode(fields.get(name, _NULL))


def _check_supported(request: ChatRequest, can: Capabilities) -> None:
    chosen = request.output_format
    if chosen is not None and chosen.kind == "json_object":
        raise UnsupportedFeature("This provider has no free JSON mode. Use response_format json_schema.")
    if chosen is not None and chosen.kind == "json_schema" and (chosen.schema is None or not can.structured_output):
        raise UnsupportedFeature(
            f"Model {request.model} takes structured output here only with a schema, and not every model."
        )
    if request.tool_choice and request.tool_choice.mode in ("required", "named") and not can.forced_tools:
        raise UnsupportedFeature(f"Model {request.model} cannot be forced to use a tool. Use tool_choice 'auto'.")
    if request.choice_count > 1:
        raise UnsupportedFeature("This provider gives one answer to a request.")
    if any(not sequence.strip() for sequence in request.stop):
        raise UnsupportedFeature("This provider takes no stop sequence of white space only.")


def _max_tokens(request: ChatRequest, model: ModelInfo | None) -> int:
    cap = model.max_output if model and model.max_output else None
    if request.max_tokens is None:
        return cap or DEFAULT_MAX_TOKENS
    # More than the model can give is an error here; it is an upper bound, so the model's own means the same.
    return min(request.max_tokens, cap) if cap else request.max_tokens


def _system(messages: Iterable[ChatMessage]) -> str | None:
    texts = [part.text for message in messages if message.role is Role.SYSTEM for part in _texts(message.parts)]
    return "\n\n".join(texts) or None


def _messages(messages: Iterable[ChatMessage]) -> Iterator[JSONObject]:
    """Yield the turns. Results of tools become one user message, which also holds what the user said after them."""
    results: list[JSONObject] = []
    for message in messages:
        match message.role:
            case Role.SYSTEM:
                continue
            case Role.TOOL:
                results.append(_tool_result(message))
                continue
            case Role.USER:
                content = [*results, *_blocks(message.parts)] if results else _content(message.parts)
                results = []
                yield {"role": "user", "content": content}
            case Role.ASSISTANT:
                if results:
                    yield {"role": "user", "content": results}
                    results = []
                if content := _assistant_content(message):
                    yield {"role": "assistant", "content": content}
    if results:
        yield {"role": "user", "content": results}


def _assistant_content(message: ChatMessage) -> str | list[JSONObject]:
    if not message.tool_calls:
        return _content(message.parts)
    calls = [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": to_tool_input(call.arguments)}
        for call in message.tool_calls
    ]
    return [*_blocks(message.parts), *calls]


def _tool_result(message: ChatMessage) -> JSONObject:
    block: JSONObject = {
        "type": "tool_result",
        "tool_use_id": message.tool_call_id,
        "content": _content(message.parts),
    }
    return {**block, "is_error": True} if message.is_error else block


def _content(parts: tuple[ContentPart, ...]) -> str | list[JSONObject]:
    match parts:
        case (TextPart(text),):
            return text
        case _:
            return _blocks(parts)


def _blocks(parts: tuple[ContentPart, ...]) -> list[JSONObject]:
    # Empty text blocks are an error here.
    return [_block(part) for part in parts if part != TextPart("")]


def _block(part: ContentPart) -> JSONObject:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if not isinstance(part, ImagePart):
        raise UnsupportedFeature("This provider cannot take a part of the request that another dialect has.")
    if part.url is not None:
        return {"type": "image", "source": {"type": "url", "url": part.url}}
    return {"type": "image", "source": {"type": "base64", "media_type": part.media_type, "data": part.data}}


def _texts(parts: tuple[ContentPart, ...]) -> list[TextPart]:
    return [part for part in parts if isinstance(part, TextPart) and part.text]


def _sampling(request: ChatRequest, can: Capabilities, thinking: JSONObject | None) -> JSONObject:
    if not can.takes_sampling(None) or (thinking and thinking["type"] == "enabled"):
        return {}
    if request.temperature is not None:
        # OpenAI's scale goes to 2. Both settings together are refused by most models, and this is the stronger wish.
        return {"temperature": min(request.temperature, 1.0)}
    return {"top_p": request.top_p}


def _tool(tool: Tool) -> JSONObject:
    body = {
        "name": tool.name,
        "description": tool.description,
        "input_schema": tool.parameters,
        "strict": tool.strict,
    }
    return {key: value for key, value in body.items() if value is not None}


def _tool_choice(request: ChatRequest) -> JSONObject | None:
    if not request.tools:
        return None
    choice: JSONObject | None = None
    match request.tool_choice:
        case None:
            choice = {"type": "auto"} if request.parallel_tool_calls is False else None
        case chosen if chosen.mode == "named":
            choice = {"type": "tool", "name": chosen.name}
        case chosen:
            choice = {"type": "any" if chosen.mode == "required" else chosen.mode}
    if choice is not None and request.parallel_tool_calls is False and choice["type"] != "none":
        choice["disable_parallel_tool_use"] = True
    return choice


def _thinking(request: ChatRequest, can: Capabilities, max_tokens: int) -> JSONObject | None:
    if request.reasoning_effort is None:
        return None
    if can.thinking_budget:
        return _thinking_budget(request, max_tokens)
    # Models before the fifth generation think only when asked to.
    thinks_unasked = can.sampling == "never"
    switched_off = request.reasoning_effort == "none" and thinks_unasked and can.thinking_optional
    return {"type": "disabled"} if switched_off else None


def _thinking_budget(request: ChatRequest, max_tokens: int) -> JSONObject | None:
    # Thinking excludes forced tools, and a conversation with tool calls would have to bring its old thoughts along.
    forced = request.tool_choice is not None and request.tool_choice.mode in ("required", "named")
    budget = min(_THINKING_BUDGETS.get(request.reasoning_effort or "", 0), max_tokens - 1)
    if forced or budget < 1024 or any(message.tool_calls for message in request.messages):
        return None
    return {"type": "enabled", "budget_tokens": budget}


def _output_config(request: ChatRequest, can: Capabilities) -> JSONObject | None:
    config: JSONObject = {}
    effort = None if can.thinking_budget else _effort(request, can)
    if effort is not None:
        config["effort"] = effort
    if request.output_format is not None and request.output_format.kind == "json_schema":
        config["format"] = _schema_format(request.output_format)
    return config or None


def _effort(request: ChatRequest, can: Capabilities) -> str | None:
    if request.reasoning_effort == "none" and can.thinking_optional:
        return None
    return clamp_reasoning_effort(request.reasoning_effort, can.efforts)


def _schema_format(chosen: OutputFormat) -> JSONObject:
    return {"type": "json_schema", "schema": chosen.schema}


# Answers

_Tokens = Annotated[int, Meta(ge=0)]


class _CacheCreation(Struct):
    ephemeral_1h_input_tokens: _Tokens | None = None


class _OutputDetails(Struct):
    thinking_tokens: _Tokens | None = None


class _Usage(Struct):
    input_tokens: _Tokens | None = None
    cache_creation_input_tokens: _Tokens | None = None
    cache_read_input_tokens: _Tokens | None = None
    cache_creation: _CacheCreation | None = None
    output_tokens: _Tokens | None = None
    output_tokens_details: _OutputDetails | None = None
    #: Whatever these are, they must not make an answer unreadable.
    service_tier: Any = None
    inference_geo: Any = None
    speed: Any = None


class _Block(Struct):
    type: str
    text: str = ""
    thinking: str = ""
    id: str = ""
    name: str = ""
    input: dict[str, Any] | None = None


class _Message(Struct):
    id: str = ""
    model: str = ""
    content: list[_Block] = []
    stop_reason: str | None = None
    usage: _Usage | None = None


class _Delta(Struct):
    type: str | None = None
    text: str = ""
    partial_json: str = ""
    thinking: str = ""
    stop_reason: str | None = None


class _Event(Struct):
    """Any event of a stream; which fields are set depends on `type`. Unknown types must be ignored."""

    type: str
    message: _Message | None = None
    index: int = 0
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: _Usage | None = None
    error: AnthropicErrorBody | None = None


_FINISH_REASONS = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "pause_turn": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "refusal": FinishReason.CONTENT_FILTER,
}


def to_completion(body: bytes) -> Completion:
    """Return the answer that a body holds; raise BadResponse if it holds none."""
    message: _Message = _decode(body, _Message)
    return Completion(
        id=message.id,
        model=message.model,
        text="".join(block.text for block in message.content if block.type == "text"),
        finish_reason=_finish_reason(message.stop_reason),
        usage=to_usage(message.usage),
        tool_calls=tuple(
            ToolCall(block.id, block.name, msgspec.json.encode(block.input or {}).decode())
            for block in message.content
            if block.type == "tool_use"
        ),
        reasoning="".join(block.thinking for block in message.content if block.type == "thinking"),
        tier=to_tier(message.usage),
        body=body,
    )


def to_usage(usage: _Usage | None) -> Usage | None:
    if usage is None or usage.input_tokens is None:
        return None
    cached = usage.cache_read_input_tokens or 0
    written = usage.cache_creation_input_tokens or 0
    written_1h = usage.cache_creation.ephemeral_1h_input_tokens if usage.cache_creation else None
    thinking = usage.output_tokens_details.thinking_tokens if usage.output_tokens_details else None
    output = usage.output_tokens or 0
    return Usage(
        # Here the cache's tokens are not part of the input; in ours they are.
        input_tokens=usage.input_tokens + cached + written,
        output_tokens=output,
        cached_input_tokens=cached,
        cache_write_tokens=written,
        cache_write_1h_tokens=min(written_1h or 0, written),
        reasoning_tokens=min(thinking or 0, output),
    )


def to_tier(usage: _Usage | None) -> Tier | None:
    """Return the tier that an answer says was used; None if it says nothing definite."""
    if usage is None:
        return None
    if usage.speed is not None or usage.inference_geo is not None:
        tier = anthropic.to_tier(usage.speed, usage.inference_geo)
        if tier is not Tier.STANDARD:
            return tier
    match usage.service_tier:
        case "priority":
            return Tier.PRIORITY
        case "batch":
            return Tier.BATCH
    return None if usage.speed is None else Tier.STANDARD


def _finish_reason(word: str | None) -> FinishReason:
    if word is None or (reason := _FINISH_REASONS.get(word)) is None:
        raise BadResponse(f"The provider's answer ends with the unknown reason {str(word)[:40]!r}.")
    return reason


def _decode(body: bytes, shape: type[Any]) -> Any:
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise BadResponse(f"The provider's answer could not be read: {error}") from None


# Streams


@dataclass(slots=True)
class _OpenToolCall:
    """A tool call that is being streamed: its number among the tool calls, and whether its input has begun."""

    number: int
    has_input: bool = False


@dataclass(slots=True)
class AnthropicStreamDecoder:
    """Reads the frames of one stream. `finished` is set by `message_stop` after a stop reason, and by nothing else."""

    finished: AnswerFinished | None = None
    #: Which tier is used: the last one said.
    tier: Tier | None = None
    _reason: str | None = None
    _usage: _Usage = field(default_factory=_Usage)
    _is_counted: bool = False
    #: By the index of their content block.
    _calls: dict[int, _OpenToolCall] = field(default_factory=dict)

    @property
    def usage(self) -> Usage | None:
        """What the call used, once all of it is said: at the beginning that is the prompt only."""
        return to_usage(self._usage) if self._is_counted else None

    def read(self, frame: Frame) -> list[StreamEvent]:
        """Return what one frame brings. Raises BadResponse, or what an error event says."""
        return list(self._events(_decode(frame.data, _Event)))

    def _events(self, event: _Event) -> Iterator[StreamEvent]:
        match event:
            case _Event(type="message_start", message=_Message() as message):
                self._usage = _merge_usage(self._usage, message.usage)
                self.tier = to_tier(self._usage)
                yield AnswerStarted(message.id, message.model)
            case _Event(type="content_block_start", content_block=_Block() as block):
                yield from self._start_block(event.index, block)
            case _Event(type="content_block_delta", delta=_Delta() as delta):
                yield from self._continue_block(event.index, delta)
            case _Event(type="content_block_stop"):
                yield from self._stop_block(event.index)
            case _Event(type="message_delta"):
                self._usage = _merge_usage(self._usage, event.usage)
                self.tier = to_tier(self._usage)
                self._is_counted = event.usage is not None and event.usage.output_tokens is not None
                self._reason = (event.delta and event.delta.stop_reason) or self._reason
            case _Event(type="message_stop") if self._reason is not None:
                self.finished = AnswerFinished(_finish_reason(self._reason), to_usage(self._usage))
            case _Event(type="error"):
                raise to_stream_error(event.error or AnthropicErrorBody())

    def read_last(self, frame: Frame) -> None:
        """Take a frame that the end of the connection completed; the last event may lack its blank line."""
        if frame.event == "message_stop":
            self.read(frame)

    def _start_block(self, index: int, block: _Block) -> Iterator[StreamEvent]:
        match block.type:
            case "tool_use":
                # Numbered by tool calls, not by blocks: text comes in blocks too.
                call = self._calls[index] = _OpenToolCall(len(self._calls), has_input=bool(block.input))
                yield ToolCallStarted(call.number, block.id, block.name)
                if block.input:
                    yield ToolCallDelta(call.number, msgspec.json.encode(block.input).decode())
            case "text" if block.text:
                yield TextDelta(block.text)
            case "thinking" if block.thinking:
                yield ReasoningDelta(block.thinking)
            case "text" | "thinking" | "redacted_thinking":
                return
            case _:
                yield OpaqueDelta("")

    def _continue_block(self, index: int, delta: _Delta) -> Iterator[StreamEvent]:
        match delta.type:
            case "text_delta" if delta.text:
                yield TextDelta(delta.text)
            case "thinking_delta" if delta.thinking:
                yield ReasoningDelta(delta.thinking)
            case "input_json_delta" if delta.partial_json:
                if (call := self._calls.get(index)) is None:
                    yield OpaqueDelta(
                        delta.partial_json
                    )  # the input of a server tool, which is the vendor's own business
                    return
                call.has_input = True
                yield ToolCallDelta(call.number, delta.partial_json)

    def _stop_block(self, index: int) -> Iterator[StreamEvent]:
        # A tool without arguments gets no delta; as JSON that is an empty object.
        if (call := self._calls.get(index)) is not None and not call.has_input:
            call.has_input = True
            yield ToolCallDelta(call.number, "{}")


def _merge_usage(known: _Usage, update: _Usage | None) -> _Usage:
    """Return usage with what `update` brings. The counts are cumulative: the last one that is given counts."""
    if update is None:
        return known
    return _Usage(
        *(new if new is not None else old for old, new in zip(_usage_values(known), _usage_values(update), strict=True))
    )


def _usage_values(usage: _Usage) -> tuple[Any, ...]:
    return msgspec.structs.astuple(usage)
