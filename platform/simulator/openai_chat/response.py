"""OpenAI's Chat Completions API: encodes the answer, complete or as a stream of chunks."""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from simulator.catalogue import model_for
from simulator.compose import Answer, AnswerStep, Choice, FinishReason, StepKind, ToolCall, Usage
from simulator.controls import Controls
from simulator.errors import Dialect
from simulator.neutral_request import NeutralRequest
from simulator.prose import split_words
from simulator.responses import Frame, ResponseIdentity, with_pings

DONE = b"data: [DONE]\n\n"
#: OpenAI itself sends none; compatible servers send comments.
PING = b": keep-alive\n\n"
#: Placeholder for the text in a template frame.
TEXT_PLACEHOLDER = "\x00"
FINGERPRINT = "fp_simulator"
#: Events of a stream that are no deltas: the role, the finish, [DONE].
FIXED_EVENTS = 3

SAFE = {"filtered": False, "severity": "safe"}
CONTENT_FILTERS = {"hate": SAFE, "self_harm": SAFE, "sexual": SAFE, "violence": SAFE}
PROMPT_FILTERS = [{"prompt_index": 0, "content_filter_results": CONTENT_FILTERS}]


class PromptDetails(Struct):
    cached_tokens: int
    audio_tokens: int = 0
    cache_write_tokens: int | UnsetType = UNSET


class CompletionDetails(Struct):
    reasoning_tokens: int
    audio_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class UsageOut(Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class FunctionOut(Struct):
    name: str | UnsetType = UNSET
    arguments: str = ""


class CustomOut(Struct):
    name: str | UnsetType = UNSET
    input: str = ""


class CallOut(Struct):
    index: int | UnsetType = UNSET
    id: str | UnsetType = UNSET
    type: str | UnsetType = UNSET
    function: FunctionOut | UnsetType = UNSET
    custom: CustomOut | UnsetType = UNSET


class TokenOut(Struct):
    """A token, or an alternative to it."""

    token: str
    logprob: float
    bytes: list[int]


class TokenChosen(TokenOut):
    top_logprobs: list[TokenOut]


class LogprobsOut(Struct):
    content: list[TokenChosen]
    refusal: None = None


class MessageOut(Struct):
    role: Literal["assistant"]
    content: str | None
    tool_calls: list[CallOut] | UnsetType = UNSET
    refusal: str | None = None
    annotations: list[Any] = []


class ChoiceOut(Struct):
    index: int
    message: MessageOut
    logprobs: LogprobsOut | None
    finish_reason: str
    content_filter_results: dict[str, Any] | UnsetType = UNSET


class Completion(Struct):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChoiceOut]
    usage: UsageOut | UnsetType
    service_tier: str
    system_fingerprint: str
    prompt_filter_results: list[Any] | UnsetType = UNSET


class Delta(Struct):
    role: str | UnsetType = UNSET
    content: str | None | UnsetType = UNSET
    refusal: None | UnsetType = UNSET
    tool_calls: list[CallOut] | UnsetType = UNSET


class ChunkChoice(Struct):
    index: int
    delta: Delta
    logprobs: LogprobsOut | None = None
    finish_reason: str | None = None
    content_filter_results: dict[str, Any] | UnsetType = UNSET


class Chunk(Struct):
    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    service_tier: str
    system_fingerprint: str
    choices: list[ChunkChoice]
    #: Absent unless the request wants usage, then null in every chunk but the last.
    usage: UsageOut | None | UnsetType = UNSET
    obfuscation: str | UnsetType = UNSET


encode = msgspec.json.Encoder().encode


def completion(
    request: NeutralRequest, answer: Answer, identity: ResponseIdentity, dialect: Dialect, controls: Controls
) -> bytes:
    is_azure = dialect == Dialect.AZURE
    body = Completion(
        id=completion_id(identity),
        object="chat.completion",
        created=identity.created,
        model=model_for(request.model).snapshot or request.model,
        choices=[
            _choice_out(index, choice, request, identity, is_azure) for index, choice in enumerate(answer.choices)
        ],
        usage=UNSET if controls.drop_usage else to_usage(answer.usage),
        service_tier=request.service_tier,
        system_fingerprint=FINGERPRINT,
        prompt_filter_results=PROMPT_FILTERS if is_azure else UNSET,
    )
    return encode(body)


