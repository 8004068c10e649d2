"""OpenAI's dialect, client side: neutral requests to payloads, response bodies and streams to neutral answers."""

import base64
import binascii
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from providers.capabilities import Capabilities, clamp_reasoning_effort
from providers.catalogue import ModelInfo
from providers.dialects.openai import SERVICE_TIERS, encode_tool_call
from providers.dialects.openai_upstream_errors import OpenAIErrorBody, to_stream_error
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
    EmbeddingRequest,
    Embeddings,
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
    ToolChoice,
    Usage,
)


@dataclass(frozen=True, slots=True)
class OpenAIFlavor:
    """How one server of this dialect differs from OpenAI's own."""

    #: Many compatible servers accept only the older `max_tokens`; OpenAI's reasoning models reject it.
    max_tokens_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    #: Whether `stream_options.include_usage` may be sent. Without it a stream's usage has to be estimated.
    stream_usage: bool = True
    #: Whether the role "developer", the newer name of "system", is accepted.
    developer_role: bool = True


OPENAI_FLAVOR = OpenAIFlavor()
COMPATIBLE_FLAVOR = OpenAIFlavor(max_tokens_field="max_tokens", developer_role=False)


# Requests


def to_payload(
    request: ChatRequest, *, stream: bool = False, flavor: OpenAIFlavor = OPENAI_FLAVOR, model: ModelInfo | None = None
) -> JSONObject:
    """Return the body to send. `model` is None if the catalogue does not know it: then nothing is adapted.

    Raises UnsupportedFeature for what this dialect or model cannot express.
    """
    capabilities = model.capabilities if model else None
    effort = _effort(request, capabilities)
    if request.original is not None and request.original.dialect is Dialect.OPENAI:
        return _passthrough_payload(request, request.original, effort, stream=stream, flavor=flavor, model=model)
    if request.untranslatable is not None:
        raise UnsupportedFeature(request.untranslatable.message)
    payload: JSONObject = {
        "model": request.model,
        "messages": [_message(message) for message in request.messages],
        _max_tokens_field(flavor, capabilities): _max_tokens(request, model),
        "n": request.choice_count if request.choice_count > 1 else None,
        **_sampling(request, capabilities, effort),
        "stop": list(request.stop) or None,
        "reasoning_effort": effort,
        "verbosity": request.verbosity if capabilities is None or capabilities.verbosity else None,
        "seed": request.seed,
        "user": request.user,
        "response_format": _response_format(request.output_format),
        **_tools(request),
    }
    if stream:
        payload["stream"] = True
        payload["stream_options"] = {"include_usage": True} if flavor.stream_usage else None
    return {key: value for key, value in payload.items() if value is not None}


#: Rejected by reasoning models, and omitted for them.
_SAMPLING_FIELDS = ("temperature", "top_p", "presence_penalty", "frequency_penalty")


def _passthrough_payload(
    request: ChatRequest,
    original: OriginalRequest,
    effort: str | None,
    *,
    stream: bool,
    flavor: OpenAIFlavor,
    model: ModelInfo | None,
) -> JSONObject:
    """Return the caller's own body, changed only where Nightdesk, the server or the model requires it."""
    capabilities = model.capabilities if model else None
    payload: JSONObject = {**original.fields, "model": request.model}
    for name in ("stream", "stream_options", "max_tokens", "max_completion_tokens"):
        payload.pop(name, None)
    if (max_tokens := _max_tokens(request, model)) is not None:
        payload[_max_tokens_field(flavor, capabilities)] = max_tokens
    if capabilities is not None and not capabilities.takes_sampling(effort):
        for name in _SAMPLING_FIELDS:
            payload.pop(name, None)
    if capabilities is not None and not capabilities.verbosity:
        payload.pop("verbosity", None)
    if effort is not None:
        payload["reasoning_effort"] = effort
    elif request.reasoning_effort is not None:
        del payload["reasoning_effort"]
    if not flavor.developer_role:
        payload["messages"] = _replace_developer_role(original.fields["messages"])
    if stream:
        payload["stream"] = True
        if options := _stream_options(original.fields.get("stream_options"), flavor):
            payload["stream_options"] = options
    return payload


