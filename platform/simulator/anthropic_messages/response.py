"""Anthropic's Messages API: encodes the answer, complete or as a stream of events."""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from simulator.catalogue import model_for
from simulator.compose import Answer, AnswerStep, Choice, FinishReason, StepKind, Usage
from simulator.controls import Controls
from simulator.neutral_request import NeutralRequest
from simulator.responses import Frame, ResponseIdentity, with_pings

PING = b'event: ping\ndata: {"type": "ping"}\n\n'
#: Events of a stream that are no deltas: message start, block start, ping, block stop, message delta, message stop.
FIXED_EVENTS = 6
TEXT_DELTA = (
    b"event: content_block_delta\n"
    b'data: {"type":"content_block_delta","index":%d,"delta":{"type":"text_delta","text":%b}}\n\n'
)
SIGNATURE = "c2ltdWxhdGVkLXRoaW5raW5nLXNpZ25hdHVyZQ=="

STOP_REASONS: dict[str, str] = {
    FinishReason.STOP: "end_turn",
    FinishReason.STOP_SEQUENCE: "stop_sequence",
    FinishReason.LENGTH: "max_tokens",
    FinishReason.TOOL_CALLS: "tool_use",
    "content_filter": "refusal",
}


class CacheCreation(Struct):
    ephemeral_5m_input_tokens: int
    ephemeral_1h_input_tokens: int = 0


class OutputDetails(Struct):
    thinking_tokens: int


class UsageOut(Struct):
    """`input_tokens` leaves out what was cached; in a stream the output is counted again at the end."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int
    cache_creation: CacheCreation | UnsetType = UNSET
    output_tokens_details: OutputDetails | UnsetType = UNSET
    server_tool_use: None | UnsetType = UNSET
    service_tier: str | UnsetType = UNSET
    inference_geo: str | UnsetType = UNSET
    speed: str | UnsetType = UNSET


class MessageOut(Struct):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[dict[str, Any]]
    stop_reason: str | None
    stop_sequence: str | None
    stop_details: None
    usage: UsageOut | UnsetType


encode = msgspec.json.Encoder().encode


def message(request: NeutralRequest, answer: Answer, identity: ResponseIdentity, controls: Controls) -> bytes:
    choice = answer.choices[0]
    usage = UNSET if controls.drop_usage else to_usage(request, answer.usage, answer.usage.output_tokens)
    content = _content(answer, choice, identity)
    return encode(
        _message(
            request, identity, content, STOP_REASONS.get(choice.finish, choice.finish), choice.stop_sequence, usage
        )
    )


def events(
    request: NeutralRequest, answer: Answer, steps: list[AnswerStep], identity: ResponseIdentity, controls: Controls
) -> list[Frame]:
    frames = [_message_start(request, answer, identity, controls)]
    frames += _blocks(steps, identity, controls)
    frames.append(_message_delta(request, answer, controls))
    if not controls.drop_done:
        frames.append(_event_frame("message_stop", {}, answer.usage.output_tokens))
    return with_pings(frames, controls.ping_every, PING)


def to_usage(request: NeutralRequest, usage: Usage, output_tokens: int) -> UsageOut:
    return UsageOut(
        input_tokens=usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens,
        cache_creation_input_tokens=usage.cache_write_tokens,
        cache_read_input_tokens=usage.cached_tokens,
        output_tokens=output_tokens,
        cache_creation=CacheCreation(usage.cache_write_tokens),
        output_tokens_details=OutputDetails(usage.reasoning_tokens),
        server_tool_use=None,
        service_tier="standard",
        inference_geo=request.inference_geo,
        speed=request.speed,
    )


def message_id(identity: ResponseIdentity) -> str:
    return f"msg_01{identity.token[:22]}"


def tool_use_id(identity: ResponseIdentity, number: int) -> str:
    return f"toolu_01{identity.token[:18]}{number:02d}"


def _message(
    request: NeutralRequest,
    identity: ResponseIdentity,
    content: list[dict[str, Any]],
    stop_reason: str | None,
    stop_sequence: str | None,
    usage: UsageOut | UnsetType,
) -> MessageOut:
    return MessageOut(
        id=message_id(identity),
        type="message",
        role="assistant",
        model=model_for(request.model).snapshot or request.model,
        content=content,
        stop_reason=stop_reason,
        stop_sequence=stop_sequence,
        stop_details=None,
        usage=usage,
    )


def _content(answer: Answer, choice: Choice, identity: ResponseIdentity) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if answer.thinking:
        blocks.append({"type": "thinking", "thinking": answer.thinking, "signature": SIGNATURE})
    if choice.text:
        blocks.append({"type": "text", "text": choice.text})
    for number, call in enumerate(choice.calls):
        arguments = msgspec.Raw(call.arguments.encode())
        blocks.append({"type": "tool_use", "id": tool_use_id(identity, number), "name": call.name, "input": arguments})
    return blocks


def _message_start(request: NeutralRequest, answer: Answer, identity: ResponseIdentity, controls: Controls) -> Frame:
    # Anthropic counts one output token before there is any.
    usage = UNSET if controls.drop_usage else to_usage(request, answer.usage, 1)
    return _event_frame("message_start", {"message": _message(request, identity, [], None, None, usage)}, 0)


def _blocks(steps: list[AnswerStep], identity: ResponseIdentity, controls: Controls) -> list[Frame]:
    """The content blocks one after the other, and the ping that follows the first block's start."""
    writer = _BlockWriter(identity, controls)
    for step in steps:
        writer.add(step)
    writer.close()
    return writer.frames


