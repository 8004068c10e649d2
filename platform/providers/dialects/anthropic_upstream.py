"""Anthropic's dialect, client side: neutral requests to payloads, response bodies and streams to neutral answers."""

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

#: The API version of our payloads. 2026-10-21 rejects sampling settings for every model; this one leaves that to the
#: model, which the catalogue knows, and our payloads need nothing of the newer version.
API_VERSION = "2023-06-01"

#: `max_tokens` is required. Every model in service accepts this; for models that the catalogue does not know.
DEFAULT_MAX_TOKENS = 4096

#: The thinking budget in tokens of each reasoning effort, for models that accept a budget.
_THINKING_BUDGETS = {"low": 1024, "medium": 4096, "high": 16_384, "xhigh": 24_576, "max": 32_768}

_NULL = Raw(b"null")

# Requests


def to_payload(request: ChatRequest, *, stream: bool = False, model: ModelInfo | None = None) -> JSONObject:
    """Return the body to send. `model` is None if the catalogue does not know it: then nothing is adapted.

    Seed, penalties and verbosity have no counterpart in this dialect and are omitted: they are hints.
    Raises UnsupportedFeature for what this dialect or model cannot express.
    """
    original = (
        request.original if request.original is not None and request.original.dialect is Dialect.ANTHROPIC else None
    )
    if original is None and request.untranslatable is not None:
        raise UnsupportedFeature(request.untranslatable.message)
    capabilities = model.capabilities if model else Capabilities(efforts=("low", "medium", "high", "xhigh", "max"))
    _check_supported(request, capabilities)
    max_tokens = _max_tokens(request, model)
    thinking = _thinking(request, capabilities, max_tokens)
    if original is not None:
        return _passthrough_payload(request, original, capabilities, max_tokens, thinking, stream=stream)
    payload: JSONObject = {
        "model": request.model,
        "max_tokens": max_tokens,
        "system": _system(request.messages),
        "messages": list(_messages(request.messages)),
        "stop_sequences": list(request.stop) or None,
        **_sampling(request, capabilities, thinking),
        "tools": [_tool(tool) for tool in request.tools] or None,
        "tool_choice": _tool_choice(request),
        "thinking": thinking,
        "output_config": _output_config(request, capabilities),
        "metadata": {"user_id": request.user} if request.user else None,
        "stream": stream or None,
    }
    return {key: value for key, value in payload.items() if value is not None}


def _passthrough_payload(
    request: ChatRequest,
    original: OriginalRequest,
    capabilities: Capabilities,
    max_tokens: int,
    thinking: JSONObject | None,
    *,
    stream: bool,
) -> JSONObject:
    """Return the caller's own body, changed only where Nightdesk or the model requires it."""
    payload: JSONObject = {**original.fields, "model": request.model, "max_tokens": max_tokens}
    payload.pop("stream", None)
    if not capabilities.takes_sampling(None):
        for name in ("temperature", "top_p", "top_k"):
            payload.pop(name, None)
    if not _accepts_original_thinking(original, capabilities, max_tokens):
        payload["thinking"] = thinking
        payload["output_config"] = _passthrough_output_config(request, original, capabilities)
    if stream:
        payload["stream"] = True
    return {name: value for name, value in payload.items() if value is not None}


def _accepts_original_thinking(original: OriginalRequest, capabilities: Capabilities, max_tokens: int) -> bool:
    """Return whether a model accepts the caller's thinking and effort settings; if not, they are translated."""
    effort = _decode_field(_original_object(original, "output_config"), "effort")
    if effort is not None and (capabilities.thinking_budget or effort not in capabilities.efforts):
        return False
    thinking = _original_object(original, "thinking")
    match _decode_field(thinking, "type"):
        case "enabled":
            takes_budget = capabilities.thinking_budget or capabilities.sampling == "always"
            return takes_budget and int(_decode_field(thinking, "budget_tokens")) < max_tokens
        case "disabled":
            return capabilities.thinking_optional
        case "adaptive":
            return not capabilities.thinking_budget
        case _:
            return True