def _replace_developer_role(messages: Raw) -> Raw | list[JSONObject]:
    if b'"developer"' not in bytes(messages):
        return messages
    decoded: list[JSONObject] = msgspec.json.decode(messages, type=list[dict[str, Raw]])
    for message in decoded:
        if bytes(message["role"]) == b'"developer"':
            message["role"] = Role.SYSTEM.value
    return decoded


def _stream_options(original: Raw | None, flavor: OpenAIFlavor) -> JSONObject:
    fields = msgspec.json.decode(original, type=dict[str, Raw] | None) if original is not None else None
    options: JSONObject = {name: value for name, value in (fields or {}).items() if name != "include_usage"}
    return {**options, "include_usage": True} if flavor.stream_usage else options


def to_embedding_payload(request: EmbeddingRequest) -> JSONObject:
    """Return the body to send. No `encoding_format`: some compatible servers reject it, and we decode both."""
    payload = {
        **request.extra_fields,
        "model": request.model,
        "input": list(request.inputs),
        "dimensions": request.dimensions,
        "user": request.user,
    }
    return {key: value for key, value in payload.items() if value is not None}


def _message(message: ChatMessage) -> JSONObject:
    body: JSONObject = {"role": message.role.value, "content": _content(message)}
    if message.tool_calls:
        body["tool_calls"] = [encode_tool_call(call) for call in message.tool_calls]
    if message.role is Role.TOOL:
        body["tool_call_id"] = message.tool_call_id
    return body


def _content(message: ChatMessage) -> str | list[JSONObject] | None:
    match message.parts:
        case ():
            return None if message.tool_calls else ""
        case (TextPart(text),):
            return text
        case parts:
            return [_part(part, message.role) for part in parts]


def _part(part: ContentPart, role: Role) -> JSONObject:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if not isinstance(part, ImagePart):
        raise UnsupportedFeature("The request has a content part that only another dialect has.")
    if role is not Role.USER:
        raise UnsupportedFeature(
            f"This provider accepts images in user messages only, not in messages with role {role.value}."
        )
    image: JSONObject = {"url": part.url or f"data:{part.media_type};base64,{part.data}"}
    if part.detail is not None:
        image["detail"] = part.detail
    return {"type": "image_url", "image_url": image}


def _max_tokens_field(flavor: OpenAIFlavor, capabilities: Capabilities | None) -> str:
    return "max_completion_tokens" if capabilities is not None and capabilities.efforts else flavor.max_tokens_field


def _max_tokens(request: ChatRequest, model: ModelInfo | None) -> int | None:
    if request.max_tokens is None or model is None or model.max_output is None:
        return request.max_tokens
    # More than the model's maximum is an error there. It is an upper bound, so the model's own means the same.
    return min(request.max_tokens, model.max_output)


def _effort(request: ChatRequest, capabilities: Capabilities | None) -> str | None:
    """Return the effort to send: the strongest accepted up to the requested one. A hint, so never an error."""
    if capabilities is None:
        return request.reasoning_effort
    if request.tools and capabilities.tools_require_effort_none:
        return _effort_with_tools(request, capabilities)
    return clamp_reasoning_effort(request.reasoning_effort, capabilities.efforts)


def _effort_with_tools(request: ChatRequest, capabilities: Capabilities) -> str:
    # In chat completions these models call tools only without reasoning; with it they require /v1/responses.
    if "none" not in capabilities.efforts or request.reasoning_effort not in (None, "none"):
        raise UnsupportedFeature(
            f"Model {request.model} accepts tools here only with reasoning_effort 'none'"
            + ("." if "none" in capabilities.efforts else ", which it does not accept.")
        )
    return "none"