def chunks(
    request: NeutralRequest,
    answer: Answer,
    steps: list[AnswerStep],
    identity: ResponseIdentity,
    dialect: Dialect,
    controls: Controls,
) -> list[Frame]:
    writer = _ChunkWriter(request, answer, identity, dialect, controls)
    frames = [writer.filters()] if dialect == Dialect.AZURE else []
    frames += [writer.opening(index, choice) for index, choice in enumerate(answer.choices)]
    frames += writer.huge_line()
    frames += [writer.delta(step) for step in steps]
    served_tokens = answer.usage.output_tokens
    frames += [writer.finish(index, choice, served_tokens) for index, choice in enumerate(answer.choices)]
    if request.include_usage and not controls.drop_usage:
        frames.append(writer.usage(answer.usage))
    if not controls.drop_done:
        frames.append(Frame(DONE, served_tokens))
    return with_pings(frames, controls.ping_every, PING)


def to_usage(usage: Usage) -> UsageOut:
    return UsageOut(
        usage.input_tokens,
        usage.output_tokens,
        usage.input_tokens + usage.output_tokens,
        PromptDetails(usage.cached_tokens, cache_write_tokens=usage.cache_write_tokens or UNSET),
        CompletionDetails(usage.reasoning_tokens),
    )


def finish_reason(finish: str) -> str:
    return FinishReason.STOP if finish == FinishReason.STOP_SEQUENCE else finish


def completion_id(identity: ResponseIdentity) -> str:
    return f"chatcmpl-{identity.token}"


def call_id(identity: ResponseIdentity, choice: int, number: int) -> str:
    return f"call_{identity.token[:20]}{choice:02d}{number:02d}"


