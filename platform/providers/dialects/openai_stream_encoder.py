"""Streams in OpenAI's dialect, server side: chunks encoded from events, or passed through."""

import msgspec
from msgspec import Raw, Struct

from providers.dialects.error_payloads import ErrorPayload, encode_openai_error
from providers.dialects.openai import encode_usage
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
)

DONE = Frame("", b"[DONE]")


class OpenAIStreamEncoder:
    """Encodes events as chunks. `answer_id` is ours; the model has the provider's name for it, if that was sent.

    With `include_usage` the last chunk before the end marker holds the usage, unless the provider sent none.
    """

    def __init__(self, answer_id: str, created: int, model: str, include_usage: bool = False) -> None:
        self._id = answer_id
        self._created = created
        self._include_usage = include_usage
        self._is_started = False
        self._is_ended = False
        #: The number of tool calls so far, and of those before the current provider.
        self._calls = 0
        self._call_offset = 0
        self._name(model)

    def encode(self, burst: Burst) -> list[Frame]:
        frames: list[Frame] = []
        for event in () if self._is_ended else burst.events:
            if not self._is_started:
                frames.append(self._start(event))
            match event:
                case TextDelta(text) if text:
                    # Without a JSON encoder, and first: most frames are of this kind.
                    frames.append(Frame("", self._text_head + encode_json_string(text) + self._text_tail))
                case ReasoningDelta(text) if text:
                    frames.append(self._delta(b'{"reasoning_content":' + encode_json_string(text) + b"}"))
                case ToolCallStarted():
                    self._calls += 1
                    frames.append(self._delta(_tool_call(event, self._call_offset + event.index)))
                case ToolCallDelta(index, arguments) if arguments:
                    head = b'{"tool_calls":[{"index":%d,"function":{"arguments":' % (self._call_offset + index)
                    frames.append(self._delta(head + encode_json_string(arguments) + b"}}]}"))
                case AnswerFinished():
                    frames += self._end(event)
        return frames

    def encode_interruption(self, error: ErrorPayload) -> list[Frame]:
        return [] if self._is_ended else [Frame("", encode_openai_error(error))]

    def continue_with(self, provider: str) -> tuple[StreamEncoder, list[Frame]]:
        if self._is_started:
            self.resume(calls=self._calls)
        # With an empty delta: some clients read the first choice of every chunk.
        chunk = self._delta_head + b"{}" + self._delta_tail
        return self, [Frame("", chunk[:-1] + b',"nightdesk":' + encode_continuation_marker(provider) + b"}")]

    def resume(self, *, calls: int) -> None:
        """Continue an answer that has started and has this many tool calls."""
        self._is_started = True
        # A provider that continues an answer numbers its tool calls from 0.
        self._calls = self._call_offset = calls

    def _name(self, model: str) -> None:
        """Encode what all chunks have in common."""
        self._model = model
        head: JSONObject = {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": model,
        }
        self._head = msgspec.json.encode(head)[:-1] + b',"choices":['
        self._delta_head = self._head + b'{"index":0,"delta":'
        self._tail = b'],"usage":null}' if self._include_usage else b"]}"
        self._delta_tail = b',"logprobs":null,"finish_reason":null}' + self._tail
        self._text_head = self._delta_head + b'{"content":'
        self._text_tail = b"}" + self._delta_tail

    def _start(self, event: StreamEvent) -> Frame:
        self._is_started = True
        if isinstance(event, AnswerStarted):
            self._id = self._id or event.id
            self._name(event.model or self._model)
        return self._delta(b'{"role":"assistant","content":"","refusal":null}')

    def _delta(self, delta: bytes) -> Frame:
        return Frame("", self._delta_head + delta + self._delta_tail)

    def _end(self, event: AnswerFinished) -> list[Frame]:
        self._is_ended = True
        reason = b'{},"logprobs":null,"finish_reason":"%b"}' % event.reason.value.encode()
        frames = [Frame("", self._delta_head + reason + self._tail)]
        if self._include_usage and event.usage is not None:
            usage = msgspec.json.encode(encode_usage(event.usage))
            frames.append(Frame("", self._head + b'],"usage":' + usage + b"}"))
        return [*frames, DONE]


def _tool_call(event: ToolCallStarted, index: int) -> bytes:
    call = {
        "index": index,
        "id": event.id,
        "type": "function",
        "function": {"name": event.name, "arguments": ""},
    }
    return msgspec.json.encode({"tool_calls": [call]})


class _Chunk(Struct):
    """The fields of a chunk that passing it through needs."""

    id: str | None = None
    created: int | None = None
    model: str | None = None
    choices: list[Raw] | None = None
    usage: dict[str, Raw] | None = None


class OpenAIPassthroughEncoder:
    """Passes on the chunks of a provider of this dialect unchanged, without usage that the caller did not request.

    We always request usage. The end marker waits for `AnswerFinished`: some servers send it after an interruption, too.
    """

    def __init__(self, include_usage: bool = False) -> None:
        self._include_usage = include_usage
        self._is_ended = False
        #: The state that another provider would need to continue: the first chunk, and the number of tool calls.
        self._first: bytes | None = None
        self._calls = 0

    def encode(self, burst: Burst) -> list[Frame]:
        if self._is_ended:
            return []
        frames = [frame for frame in burst.frames if frame.data != DONE.data and self._is_wanted(frame.data)]
        if self._first is None:
            self._first = next((frame.data for frame in frames if b'"delta"' in frame.data), None)
        for event in burst.events:
            if isinstance(event, ToolCallStarted):
                self._calls += 1
            elif isinstance(event, AnswerFinished):
                self._is_ended = True
                frames.append(DONE)
        return frames

    def encode_interruption(self, error: ErrorPayload) -> list[Frame]:
        return [] if self._is_ended else [Frame("", encode_openai_error(error))]

    def continue_with(self, provider: str) -> tuple[StreamEncoder, list[Frame]]:
        first = _parse_chunk(self._first or b"{}")
        encoder = OpenAIStreamEncoder(first.id or "", first.created or 0, first.model or "", self._include_usage)
        if self._first is not None:
            encoder.resume(calls=self._calls)
        return encoder.continue_with(provider)

    def _is_wanted(self, data: bytes) -> bool:
        # All chunks with content have a delta, so that few chunks of a stream are decoded.
        if self._include_usage or b'"delta"' in data:
            return True
        chunk = _parse_chunk(data)
        # Azure's first chunk has no choices either: it holds the results of its filters on the prompt.
        return bool(chunk.choices) or chunk.usage is None


def _parse_chunk(data: bytes) -> _Chunk:
    try:
        return msgspec.json.decode(data, type=_Chunk)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return _Chunk()