def _sampling(request: ChatRequest, capabilities: Capabilities | None, effort: str | None) -> JSONObject:
    # Omitted rather than rejected: the route chose the model, and these settings are hints.
    if capabilities is not None and not capabilities.takes_sampling(effort):
        return {}
    return {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
    }


def _tools(request: ChatRequest) -> JSONObject:
    # OpenAI rejects both settings if there are no tools.
    if not request.tools:
        return {}
    return {
        "tools": [{"type": "function", "function": _function(tool)} for tool in request.tools],
        "tool_choice": _tool_choice(request.tool_choice),
        "parallel_tool_calls": request.parallel_tool_calls,
    }


def _function(tool: Tool) -> JSONObject:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.strict,
    }
    return {key: value for key, value in function.items() if value is not None}


def _tool_choice(choice: ToolChoice | None) -> str | JSONObject | None:
    if choice is None:
        return None
    return {"type": "function", "function": {"name": choice.name}} if choice.mode == "named" else choice.mode


def _response_format(chosen: OutputFormat | None) -> JSONObject | None:
    if chosen is None:
        return None
    if chosen.kind != "json_schema":
        return {"type": chosen.kind}
    schema = {
        # Required here, and absent in Anthropic's dialect.
        "name": chosen.name or "answer",
        "description": chosen.description,
        "schema": chosen.schema,
        "strict": chosen.strict,
    }
    return {
        "type": "json_schema",
        "json_schema": {key: value for key, value in schema.items() if value is not None},
    }


# Answers

_Tokens = Annotated[int, Meta(ge=0)]


class _PromptDetails(Struct):
    cached_tokens: _Tokens | None = None
    cache_write_tokens: _Tokens | None = None


class _CompletionDetails(Struct):
    reasoning_tokens: _Tokens | None = None


class _Usage(Struct):
    prompt_tokens: _Tokens | None = None
    completion_tokens: _Tokens | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _Function(Struct):
    """The function of a tool call, or a custom tool, whose arguments are named `input`."""

    name: str | None = None
    arguments: str | None = None
    input: str | None = None


class _ToolCall(Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None
    custom: _Function | None = None

    @property
    def called(self) -> _Function:
        return self.function or self.custom or _Function()


class _Audio(Struct):
    transcript: str | None = None


class _MessageOrDelta(Struct):
    """A complete message, or the delta of a chunk."""

    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_ToolCall] | None = None
    function_call: _Function | None = None
    audio: _Audio | None = None

    def opaque_text(self) -> str | None:
        """Return the text of content that has no neutral form, for token counts; None if there is none."""
        if self.audio is not None:
            return self.audio.transcript or ""
        call = self.function_call
        return (call.name or "") + (call.arguments or "") if call is not None else None

    def all_text(self) -> str:
        """Return all text in it, for token counts."""
        calls = [call.called for call in self.tool_calls or ()]
        texts = [self.reasoning_content or self.reasoning, self.content, self.refusal, self.opaque_text()]
        texts += [text for call in calls for text in (call.name, call.arguments, call.input)]
        return "".join(filter(None, texts))


class _Choice(Struct):
    index: int = 0
    message: _MessageOrDelta | None = None
    delta: _MessageOrDelta | None = None
    finish_reason: str | None = None


class _Body(Struct):
    """A completion or one chunk of it; may hold an error instead, with status 200."""

    id: str | None = None
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    #: Any type: an unexpected value must not make an answer unreadable.
    service_tier: Any = None
    error: OpenAIErrorBody | str | None = None


class _Vector(Struct):
    embedding: list[float] | str
    index: int | None = None


class _EmbeddingList(Struct):
    data: list[_Vector]
    model: str = ""
    usage: _Usage | None = None


#: OpenAI's finish reasons, and those of compatible servers.
_FINISH_REASONS = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "model_length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
}


