"""Composes the answer to a request in neutral form: texts, tool calls, usage."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from simulator.controls import Controls
from simulator.neutral_request import NeutralRequest, Tool, ToolMode, to_compact_json
from simulator.prose import NAMES, answer_text, equal_parts, longer_text, split_words
from simulator.schemas import sample_value
from simulator.tokens import BYTES_PER_TOKEN, cut_to_tokens, tokens_of, tokens_of_bytes

#: Characters per streamed piece of tool arguments.
ARGUMENTS_PIECE = 12
SEED_RANGE = 2**64


class FinishReason(StrEnum):
    STOP = "stop"
    STOP_SEQUENCE = "stop_sequence"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"


@dataclass(frozen=True, slots=True)
class ToolCall:
    name: str
    arguments: str
    is_custom: bool = False

    @property
    def tokens(self) -> int:
        return tokens_of(self.name) + tokens_of(self.arguments)


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer; a request may ask for several."""

    text: str
    calls: tuple[ToolCall, ...]
    #: One of `FinishReason`, or whatever the control `finish` says.
    finish: str
    stop_sequence: str | None = None

    @property
    def tokens(self) -> int:
        return tokens_of(self.text) + sum(call.tokens for call in self.calls)


@dataclass(frozen=True, slots=True)
class Usage:
    """`input_tokens` includes what was cached or written to the cache, `output_tokens` includes the reasoning."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    choices: tuple[Choice, ...]
    usage: Usage
    thinking: str = ""


class StepKind(StrEnum):
    THINKING = "thinking"
    TEXT = "text"
    CALL = "call"
    ARGUMENTS = "arguments"


class AnswerStep(NamedTuple):
    """One piece of a streamed answer."""

    kind: StepKind
    choice: int
    #: Which of the choice's tool calls.
    call: int
    text: str
    #: Output tokens up to and including this piece.
    served_tokens: int


def compose(request: NeutralRequest, controls: Controls) -> Answer:
    """What the simulated model answers."""
    reasoning = min(controls.reasoning_tokens, _max_tokens_or_unlimited(request.max_tokens))
    budget = _max_tokens_or_unlimited(request.max_tokens) - reasoning
    choices = tuple(_choice(request, controls, index, budget) for index in range(request.choices))
    cached = min(controls.cached_tokens, request.input_tokens)
    return Answer(
        choices,
        Usage(
            input_tokens=request.input_tokens,
            output_tokens=reasoning + sum(choice.tokens for choice in choices),
            cached_tokens=cached,
            cache_write_tokens=min(controls.cache_write_tokens, request.input_tokens - cached),
            reasoning_tokens=reasoning,
        ),
        thinking=_exact_text(request.seed + 1, request.topic, reasoning) if request.thinking and reasoning else "",
    )


def steps_of(answer: Answer, deltas: int | None) -> list[AnswerStep]:
    """The answer in the order in which it is streamed; the texts of several choices take turns."""
    steps: list[AnswerStep] = []
    served_tokens = 0 if answer.thinking else answer.usage.reasoning_tokens
    if answer.thinking:
        served_tokens = _add_text(steps, StepKind.THINKING, 0, split_words(answer.thinking), served_tokens)
    if len(answer.choices) == 1:
        served_tokens = _add_text(steps, StepKind.TEXT, 0, _pieces(answer.choices[0].text, deltas), served_tokens)
    else:
        served_tokens = _add_texts_in_turn(steps, answer.choices, deltas, served_tokens)
    for index, choice in enumerate(answer.choices):
        for number, call in enumerate(choice.calls):
            served_tokens = _add_call(steps, index, number, call, served_tokens)
    return steps


def _max_tokens_or_unlimited(max_tokens: int | None) -> int:
    return 2**31 if max_tokens is None else max_tokens


def _choice(request: NeutralRequest, controls: Controls, index: int, budget: int) -> Choice:
    seed = (request.seed + index) % SEED_RANGE
    calls = _calls(request, controls, seed)
    if calls:
        return _with_finish_control(_choice_of_calls(calls, budget), controls)
    return _with_finish_control(_choice_of_text(request, controls, seed, budget), controls)


def _with_finish_control(choice: Choice, controls: Controls) -> Choice:
    if controls.finish is None:
        return choice
    return Choice(choice.text, choice.calls, controls.finish, choice.stop_sequence)


def _calls(request: NeutralRequest, controls: Controls, seed: int) -> list[ToolCall]:
    tools = request.tools.callable
    wanted = controls.tool_calls
    if wanted is None:
        # Two tools and parallel calls allowed: call both, so that clients meet parallel calls without a control.
        wanted = min(2, len(tools)) if request.tools.mode == ToolMode.REQUIRED else 0
    if not request.tools.parallel:
        wanted = min(wanted, 1)
    return [_call(tools[number % len(tools)], seed + number) for number in range(wanted if tools else 0)]


def _call(tool: Tool, seed: int) -> ToolCall:
    if tool.is_custom:
        return ToolCall(tool.name, NAMES[seed % len(NAMES)], is_custom=True)
    value = sample_value(tool.schema or {"type": "object"}, seed)
    return ToolCall(tool.name, to_compact_json(value if isinstance(value, dict) else {}))


def _choice_of_calls(calls: list[ToolCall], budget: int) -> Choice:
    """Return the calls that fit into the token budget. Calls are never truncated."""
    accepted: list[ToolCall] = []
    for call in calls:
        budget -= call.tokens
        if budget < 0:
            return Choice("", tuple(accepted), FinishReason.LENGTH)
        accepted.append(call)
    return Choice("", tuple(accepted), FinishReason.TOOL_CALLS)


def _choice_of_text(request: NeutralRequest, controls: Controls, seed: int, budget: int) -> Choice:
    text = _full_text(request, controls, seed)
    text, stopped_by = _truncate_at_stop(text, request.stop)
    if tokens_of(text) > budget:
        return Choice(cut_to_tokens(text, budget), (), FinishReason.LENGTH)
    return Choice(text, (), FinishReason.STOP_SEQUENCE if stopped_by else FinishReason.STOP, stopped_by)


def _full_text(request: NeutralRequest, controls: Controls, seed: int) -> str:
    if request.schema is not None:
        return to_compact_json(sample_value(request.schema, seed))
    if controls.tokens is not None:
        return _exact_text(seed, request.topic, controls.tokens)
    return answer_text(seed, request.topic)


def _exact_text(seed: int, topic: str, tokens: int) -> str:
    """Return a text of exactly `tokens` tokens that ends like a sentence."""
    if tokens == 0:
        return ""
    size = tokens * BYTES_PER_TOKEN
    text = longer_text(seed, topic, size)
    # One byte is reserved for the full stop, so a whole character less may have to go.
    return text.encode()[: size - 1].decode(errors="ignore") + "."


def _truncate_at_stop(text: str, stop: tuple[str, ...]) -> tuple[str, str | None]:
    found = [(text.index(word), word) for word in stop if word in text]
    if not found:
        return text, None
    position, word = min(found)
    return text[:position], word


def _pieces(text: str, deltas: int | None) -> list[str]:
    if not text:
        return []
    return split_words(text) if deltas is None else equal_parts(text, deltas)


def _add_text(steps: list[AnswerStep], kind: StepKind, choice: int, pieces: list[str], served_tokens: int) -> int:
    size = 0
    for piece in pieces:
        size += len(piece.encode())
        steps.append(AnswerStep(kind, choice, 0, piece, served_tokens + tokens_of_bytes(size)))
    return served_tokens + tokens_of_bytes(size)


def _add_texts_in_turn(
    steps: list[AnswerStep], choices: tuple[Choice, ...], deltas: int | None, served_tokens: int
) -> int:
    pieces = [_pieces(choice.text, deltas) for choice in choices]
    sizes = [0] * len(choices)
    for turn in range(max(map(len, pieces))):
        for index, own in enumerate(pieces):
            if turn < len(own):
                sizes[index] += len(own[turn].encode())
                now = served_tokens + sum(map(tokens_of_bytes, sizes))
                steps.append(AnswerStep(StepKind.TEXT, index, 0, own[turn], now))
    return served_tokens + sum(map(tokens_of_bytes, sizes))


def _add_call(steps: list[AnswerStep], choice: int, number: int, call: ToolCall, served_tokens: int) -> int:
    served_tokens += tokens_of(call.name)
    steps.append(AnswerStep(StepKind.CALL, choice, number, call.name, served_tokens))
    size = 0
    for start in range(0, len(call.arguments), ARGUMENTS_PIECE):
        piece = call.arguments[start : start + ARGUMENTS_PIECE]
        size += len(piece.encode())
        steps.append(AnswerStep(StepKind.ARGUMENTS, choice, number, piece, served_tokens + tokens_of_bytes(size)))
    return served_tokens + tokens_of_bytes(size)
