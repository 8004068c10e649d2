"""Streams in Anthropic's dialect, server side: events of content blocks, encoded or passed through."""

from typing import Any, TypeAlias

import msgspec
from msgspec import Raw, Struct

from providers.dialects.anthropic import encode_usage, stop_reason
from providers.dialects.error_payloads import ErrorPayload, encode_anthropic_error
from providers.dialects.stream_encoder import StreamEncoder, encode_continuation_marker, encode_json_string
from providers.sse import Frame
from providers.types import (
    AnswerFinished,
    AnswerStarted,
    Burst,
    JSONObject,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)

#: The content of a block: the number of a tool call (0 and above), or one of these.
TEXT_BLOCK = -1
THINKING_BLOCK = -2
NO_BLOCK = -3
#: A block that gets no more content; it is closed when the next one is opened.
ABANDONED_BLOCK = -4

#: The events between the start and the end of a message.
ContentEvent: TypeAlias = TextDelta | ReasoningDelta | ToolCallStarted | ToolCallDelta

#: The other fields are sent with the start of the message only.
_FINAL_USAGE_FIELDS = (
    "input_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "cache_creation",
    "output_tokens",
    "output_tokens_details",
)

_BLOCK_STARTS = {
    TEXT_BLOCK: b'{"type":"text","text":""}',
    THINKING_BLOCK: b'{"type":"thinking","thinking":"","signature":""}',
}


class AnthropicStreamEncoder:
    """Encodes the events of one message. `answer_id` is ours; the model has the provider's name for it.

    `input_tokens` is an estimate: this dialect sends it with the start of the message, but other providers report it at
    the end, where it is corrected. Without usage from the provider the end reports no output tokens: the dialect
    requires the field.

    In this dialect blocks do not overlap; in others tool calls may. A block that would start while the open tool call
    may still continue waits for the end of the stream; a call whose arguments are a complete object has ended.
    """

    def __init__(self, answer_id: str, model: str, input_tokens: int = 0, *, request_id: str | None = None) -> None:
        self._id = answer_id
        self._model = model
        self._input_tokens = input_tokens
        self._request_id = request_id
        self._is_started = False
        self._is_ended = False
        #: The number of tool calls so far, and of those before the current provider.
        self._calls = 0
        self._call_offset = 0
        self._open = NO_BLOCK
        self._index = -1
        self._delta_head = b""
        #: Of the open tool call.
        self._arguments: list[str] = []
        self._pending_events: dict[int, list[ContentEvent]] = {}

    def encode(self, burst: Burst) -> list[Frame]:
        frames: list[Frame] = []
        for event in () if self._is_ended else burst.events:
            if not self._is_started:
                frames.append(self._start(event))
            match event:
                case TextDelta(text) if self._open == TEXT_BLOCK and text:
                    # Without a JSON encoder, and first: most frames are of this kind.
                    frames.append(Frame("content_block_delta", self._delta_head + encode_json_string(text) + b"}}"))
                case AnswerFinished():
                    frames += self._end(event)
                case TextDelta() | ReasoningDelta() | ToolCallStarted() | ToolCallDelta():
                    frames += self._encode_content(event)
        return frames

    def encode_interruption(self, error: ErrorPayload) -> list[Frame]:
        return [] if self._is_ended else [Frame("error", encode_anthropic_error(error, self._request_id))]

    def continue_with(self, provider: str) -> tuple[StreamEncoder, list[Frame]]:
        if self._is_started:
            self.resume(index=self._index, block=self._open, calls=self._calls)
        return self, [_continuation_frame(provider)]

    def resume(self, *, index: int, block: int, calls: int) -> None:
        """Continue a message that has this many tool calls and whose open block has this index and content."""
        self._is_started = True
        self._index = index
        # A provider that continues an answer numbers its tool calls from 0.
        self._calls = self._call_offset = calls
        self._open = ABANDONED_BLOCK if block >= 0 else block
        self._delta_head = _delta_head(index, block)

    def _start(self, event: StreamEvent) -> Frame:
        self._is_started = True
        if isinstance(event, AnswerStarted):
            self._id, self._model = self._id or event.id, event.model or self._model
        message: JSONObject = {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "stop_details": None,
            "usage": encode_usage(Usage(input_tokens=self._input_tokens)),
        }
        return _frame("message_start", message=message)

    def _encode_content(self, event: ContentEvent) -> list[Frame]:
        block = self._block_of(event)
        if isinstance(event, ToolCallStarted):
            self._calls += 1
        elif not _text_of(event) or self._is_late_delta(event, block):
            return []
        if block != self._open and (self._pending_events or not self._may_close()):
            self._pending_events.setdefault(block, []).append(event)
            return []
        return self._write(block, event)

    def _block_of(self, event: ContentEvent) -> int:
        match event:
            case TextDelta():
                return TEXT_BLOCK
            case ReasoningDelta():
                return THINKING_BLOCK
            case ToolCallStarted(index) | ToolCallDelta(index):
                return self._call_offset + index

    def _may_close(self) -> bool:
        return self._open < 0 or _is_complete_object("".join(self._arguments))

    def _is_late_delta(self, event: ContentEvent, block: int) -> bool:
        """Return whether these are arguments after a complete object: only white space can follow it."""
        return isinstance(event, ToolCallDelta) and block != self._open and block not in self._pending_events

    def _write(self, block: int, event: ContentEvent) -> list[Frame]:
        """Return the frames of an event whose block is open or can be opened."""
        if isinstance(event, ToolCallStarted):
            return self._open_block(block, _tool_use(event))
        opened = [] if block == self._open else self._open_block(block, _BLOCK_STARTS[block])
        text = _text_of(event)
        if isinstance(event, ToolCallDelta):
            self._arguments.append(text)
        return [*opened, Frame("content_block_delta", self._delta_head + encode_json_string(text) + b"}}")]

    def _open_block(self, block: int, content: bytes) -> list[Frame]:
        closed = self._close_block()
        self._index += 1
        self._open = block
        self._arguments = []
        self._delta_head = _delta_head(self._index, block)
        start = b'{"type":"content_block_start","index":%d,"content_block":%b}' % (self._index, content)
        return [*closed, Frame("content_block_start", start)]

    def _close_block(self) -> list[Frame]:
        if self._open == NO_BLOCK:
            return []
        self._open = NO_BLOCK
        return [_frame("content_block_stop", index=self._index)]

    def _end(self, event: AnswerFinished) -> list[Frame]:
        frames: list[Frame] = []
        for block, events in self._pending_events.items():
            for waiting in events:
                frames += self._write(block, waiting)
        self._is_ended = True
        frames += self._close_block()
        reason = "refusal" if event.refused else stop_reason(event.reason, has_calls=self._calls > 0)
        delta = {"stop_reason": reason, "stop_sequence": None}
        frames.append(_frame("message_delta", delta=delta, usage=_final_usage(event.usage)))
        return [*frames, _frame("message_stop")]