def to_completion(body: bytes) -> Completion:
    """Return the answer of a body; raise BadResponse, or the error that the body holds instead."""
    answer = _decode(body, _Body)
    if answer.error is not None:
        raise to_stream_error(answer.error)
    first, *others = sorted(answer.choices or (), key=lambda choice: choice.index) or (None,)
    if first is None or (message := first.message) is None:
        raise BadResponse("The provider's answer contains no message.")
    return Completion(
        id=answer.id or "",
        model=answer.model or "",
        text=message.content or "",
        finish_reason=_finish_reason(first.finish_reason),
        usage=to_usage(answer.usage),
        tool_calls=tuple(_to_tool_call(call, index) for index, call in enumerate(message.tool_calls or ())),
        reasoning=message.reasoning_content or message.reasoning or "",
        refusal=message.refusal,
        tier=to_tier(answer.service_tier),
        other_choices=(*_opaque_texts(message), *(other.message.all_text() for other in others if other.message)),
        body=body,
    )


def to_embeddings(body: bytes, inputs: int) -> Embeddings:
    """Return the vectors of a body in the order of the `inputs` that were sent."""
    answer = _decode(body, _EmbeddingList)
    rows = sorted(enumerate(answer.data), key=lambda row: row[0] if row[1].index is None else row[1].index)
    if len(rows) != inputs:
        raise BadResponse(f"The provider returned {len(rows)} vectors for {inputs} inputs.")
    vectors = tuple(_vector(row.embedding) for _, row in rows)
    return Embeddings(answer.model, vectors, to_usage(answer.usage), body)


def to_usage(usage: _Usage | None) -> Usage | None:
    if usage is None or usage.prompt_tokens is None:
        return None
    prompt = usage.prompt_tokens_details or _PromptDetails()
    completion = usage.completion_tokens_details or _CompletionDetails()
    # Bounded by the total, so that no difference of counts is ever negative.
    cached = min(prompt.cached_tokens or 0, usage.prompt_tokens)
    return Usage(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens or 0,
        cached_input_tokens=cached,
        cache_write_tokens=min(prompt.cache_write_tokens or 0, usage.prompt_tokens - cached),
        reasoning_tokens=min(completion.reasoning_tokens or 0, usage.completion_tokens or 0),
    )


def to_tier(service_tier: Any) -> Tier | None:
    """Return the tier that an answer reports; None if it reports none that is definite."""
    return SERVICE_TIERS.get(service_tier) if isinstance(service_tier, str) else None


def _opaque_texts(message: _MessageOrDelta) -> tuple[str, ...]:
    text = message.opaque_text()
    return () if text is None else (text,)


def _to_tool_call(call: _ToolCall, index: int) -> ToolCall:
    called = call.called
    if not called.name:
        raise BadResponse("The provider's answer calls a tool without a name.")
    return ToolCall(call.id or f"call_{index}", called.name, called.arguments or called.input or "{}")


def _finish_reason(value: str | None) -> FinishReason:
    if value is None or (reason := _FINISH_REASONS.get(value)) is None:
        raise BadResponse(f"The provider's answer ends with the unknown reason {str(value)[:40]!r}.")
    return reason


def _vector(embedding: list[float] | str) -> tuple[float, ...]:
    if isinstance(embedding, list):
        return tuple(embedding)
    try:
        numbers = array("f", base64.b64decode(embedding, validate=True))
    except (binascii.Error, ValueError) as error:
        raise BadResponse("The provider's vector is not base64 of float32 numbers.") from error
    if sys.byteorder == "big":
        numbers.byteswap()
    return tuple(numbers)


def _decode(body: bytes, shape: type[Any]) -> Any:
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise BadResponse(f"The provider's answer could not be read: {error}") from None


# Streams


@dataclass(slots=True)
class _OpenToolCall:
    """A tool call that is being streamed: its number among the tool calls, and its id."""

    number: int
    id: str


