"""OpenAI's dialect with us as the client: neutral requests to payloads, bodies and streams to neutral answers."""

import base64
import binascii
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from providers.capabilities import Capabilities, strongest_within
from providers.catalogue import Model
from providers.dialects.openai import encode_tool_call
from providers.dialects.openai_errors import ErrorBody, to_stream_error
from providers.dialects.sse import Frame
from providers.errors import BadResponse, Unsupported
from providers.types import (
    ChatRequest,
    Completion,
    EmbeddingRequest,
    Embeddings,
    Finished,
    FinishReason,
    ImagePart,
    JSONObject,
    Message,
    OutputFormat,
    ReasoningDelta,
    Role,
    Started,
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
class Flavor:
    """How one server of this dialect differs from OpenAI's own."""

    #: Many compatible servers know only the older `max_tokens`; OpenAI's reasoning models refuse it.
    max_tokens_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    #: Whether `stream_options.include_usage` may be sent. Without it a stream's usage has to be estimated.
    stream_usage: bool = True


OPENAI = Flavor()
COMPATIBLE = Flavor(max_tokens_field="max_tokens")


# Requests


def to_payload(
    request: ChatRequest, *, stream: bool = False, flavor: Flavor = OPENAI, model: Model | None = None
) -> JSONObject:
    """Return the body to send. `model` is None where the catalogue does not know it: then nothing is adapted.

    Raises Unsupported for what this dialect or model cannot express.
    """
    can = model.capabilities if model else None
    effort = _effort(request, can)
    payload: JSONObject = {
        "model": request.model,
        "messages": [_message(message) for message in request.messages],
        _max_tokens_field(flavor, can): _max_tokens(request, model),
        **_sampling(request, can, effort),
        "stop": list(request.stop) or None,
        "reasoning_effort": effort,
        "verbosity": request.verbosity if can is None or can.verbosity else None,
        "seed": request.seed,
        "user": request.user,
        "response_format": _response_format(request.output_format),
        **_tools(request),
    }
    if stream:
        payload["stream"] = True
        payload["stream_options"] = {"include_usage": True} if flavor.stream_usage else None
    return {key: value for key, value in payload.items() if value is not None}


def to_embedding_payload(request: EmbeddingRequest) -> JSONObject:
    """Return the body to send. No `encoding_format`: compatible servers stumble over it, and we read both."""
    payload = {
        "model": request.model,
        "input": list(request.inputs),
        "dimensions": request.dimensions,
        "user": request.user,
    }
    return {key: value for key, value in payload.items() if value is not None}


def _message(message: Message) -> JSONObject:
    body: JSONObject = {"role": message.role.value, "content": _content(message)}
    if message.tool_calls:
        body["tool_calls"] = [encode_tool_call(call) for call in message.tool_calls]
    if message.role is Role.TOOL:
        body["tool_call_id"] = message.tool_call_id
    return body


def _content(message: Message) -> str | list[JSONObject] | None:
    match message.parts:
        case ():
            return None if message.tool_calls else ""
        case (TextPart(text),):
            return text
        case parts:
            return [_part(part, message.role) for part in parts]


def _part(part: TextPart | ImagePart, role: Role) -> JSONObject:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if role is not Role.USER:
        raise Unsupported(f"This provider takes images in user messages only, not in messages with role {role.value}.")
    image: JSONObject = {"url": part.url or f"data:{part.media_type};base64,{part.data}"}
    if part.detail is not None:
        image["detail"] = part.detail
    return {"type": "image_url", "image_url": image}


def _max_tokens_field(flavor: Flavor, can: Capabilities | None) -> str:
    return "max_completion_tokens" if can is not None and can.efforts else flavor.max_tokens_field


def _max_tokens(request: ChatRequest, model: Model | None) -> int | None:
    if request.max_tokens is None or model is None or model.max_output is None:
        return request.max_tokens
    # More than the model can give is an error there; it is an upper bound, so the model's own means the same.
    return min(request.max_tokens, model.max_output)


def _effort(request: ChatRequest, can: Capabilities | None) -> str | None:
    """Return the effort to send: the strongest the model knows up to the one asked for. A hint, so never an error."""
    if can is None:
        return request.reasoning_effort
    if request.tools and can.tools_need_no_effort:
        return _effort_with_tools(request, can)
    return strongest_within(request.reasoning_effort, can.efforts)


def _effort_with_tools(request: ChatRequest, can: Capabilities) -> str:
    # These models call tools in chat completions only while they do not reason; otherwise it takes /v1/responses.
    if "none" not in can.efforts or request.reasoning_effort not in (None, "none"):
        raise Unsupported(
            f"Model {request.model} takes tools here only with reasoning_effort 'none'"
            + ("." if "none" in can.efforts else ", which it does not accept.")
        )
    return "none"


def _sampling(request: ChatRequest, can: Capabilities | None, effort: str | None) -> JSONObject:
    # Dropped rather than refused: the route chose the model, and the caller's wish is a matter of degree.
    if can is not None and not can.takes_sampling(effort):
        return {}
    return {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
    }


def _tools(request: ChatRequest) -> JSONObject:
    # Both settings are errors at OpenAI where there are no tools.
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
        # Required here, and unknown to Anthropic's dialect.
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
    name: str | None = None
    arguments: str | None = None


class _ToolCall(Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Said(Struct):
    """A whole message, or the part of it that a chunk brings."""

    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(Struct):
    index: int = 0
    message: _Said | None = None
    delta: _Said | None = None
    finish_reason: str | None = None


class _Body(Struct):
    """A completion or one chunk of it; an error may stand in its place, with status 200."""

    id: str | None = None
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: ErrorBody | str | None = None


class _Vector(Struct):
    embedding: list[float] | str
    index: int | None = None


class _EmbeddingList(Struct):
    data: list[_Vector]
    model: str = ""
    usage: _Usage | None = None


#: OpenAI's own words, and what compatible servers say for the same.
_FINISH_REASONS = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "model_length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
}


def to_completion(body: bytes) -> Completion:
    """Return the answer that a body holds; raise BadResponse, or what an error in its place says."""
    answer = _decoded(body, _Body)
    if answer.error is not None:
        raise to_stream_error(answer.error)
    if not answer.choices or (said := answer.choices[0].message) is None:
        raise BadResponse("The provider's answer holds no message.")
    return Completion(
        id=answer.id or "",
        model=answer.model or "",
        text=said.content or "",
        finish_reason=_finish_reason(answer.choices[0].finish_reason),
        usage=to_usage(answer.usage),
        tool_calls=tuple(_whole_call(call, index) for index, call in enumerate(said.tool_calls or ())),
        reasoning=said.reasoning_content or said.reasoning or "",
        refusal=said.refusal,
        body=body,
    )


def to_embeddings(body: bytes, inputs: int) -> Embeddings:
    """Return the vectors of a body in the order of the `inputs` that were sent."""
    answer = _decoded(body, _EmbeddingList)
    rows = sorted(enumerate(answer.data), key=lambda row: row[0] if row[1].index is None else row[1].index)
    if len(rows) != inputs:
        raise BadResponse(f"The provider answered {len(rows)} vectors for {inputs} inputs.")
    vectors = tuple(_vector(row.embedding) for _, row in rows)
    return Embeddings(answer.model, vectors, to_usage(answer.usage), body)


def to_usage(usage: _Usage | None) -> Usage | None:
    if usage is None or usage.prompt_tokens is None:
        return None
    prompt = usage.prompt_tokens_details or _PromptDetails()
    completion = usage.completion_tokens_details or _CompletionDetails()
    # Bounded by the whole, so that no arithmetic on them ever gives less than nothing.
    cached = min(prompt.cached_tokens or 0, usage.prompt_tokens)
    return Usage(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens or 0,
        cached_input_tokens=cached,
        cache_write_tokens=min(prompt.cache_write_tokens or 0, usage.prompt_tokens - cached),
        reasoning_tokens=min(completion.reasoning_tokens or 0, usage.completion_tokens or 0),
    )


def _whole_call(call: _ToolCall, index: int) -> ToolCall:
    if call.function is None or not call.function.name:
        raise BadResponse("The provider's answer calls a tool without a name.")
    return ToolCall(call.id or f"call_{index}", call.function.name, call.function.arguments or "{}")


def _finish_reason(word: str | None) -> FinishReason:
    if word is None or (reason := _FINISH_REASONS.get(word)) is None:
        raise BadResponse(f"The provider's answer ends with the unknown reason {str(word)[:40]!r}.")
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


def _decoded(body: bytes, shape: type[Any]) -> Any:
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise BadResponse(f"The provider's answer could not be read: {error}") from None


# Streams


@dataclass(slots=True)
class _OpenCall:
    """A tool call that is being streamed: its number among ours, and the id it came with."""

    number: int
    id: str


@dataclass(slots=True)
class EventReader:
    """Reads the frames of one stream. `finished` is set by `[DONE]` after a finish reason, and by nothing else."""

    finished: Finished | None = None
    _started: bool = False
    _reason: str | None = None
    _usage: _Usage | None = None
    _refused: bool = False
    _calls: dict[int, _OpenCall] = field(default_factory=dict)
    _call_count: int = 0

    def read(self, frame: Frame) -> list[StreamEvent]:
        """Return what one frame brings. Raises BadResponse, or what an error frame says."""
        events: list[StreamEvent] = []
        if frame.data == b"[DONE]":
            self._end()
            return events
        chunk: _Body = _decoded(frame.data, _Body)
        if chunk.error is not None:
            raise to_stream_error(chunk.error)
        self._usage = chunk.usage or self._usage
        for choice in chunk.choices or ():
            # The first chunk with a choice, not the first chunk: Azure opens with one that has neither id nor model.
            if not self._started:
                self._started = True
                events.append(Started(chunk.id or "", chunk.model or ""))
            if choice.index == 0:
                self._reason = choice.finish_reason or self._reason
                if choice.delta is not None:
                    events += self._deltas(choice.delta)
        return events

    def read_last(self, frame: Frame) -> None:
        """Take a frame that the end of the connection completed. Only an end mark can be trusted to be whole."""
        if frame.data == b"[DONE]":
            self._end()

    def _end(self) -> None:
        # Without a finish reason it is a cut, whatever the mark says.
        if self._reason is not None:
            self.finished = Finished(_finish_reason(self._reason), to_usage(self._usage), self._refused)

    def _deltas(self, delta: _Said) -> list[StreamEvent]:
        events: list[StreamEvent] = []
        if reasoning := delta.reasoning_content or delta.reasoning:
            events.append(ReasoningDelta(reasoning))
        self._refused = self._refused or bool(delta.refusal)
        # A refusal is what the model says; there is nothing else to show.
        if text := delta.content or delta.refusal:
            events.append(TextDelta(text))
        for fragment in delta.tool_calls or ():
            events += self._tool_call(fragment)
        return events

    def _tool_call(self, fragment: _ToolCall) -> Iterator[StreamEvent]:
        function = fragment.function or _Function()
        call = self._open_call(fragment)
        if call is None:
            if not function.name:
                raise BadResponse("The provider's stream calls a tool without a name.")
            call = self._open_new_call(fragment)
            yield ToolCallStarted(call.number, call.id, function.name)
        if function.arguments:
            yield ToolCallDelta(call.number, function.arguments)

    def _open_call(self, fragment: _ToolCall) -> _OpenCall | None:
        """Return the call that a fragment belongs to; None if it begins one.

        Some servers give every parallel call the same index, or none: then another id means another call.
        """
        call = self._calls.get(self._index(fragment))
        if call is not None and fragment.id and fragment.id != call.id:
            return None
        return call

    def _open_new_call(self, fragment: _ToolCall) -> _OpenCall:
        call = _OpenCall(self._call_count, fragment.id or f"call_{self._call_count}")
        self._calls[self._index(fragment)] = call
        self._call_count += 1
        return call

    def _index(self, fragment: _ToolCall) -> int:
        return 0 if fragment.index is None else fragment.index
