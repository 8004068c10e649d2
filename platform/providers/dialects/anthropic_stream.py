"""Anthropic's dialect of a stream, with us as the server: events of content blocks, made or passed through."""

from typing import Any, TypeAlias

import msgspec
from msgspec import Raw, Struct

from providers.dialects.anthropic import encode_usage, stop_reason
from providers.dialects.encoding import StreamEncoder, mark, quoted
from providers.dialects.error_bodies import Fault, anthropic_error
from providers.dialects.sse import Frame
from providers.types import (
    Burst,
    Finished,
    JSONObject,
    ReasoningDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)

#: What one block holds: the number of a tool call, or one of these.
TEXT = -1
THINKING = -2
NOTHING = -3
#: A block that nothing more will come for; it is closed when the next is opened.
LEFT = -4

#: What is said, between the beginning of a message and its end.
Said: TypeAlias = TextDelta | ReasoningDelta | ToolCallStarted | ToolCallDelta

#: The rest of it was said at the beginning.
_USAGE_AT_THE_END = (
    "input_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "cache_creation",
    "output_tokens",
    "output_tokens_details",
)

_STARTS = {
    TEXT: b'{"type":"text","text":""}',
    THINKING: b'{"type":"thinking","thinking":"","signature":""}',
}


class AnthropicStream:
    """Makes the events of one message. `answer_id` is ours; the model is called what the provider calls it.

    `input_tokens` is an estimate: this dialect says it at the beginning, and others learn it at the end, where it is
    then corrected. Without usage from the provider the end counts no output: the dialect cannot leave it out.

    Blocks come one after the other here, and elsewhere tool calls may overlap. What would begin while a call may still
    go on waits for the end of the stream; a call whose arguments are whole does not go on.
    """

    def __init__(self, answer_id: str, model: str, input_tokens: int = 0, *, request_id: str | None = None) -> None:
        self._id = answer_id
        self._model = model
        self._input_tokens = input_tokens
        self._request_id = request_id
        self._is_started = False
        self._is_ended = False
        #: How many tool calls there were, and how many of them before this provider began.
        self._calls = 0
        self._calls_before = 0
        self._open = NOTHING
        self._index = -1
        self._delta_head = b""
        #: Of the tool call that is open.
        self._arguments: list[str] = []
        self._waiting: dict[int, list[Said]] = {}

    def encode(self, burst: Burst) -> list[Frame]:
        frames: list[Frame] = []
        for event in () if self._is_ended else burst.events:
            if not self._is_started:
                frames.append(self._start(event))
            match event:
                case TextDelta(text) if self._open == TEXT and text:
                    # By hand, and first: most of all that is ever sent is this.
                    frames.append(Frame("content_block_delta", self._delta_head + quoted(text) + b"}}"))
                case Finished():
                    frames += self._end(event)
                case TextDelta() | ReasoningDelta() | ToolCallStarted() | ToolCallDelta():
                    frames += self._say(event)
        return frames

    def interrupt(self, error: Fault) -> list[Frame]:
        return [] if self._is_ended else [Frame("error", anthropic_error(error, self._request_id))]

    def continued(self, provider: str) -> tuple[StreamEncoder, list[Frame]]:
        if self._is_started:
            self.take_over(index=self._index, block=self._open, calls=self._calls)
        return self, [_continued(provider)]

    def take_over(self, *, index: int, block: int, calls: int) -> None:
        """Go on with a message that has this many tool calls, and this block open, which is the one of this index."""
        self._is_started = True
        self._index = index
        # A provider that goes on with an answer begins its own tool calls.
        self._calls = self._calls_before = calls
        self._open = LEFT if block >= 0 else block
        self._delta_head = _delta_head(index, block)

    def _start(self, event: StreamEvent) -> Frame:
        self._is_started = True
        if isinstance(event, Started):
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

    def _say(self, event: Said) -> list[Frame]:
        block = self._block_of(event)
        if isinstance(event, ToolCallStarted):
            self._calls += 1
        elif not _text_of(event) or self._comes_too_late(event, block):
            return []
        if block != self._open and (self._waiting or not self._may_close()):
            self._waiting.setdefault(block, []).append(event)
            return []
        return self._write(block, event)

    def _block_of(self, event: Said) -> int:
        match event:
            case TextDelta():
                return TEXT
            case ReasoningDelta():
                return THINKING
            case ToolCallStarted(index) | ToolCallDelta(index):
                return self._calls_before + index

    def _may_close(self) -> bool:
        return self._open < 0 or _is_whole("".join(self._arguments))

    def _comes_too_late(self, event: Said, block: int) -> bool:
        """Arguments after those that were whole: nothing but white space can follow."""
        return isinstance(event, ToolCallDelta) and block != self._open and block not in self._waiting

    def _write(self, block: int, event: Said) -> list[Frame]:
        """Return the frames of an event whose block is open, or can be opened."""
        if isinstance(event, ToolCallStarted):
            return self._open_block(block, _tool_use(event))
        opened = [] if block == self._open else self._open_block(block, _STARTS[block])
        text = _text_of(event)
        if isinstance(event, ToolCallDelta):
            self._arguments.append(text)
        return [*opened, Frame("content_block_delta", self._delta_head + quoted(text) + b"}}")]

    def _open_block(self, block: int, content: bytes) -> list[Frame]:
        closed = self._close_block()
        self._index += 1
        self._open = block
        self._arguments = []
        self._delta_head = _delta_head(self._index, block)
        start = b'{"type":"content_block_start","index":%d,"content_block":%b}' % (self._index, content)
        return [*closed, Frame("content_block_start", start)]

    def _close_block(self) -> list[Frame]:
        if self._open == NOTHING:
            return []
        self._open = NOTHING
        return [_frame("content_block_stop", index=self._index)]

    def _end(self, event: Finished) -> list[Frame]:
        frames: list[Frame] = []
        for block, events in self._waiting.items():
            for waiting in events:
                frames += self._write(block, waiting)
        self._is_ended = True
        frames += self._close_block()
        reason = "refusal" if event.refused else stop_reason(event.reason, has_calls=self._calls > 0)
        delta = {"stop_reason": reason, "stop_sequence": None}
        frames.append(_frame("message_delta", delta=delta, usage=_usage(event.usage)))
        return [*frames, _frame("message_stop")]