class _BlockWriter:
    """Opens a block when a step needs another than the one that is open."""

    def __init__(self, identity: ResponseIdentity, controls: Controls) -> None:
        self.frames: list[Frame] = []
        self._identity = identity
        self._controls = controls
        self._open: tuple[bool, bool, int] | None = None
        self._blocks = 0
        self._served = 0

    def add(self, step: AnswerStep) -> None:
        is_call = step.kind in (StepKind.CALL, StepKind.ARGUMENTS)
        block = (step.kind == StepKind.THINKING, is_call, step.call)
        if block != self._open:
            self.close()
            self._start(step, block)
        self._served = step.served_tokens
        if step.kind == StepKind.TEXT and not self._controls.obfuscation:
            # Encoded by hand: most frames of a stream are text deltas.
            self.frames.append(Frame(TEXT_DELTA % (self._index, encode(step.text)), step.served_tokens, is_delta=True))
            return
        self._delta(self._delta_of(step), is_delta=True)

    def close(self) -> None:
        if self._open is None:
            return
        if self._open[0]:
            self._delta({"type": "signature_delta", "signature": SIGNATURE})
        self.frames.append(_event_frame("content_block_stop", {"index": self._index}, self._served))
        self._blocks += 1
        self._open = None

    @property
    def _index(self) -> int:
        return 0 if self._controls.duplicate_tool_index else self._blocks

    def _start(self, step: AnswerStep, block: tuple[bool, bool, int]) -> None:
        self._open = block
        content = self._empty_block(step)
        self.frames.append(
            _event_frame("content_block_start", {"index": self._index, "content_block": content}, self._served)
        )
        if self._blocks == 0:
            self.frames.append(Frame(PING, self._served))
            self._add_huge_line()

    def _empty_block(self, step: AnswerStep) -> dict[str, Any]:
        match step.kind:
            case StepKind.THINKING:
                return {"type": "thinking", "thinking": "", "signature": ""}
            case StepKind.TEXT:
                return {"type": "text", "text": ""}
            case _:
                return {
                    "type": "tool_use",
                    "id": tool_use_id(self._identity, step.call),
                    "name": step.text,
                    "input": {},
                }

    def _delta_of(self, step: AnswerStep) -> dict[str, str]:
        match step.kind:
            case StepKind.THINKING:
                return {"type": "thinking_delta", "thinking": step.text}
            case StepKind.TEXT:
                return {"type": "text_delta", "text": step.text}
            case StepKind.CALL:
                return {"type": "input_json_delta", "partial_json": ""}
            case StepKind.ARGUMENTS:
                return {"type": "input_json_delta", "partial_json": step.text}

    def _delta(self, delta: dict[str, str], is_delta: bool = False) -> None:
        fields: dict[str, Any] = {"index": self._index, "delta": delta}
        if is_delta and self._controls.obfuscation:
            fields["obfuscation"] = "x" * (16 - self._served % 13)
        self.frames.append(_event_frame("content_block_delta", fields, self._served, is_delta))

    def _add_huge_line(self) -> None:
        if self._controls.huge_line:
            self.frames.append(_event_frame("ping", {"padding": "x" * self._controls.huge_line}, self._served))


def _message_delta(request: NeutralRequest, answer: Answer, controls: Controls) -> Frame:
    choice = answer.choices[0]
    usage = answer.usage
    fields: dict[str, Any] = {
        "delta": {
            "stop_reason": STOP_REASONS.get(choice.finish, choice.finish),
            "stop_sequence": choice.stop_sequence,
            "stop_details": None,
        }
    }
    if not controls.drop_usage:
        full = to_usage(request, usage, usage.output_tokens)
        fields["usage"] = {
            "input_tokens": full.input_tokens,
            "cache_creation_input_tokens": full.cache_creation_input_tokens,
            "cache_read_input_tokens": full.cache_read_input_tokens,
            "output_tokens": full.output_tokens,
            "output_tokens_details": full.output_tokens_details,
        }
    return _event_frame("message_delta", fields, usage.output_tokens, reports_usage=not controls.drop_usage)


def _event_frame(
    name: str, fields: dict[str, Any], served_tokens: int, is_delta: bool = False, reports_usage: bool = False
) -> Frame:
    data = b"event: " + name.encode() + b"\ndata: " + encode({"type": name, **fields}) + b"\n\n"
    return Frame(data, served_tokens, is_delta, reports_usage)


def deltas_for(controls: Controls) -> int | None:
    return controls.deltas if controls.events is None else max(1, controls.events - FIXED_EVENTS)