@dataclass(slots=True)
class OpenAIStreamDecoder:
    """Decodes the frames of one stream. Only `[DONE]` after the finish reasons of all choices sets `finished`.

    The first of `choice_count` choices is decoded; of the others only the text is kept, for token counts.
    """

    choice_count: int = 1
    finished: AnswerFinished | None = None
    #: The tier that the provider reported last.
    tier: Tier | None = None
    _started: bool = False
    #: By the index of the choice.
    _reasons: dict[int, str] = field(default_factory=dict)
    _usage: _Usage | None = None
    _refused: bool = False
    _calls: dict[int, _OpenToolCall] = field(default_factory=dict)
    _call_count: int = 0

    def decode(self, frame: Frame) -> list[StreamEvent]:
        """Return the events of one frame. Raises BadResponse, or the error of an error frame."""
        events: list[StreamEvent] = []
        if frame.data == b"[DONE]":
            self._end()
            return events
        chunk: _Body = _decode(frame.data, _Body)
        if chunk.error is not None:
            raise to_stream_error(chunk.error)
        self._usage = chunk.usage or self._usage
        if chunk.service_tier is not None:
            self.tier = to_tier(chunk.service_tier) or self.tier
        for choice in chunk.choices or ():
            # The first chunk with a choice, not the first chunk: Azure opens with one that has neither id nor model.
            if not self._started:
                self._started = True
                events.append(AnswerStarted(chunk.id or "", chunk.model or ""))
            if choice.finish_reason:
                self._reasons[choice.index] = choice.finish_reason
            if choice.delta is not None:
                events += self._deltas(choice.delta) if choice.index == 0 else _opaque_deltas(choice.delta.all_text())
        return events

    @property
    def usage(self) -> Usage | None:
        """The usage of the call, once it was reported and all choices are complete."""
        return to_usage(self._usage) if self._is_complete else None

    def decode_trailing(self, frame: Frame) -> None:
        """Decode a frame that the end of the connection completed. Only an end marker is known to be complete."""
        if frame.data == b"[DONE]":
            self._end()

    def _end(self) -> None:
        # Without a finish reason of each choice the stream was interrupted, whatever the marker says.
        if self._is_complete:
            self.finished = AnswerFinished(_finish_reason(self._reasons[0]), to_usage(self._usage), self._refused)

    @property
    def _is_complete(self) -> bool:
        return all(index in self._reasons for index in range(self.choice_count))

    def _deltas(self, delta: _MessageOrDelta) -> list[StreamEvent]:
        events: list[StreamEvent] = []
        if reasoning := delta.reasoning_content or delta.reasoning:
            events.append(ReasoningDelta(reasoning))
        self._refused = self._refused or bool(delta.refusal)
        # A refusal is the text of the answer; there is no other.
        if text := delta.content or delta.refusal:
            events.append(TextDelta(text))
        for fragment in delta.tool_calls or ():
            events += self._tool_call(fragment)
        if (opaque_text := delta.opaque_text()) is not None:
            events.append(OpaqueDelta(opaque_text))
        return events

    def _tool_call(self, fragment: _ToolCall) -> Iterator[StreamEvent]:
        function = fragment.called
        call = self._open_call(fragment)
        if call is None:
            if not function.name:
                raise BadResponse("The provider's stream calls a tool without a name.")
            call = self._open_new_call(fragment)
            yield ToolCallStarted(call.number, call.id, function.name)
        if arguments := function.arguments or function.input:
            yield ToolCallDelta(call.number, arguments)

    def _open_call(self, fragment: _ToolCall) -> _OpenToolCall | None:
        """Return the call that a fragment belongs to; None if it starts a new one.

        Some servers give every parallel call the same index, or none: then another id means another call.
        """
        call = self._calls.get(self._index(fragment))
        if call is not None and fragment.id and fragment.id != call.id:
            return None
        return call

    def _open_new_call(self, fragment: _ToolCall) -> _OpenToolCall:
        call = _OpenToolCall(self._call_count, fragment.id or f"call_{self._call_count}")
        self._calls[self._index(fragment)] = call
        self._call_count += 1
        return call

    def _index(self, fragment: _ToolCall) -> int:
        return 0 if fragment.index is None else fragment.index


def _opaque_deltas(text: str) -> list[StreamEvent]:
    return [OpaqueDelta(text)] if text else []