class _ChunkWriter:
    """Writes the chunks of one stream: all share id, time and model."""

    def __init__(
        self, request: NeutralRequest, answer: Answer, identity: ResponseIdentity, dialect: Dialect, controls: Controls
    ) -> None:
        self._choices = answer.choices
        self._identity = identity
        self._controls = controls
        self._is_azure = dialect == Dialect.AZURE
        self._obfuscated = request.obfuscated or controls.obfuscation
        self._logprobs = request.logprobs
        self._text_frames: dict[int, tuple[bytes, bytes]] = {}
        self._chunk = Chunk(
            id=completion_id(identity),
            object="chat.completion.chunk",
            created=identity.created,
            model=model_for(request.model).snapshot or request.model,
            service_tier=request.service_tier,
            system_fingerprint=FINGERPRINT,
            choices=[],
            usage=None if request.include_usage else UNSET,
        )

    def filters(self) -> Frame:
        """Azure's first chunk: the results of its content filter for the prompt."""
        first = {
            "choices": [],
            "created": 0,
            "id": "",
            "model": "",
            "object": "",
            "prompt_filter_results": PROMPT_FILTERS,
        }
        return Frame(b"data: " + encode(first) + b"\n\n", 0)

    def opening(self, index: int, choice: Choice) -> Frame:
        return self._frame(ChunkChoice(index, Delta("assistant", None if choice.calls else "", None)), 0)

    def huge_line(self) -> list[Frame]:
        size = self._controls.huge_line
        if not size:
            return []
        padded = msgspec.structs.replace(self._chunk, obfuscation="x" * size)
        return [Frame(b"data: " + encode(padded) + b"\n\n", 0)]

    def delta(self, step: AnswerStep) -> Frame:
        is_text = step.kind == StepKind.TEXT
        if is_text and not self._obfuscated and self._logprobs is None:
            before, after = self._around_text(step.choice)
            return Frame(before + encode(step.text) + after, step.served_tokens, is_delta=True)
        logprobs = to_logprobs([step.text], self._logprobs) if is_text else None
        return self._frame(ChunkChoice(step.choice, self._delta_of(step), logprobs), step.served_tokens, is_delta=True)

    def _around_text(self, choice: int) -> tuple[bytes, bytes]:
        """A text's frame before and after the text: a stream has hundreds of frames that differ only in the text."""
        if choice not in self._text_frames:
            frame = self._frame(ChunkChoice(choice, Delta(content=TEXT_PLACEHOLDER)), 0, is_delta=True).data
            before, _, after = frame.partition(encode(TEXT_PLACEHOLDER))
            self._text_frames[choice] = before, after
        return self._text_frames[choice]

    def finish(self, index: int, choice: Choice, served_tokens: int) -> Frame:
        return self._frame(ChunkChoice(index, Delta(), None, finish_reason(choice.finish)), served_tokens)

    def usage(self, usage: Usage) -> Frame:
        last = msgspec.structs.replace(self._chunk, usage=to_usage(usage))
        return Frame(b"data: " + encode(last) + b"\n\n", usage.output_tokens, reports_usage=True)

    def _delta_of(self, step: AnswerStep) -> Delta:
        if step.kind == StepKind.TEXT:
            return Delta(content=step.text)
        return Delta(tool_calls=[self._call_delta(step)])

    def _call_delta(self, step: AnswerStep) -> CallOut:
        index = 0 if self._controls.duplicate_tool_index else step.call
        is_custom = self._choices[step.choice].calls[step.call].is_custom
        if step.kind == StepKind.ARGUMENTS:
            if is_custom:
                return CallOut(index, custom=CustomOut(input=step.text))
            return CallOut(index, function=FunctionOut(arguments=step.text))
        own_id = call_id(self._identity, step.choice, step.call)
        if is_custom:
            return CallOut(index, own_id, "custom", custom=CustomOut(step.text))
        return CallOut(index, own_id, "function", FunctionOut(step.text))

    def _frame(self, choice: ChunkChoice, served_tokens: int, is_delta: bool = False) -> Frame:
        if self._is_azure:
            choice.content_filter_results = CONTENT_FILTERS if is_delta else {}
        chunk = self._chunk
        chunk.choices = [choice]
        if self._obfuscated:
            # Every chunk has about the same length, so that it does not reveal the token.
            chunk.obfuscation = "x" * (16 - served_tokens % 13)
        data = b"data: " + encode(chunk) + b"\n\n"
        chunk.choices = []
        return Frame(data, served_tokens, is_delta)


def to_logprobs(tokens: list[str], others: int | None) -> LogprobsOut | None:
    """Made-up log probabilities of the tokens and of their alternatives, in wire form."""
    if others is None:
        return None
    return LogprobsOut([_chosen_token(token, others) for token in tokens])


def _chosen_token(token: str, others: int) -> TokenChosen:
    top = [_token_out(token + "~" * rank, -0.1 - rank) for rank in range(others)]
    return TokenChosen(token, -0.1, list(token.encode()), top)


def _token_out(token: str, logprob: float) -> TokenOut:
    return TokenOut(token, logprob, list(token.encode()))


def _choice_out(
    index: int, choice: Choice, request: NeutralRequest, identity: ResponseIdentity, is_azure: bool
) -> ChoiceOut:
    calls = [_call_out(call, call_id(identity, index, number)) for number, call in enumerate(choice.calls)]
    message = MessageOut("assistant", None if calls else choice.text, calls or UNSET)
    filters: dict[str, Any] | UnsetType = CONTENT_FILTERS if is_azure else UNSET
    logprobs = None if calls else to_logprobs(split_words(choice.text), request.logprobs)
    return ChoiceOut(index, message, logprobs, finish_reason(choice.finish), filters)


def _call_out(call: ToolCall, own_id: str) -> CallOut:
    if call.is_custom:
        return CallOut(id=own_id, type="custom", custom=CustomOut(call.name, call.arguments))
    return CallOut(id=own_id, type="function", function=FunctionOut(call.name, call.arguments))


def deltas_for(request: NeutralRequest, controls: Controls) -> int | None:
    if controls.events is None:
        return controls.deltas
    return max(1, controls.events - FIXED_EVENTS - (request.include_usage and not controls.drop_usage))