def _passthrough_output_config(
    request: ChatRequest, original: OriginalRequest, capabilities: Capabilities
) -> JSONObject | None:
    effort = None if capabilities.thinking_budget else _effort(request, capabilities)
    config: JSONObject = {**_original_object(original, "output_config"), "effort": effort}
    return {name: value for name, value in config.items() if value is not None} or None


def _original_object(original: OriginalRequest, name: str) -> dict[str, Raw]:
    """Return an object field of the caller's body; empty if it was not sent."""
    return msgspec.json.decode(original.fields.get(name, _NULL), type=dict[str, Raw] | None) or {}


def _decode_field(fields: Mapping[str, Raw], name: str) -> Any:
    return msgspec.json.decode(fields.get(name, _NULL))


def _check_supported(request: ChatRequest, capabilities: Capabilities) -> None:
    chosen = request.output_format
    if chosen is not None and chosen.kind == "json_object":
        raise UnsupportedFeature("This provider has no JSON mode without a schema. Use response_format json_schema.")
    if chosen is not None and chosen.kind == "json_schema":
        if not capabilities.structured_output:
            raise UnsupportedFeature(f"Model {request.model} does not support structured output.")
        if chosen.schema is None:
            raise UnsupportedFeature("This provider supports structured output only with a schema.")
    if request.tool_choice and request.tool_choice.mode in ("required", "named") and not capabilities.forced_tools:
        raise UnsupportedFeature(f"Model {request.model} cannot be forced to use a tool. Use tool_choice 'auto'.")
    if request.choice_count > 1:
        raise UnsupportedFeature("This provider returns only one choice per request.")
    if any(not sequence.strip() for sequence in request.stop):
        raise UnsupportedFeature("This provider does not accept a stop sequence of white space only.")


def _max_tokens(request: ChatRequest, model: ModelInfo | None) -> int:
    cap = model.max_output if model and model.max_output else None
    if request.max_tokens is None:
        return cap or DEFAULT_MAX_TOKENS
    # More than the model's maximum is an error there. It is an upper bound, so the model's own means the same.
    return min(request.max_tokens, cap) if cap else request.max_tokens


def _system(messages: Iterable[ChatMessage]) -> str | None:
    texts = [part.text for message in messages if message.role is Role.SYSTEM for part in _texts(message.parts)]
    return "\n\n".join(texts) or None


def _messages(messages: Iterable[ChatMessage]) -> Iterator[JSONObject]:
    """Yield the turns. Consecutive tool results and the user message after them become one user message."""
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
    # Empty text blocks are an error in this dialect.
    return [_block(part) for part in parts if part != TextPart("")]


def _block(part: ContentPart) -> JSONObject:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if not isinstance(part, ImagePart):
        raise UnsupportedFeature("The request has a content part that only another dialect has.")
    if part.url is not None:
        return {"type": "image", "source": {"type": "url", "url": part.url}}
    return {"type": "image", "source": {"type": "base64", "media_type": part.media_type, "data": part.data}}


def _texts(parts: tuple[ContentPart, ...]) -> list[TextPart]:
    return [part for part in parts if isinstance(part, TextPart) and part.text]


def _sampling(request: ChatRequest, capabilities: Capabilities, thinking: JSONObject | None) -> JSONObject:
    if not capabilities.takes_sampling(None) or (thinking and thinking["type"] == "enabled"):
        return {}
    if request.temperature is not None:
        # OpenAI's scale goes to 2. Most models reject both settings together, and temperature is the stronger one.
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


def _thinking(request: ChatRequest, capabilities: Capabilities, max_tokens: int) -> JSONObject | None:
    if request.reasoning_effort is None:
        return None
    if capabilities.thinking_budget:
        return _thinking_budget(request, max_tokens)
    # Models before the fifth generation think only on request.
    thinks_by_default = capabilities.sampling == "never"
    switched_off = request.reasoning_effort == "none" and thinks_by_default and capabilities.thinking_optional
    return {"type": "disabled"} if switched_off else None