def _delta_head(index: int, block: int) -> bytes:
    return b'{"type":"content_block_delta","index":%d,"delta":{%b:' % (index, _delta_prefix(block))


def _delta_prefix(block: int) -> bytes:
    match block:
        case _ if block == TEXT_BLOCK:
            return b'"type":"text_delta","text"'
        case _ if block == THINKING_BLOCK:
            return b'"type":"thinking_delta","thinking"'
        case _:
            return b'"type":"input_json_delta","partial_json"'


def _text_of(event: TextDelta | ReasoningDelta | ToolCallDelta) -> str:
    return event.arguments if isinstance(event, ToolCallDelta) else event.text


def _tool_use(call: ToolCallStarted) -> bytes:
    return msgspec.json.encode({"type": "tool_use", "id": call.id, "name": call.name, "input": {}})


def _is_complete_object(arguments: str) -> bool:
    """Return whether the text is a JSON object, so that only white space can follow."""
    try:
        msgspec.json.decode(arguments, type=dict[str, Raw])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True


def _final_usage(usage: Usage | None) -> JSONObject:
    if usage is None:
        return {"output_tokens": 0}
    return {field: count for field, count in encode_usage(usage).items() if field in _FINAL_USAGE_FIELDS}


def _continuation_frame(provider: str) -> Frame:
    # A ping may occur anywhere, and every client skips it.
    return Frame("ping", b'{"type":"ping","nightdesk":' + encode_continuation_marker(provider) + b"}")


def _frame(event: str, **fields: Any) -> Frame:
    return Frame(event, msgspec.json.encode({"type": event, **fields}))


class _Message(Struct):
    id: str = ""
    model: str = ""


class _Block(Struct):
    type: str = ""


class _Event(Struct):
    """The fields of an event that passing it through needs."""

    type: str = ""
    message: _Message | None = None
    content_block: _Block | None = None


_BLOCK_KINDS = {"text": TEXT_BLOCK, "thinking": THINKING_BLOCK}


class AnthropicPassthroughEncoder:
    """Passes on the events of a provider of this dialect unchanged. `message_stop` waits for `AnswerFinished`."""

    def __init__(self, *, request_id: str | None = None) -> None:
        self._request_id = request_id
        self._is_ended = False
        self._message_start = b""
        #: The number of blocks so far, and the event that opened the current one.
        self._blocks = 0
        self._block_start = b""
        self._calls = 0

    def encode(self, burst: Burst) -> list[Frame]:
        frames = [] if self._is_ended else [_with_event_name(frame) for frame in burst.frames]
        for frame in frames:
            self._track_state(frame)
        if burst.events and isinstance(burst.events[-1], AnswerFinished):
            self._is_ended = True
            return frames
        return [frame for frame in frames if frame.event != "message_stop"]

    def encode_interruption(self, error: ErrorPayload) -> list[Frame]:
        return [] if self._is_ended else [Frame("error", encode_anthropic_error(error, self._request_id))]

    def continue_with(self, provider: str) -> tuple[StreamEncoder, list[Frame]]:
        message = _parse_event(self._message_start).message or _Message()
        encoder = AnthropicStreamEncoder(message.id, message.model, request_id=self._request_id)
        if self._message_start:
            encoder.resume(index=self._blocks - 1, block=self._open_block(), calls=self._calls)
        return encoder, [_continuation_frame(provider)]

    def _track_state(self, frame: Frame) -> None:
        """Remember the state that another provider would need to continue."""
        match frame.event:
            case "content_block_delta":
                return
            case "message_start":
                self._message_start = frame.data
            case "content_block_start":
                self._blocks += 1
                self._block_start = frame.data
                self._calls += b'"tool_use"' in frame.data
            case "content_block_stop":
                self._block_start = b""

    def _open_block(self) -> int:
        block = _parse_event(self._block_start).content_block
        return NO_BLOCK if block is None else _BLOCK_KINDS.get(block.type, ABANDONED_BLOCK)


def _with_event_name(frame: Frame) -> Frame:
    """Return a frame with an event name: the official client skips frames without one."""
    return frame if frame.event else Frame(_parse_event(frame.data).type, frame.data)


def _parse_event(data: bytes) -> _Event:
    try:
        return msgspec.json.decode(data, type=_Event)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return _Event()