def _delta_head(index: int, block: int) -> bytes:
    return b'{"type":"content_block_delta","index":%d,"delta":{%b:' % (index, _delta_of(block))


def _delta_of(block: int) -> bytes:
    match block:
        case _ if block == TEXT:
            return b'"type":"text_delta","text"'
        case _ if block == THINKING:
            return b'"type":"thinking_delta","thinking"'
        case _:
            return b'"type":"input_json_delta","partial_json"'


def _text_of(event: TextDelta | ReasoningDelta | ToolCallDelta) -> str:
    return event.arguments if isinstance(event, ToolCallDelta) else event.text


def _tool_use(call: ToolCallStarted) -> bytes:
    return msgspec.json.encode({"type": "tool_use", "id": call.id, "name": call.name, "input": {}})


def _is_whole(arguments: str) -> bool:
    """Return whether nothing that counts can follow: the text is a JSON object."""
    try:
        msgspec.json.decode(arguments, type=dict[str, Raw])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True


def _usage(usage: Usage | None) -> JSONObject:
    if usage is None:
        return {"output_tokens": 0}
    return {field: count for field, count in encode_usage(usage).items() if field in _USAGE_AT_THE_END}


def _continued(provider: str) -> Frame:
    # A ping may come anywhere, and every client skips it.
    return Frame("ping", b'{"type":"ping","nightdesk":' + mark(provider) + b"}")


def _frame(event: str, **fields: Any) -> Frame:
    return Frame(event, msgspec.json.encode({"type": event, **fields}))


class _Message(Struct):
    id: str = ""
    model: str = ""


class _Block(Struct):
    type: str = ""


class _Event(Struct):
    """As little of an event as passing it through needs."""

    type: str = ""
    message: _Message | None = None
    content_block: _Block | None = None


_BLOCKS = {"text": TEXT, "thinking": THINKING}


class AnthropicThrough:
    """Passes the events of a provider of this dialect on as they are. The last waits for `Finished`."""

    def __init__(self, *, request_id: str | None = None) -> None:
        self._request_id = request_id
        self._is_ended = False
        self._message_start = b""
        #: How many blocks were begun, and what began the one that is open.
        self._blocks = 0
        self._block_start = b""
        self._calls = 0

    def encode(self, burst: Burst) -> list[Frame]:
        frames = [] if self._is_ended else [_named(frame) for frame in burst.frames]
        for frame in frames:
            self._note(frame)
        if burst.events and isinstance(burst.events[-1], Finished):
            self._is_ended = True
            return frames
        return [frame for frame in frames if frame.event != "message_stop"]

    def interrupt(self, error: Fault) -> list[Frame]:
        return [] if self._is_ended else [Frame("error", anthropic_error(error, self._request_id))]

    def continued(self, provider: str) -> tuple[StreamEncoder, list[Frame]]:
        message = _read(self._message_start).message or _Message()
        encoder = AnthropicStream(message.id, message.model, request_id=self._request_id)
        if self._message_start:
            encoder.take_over(index=self._blocks - 1, block=self._open_block(), calls=self._calls)
        return encoder, [_continued(provider)]

    def _note(self, frame: Frame) -> None:
        """Remember what another provider would need to know to go on."""
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
        block = _read(self._block_start).content_block
        return NOTHING if block is None else _BLOCKS.get(block.type, LEFT)


def _named(frame: Frame) -> Frame:
    """Return a frame with its name: the official client skips those that have none."""
    return frame if frame.event else Frame(_read(frame.data).type, frame.data)


def _read(data: bytes) -> _Event:
    try:
        return msgspec.json.decode(data, type=_Event)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return _Event()