def _thinking_budget(request: ChatRequest, max_tokens: int) -> JSONObject | None:
    # Thinking excludes forced tools, and a conversation with tool calls would have to include its earlier thinking.
    forced = request.tool_choice is not None and request.tool_choice.mode in ("required", "named")
    budget = min(_THINKING_BUDGETS.get(request.reasoning_effort or "", 0), max_tokens - 1)
    if forced or budget < 1024 or any(message.tool_calls for message in request.messages):
        return None
    return {"type": "enabled", "budget_tokens": budget}


def _output_config(request: ChatRequest, capabilities: Capabilities) -> JSONObject | None:
    config: JSONObject = {}
    effort = None if capabilities.thinking_budget else _effort(request, capabilities)
    if effort is not None:
        config["effort"] = effort
    if request.output_format is not None and request.output_format.kind == "json_schema":
        config["format"] = _schema_format(request.output_format)
    return config or None


def _effort(request: ChatRequest, capabilities: Capabilities) -> str | None:
    if request.reasoning_effort == "none" and capabilities.thinking_optional:
        return None
    return clamp_reasoning_effort(request.reasoning_effort, capabilities.efforts)


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
    #: Any type: an unexpected value must not make an answer unreadable.
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
    """Return the answer of a body; raise BadResponse if it contains none."""
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
        # In this dialect cached and cache-written tokens are not part of the input; in `Usage` they are.
        input_tokens=usage.input_tokens + cached + written,
        output_tokens=output,
        cached_input_tokens=cached,
        cache_write_tokens=written,
        cache_write_1h_tokens=min(written_1h or 0, written),
        reasoning_tokens=min(thinking or 0, output),
    )


def to_tier(usage: _Usage | None) -> Tier | None:
    """Return the tier that an answer reports; None if it reports none that is definite."""
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


def _finish_reason(value: str | None) -> FinishReason:
    if value is None or (reason := _FINISH_REASONS.get(value)) is None:
        raise BadResponse(f"The provider's answer ends with the unknown reason {str(value)[:40]!r}.")
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
    """Decodes the frames of one stream. Only `message_stop` after a stop reason sets `finished`."""

    finished: AnswerFinished | None = None
    #: The tier that the provider reported last.
    tier: Tier | None = None
    _reason: str | None = None
    _usage: _Usage = field(default_factory=_Usage)
    _is_counted: bool = False
    #: By the index of their content block.
    _calls: dict[int, _OpenToolCall] = field(default_factory=dict)

    @property
    def usage(self) -> Usage | None:
        """The usage of the call, once it is complete: the first event reports the prompt only."""
        return to_usage(self._usage) if self._is_counted else None

    def decode(self, frame: Frame) -> list[StreamEvent]:
        """Return the events of one frame. Raises BadResponse, or the error of an error event."""
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

    def decode_trailing(self, frame: Frame) -> None:
        """Decode a frame that the end of the connection completed; the last event may lack its blank line."""
        if frame.event == "message_stop":
            self.decode(frame)

    def _start_block(self, index: int, block: _Block) -> Iterator[StreamEvent]:
        match block.type:
            case "tool_use":
                # Numbered by tool calls, not by blocks: text is in blocks, too.
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
                    # The input of a server tool, which only the vendor uses.
                    yield OpaqueDelta(delta.partial_json)
                    return
                call.has_input = True
                yield ToolCallDelta(call.number, delta.partial_json)

    def _stop_block(self, index: int) -> Iterator[StreamEvent]:
        # A tool call without arguments has no delta; its arguments are an empty JSON object.
        if (call := self._calls.get(index)) is not None and not call.has_input:
            call.has_input = True
            yield ToolCallDelta(call.number, "{}")


def _merge_usage(known: _Usage, update: _Usage | None) -> _Usage:
    """Return usage with the fields of `update` replaced. The counts are cumulative: the last reported one counts."""
    if update is None:
        return known
    return _Usage(
        *(new if new is not None else old for old, new in zip(_usage_values(known), _usage_values(update), strict=True))
    )


def _usage_values(usage: _Usage) -> tuple[Any, ...]:
    return msgspec.structs.astuple(usage)
