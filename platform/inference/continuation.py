"""Continuation of an interrupted answer by another call: a wrapper around the plain loop of `inference.stream`.

TargetSelected(one), Burst, Burst ──▶ interrupted ──▶ TargetSwitched(two), Burst, …, Burst with AnswerFinished

The next provider gets the text so far as the model's own turn. One failover plan covers all calls of the answer, so the
deadline and the limit of calls are those of the whole request.
"""

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import fields, replace

from inference.calls import CallTrace
from inference.context import InferenceContext
from inference.failover import FailoverPlan
from inference.routing import Target
from inference.stream import StreamPart, TargetSelected, TargetSwitched, stream_plan
from providers.errors import ProviderError
from providers.token_estimation import estimate_text_tokens
from providers.types import (
    AnswerFinished,
    AnswerStarted,
    Burst,
    ChatMessage,
    ChatRequest,
    Role,
    StreamEvent,
    TextDelta,
    TextPart,
    ToolCallStarted,
    Usage,
)


def can_be_continued(request: ChatRequest) -> bool:
    """Return whether another provider could continue the answer, as far as the request alone tells."""
    is_text = request.output_format is None or request.output_format.kind == "text"
    return is_text and request.untranslatable is None


async def stream_with_continuation(
    request: ChatRequest, targets: tuple[Target, ...], context: InferenceContext
) -> AsyncGenerator[StreamPart, None]:
    """Yield what `stream` yields; after an interruption, `TargetSwitched` and the rest of the answer.

    The bursts have no frames: the frames of two answers do not make one. If no target continues the answer, this
    raises the error that interrupted it. Otherwise as `stream`.
    """
    plan = FailoverPlan(request.model, targets, context)
    answer = _ContinuedAnswer(request, context.trace)
    interruption: ProviderError | None = None
    while True:
        has_content = False
        try:
            async with aclosing(stream_plan(answer.next_request(), plan)) as parts:
                async for part in parts:
                    match part:
                        case TargetSelected(target):
                            has_content = True
                            yield part if interruption is None else TargetSwitched(target)
                        case Burst():
                            yield answer.add(part)
            return
        except ProviderError as error:
            if not has_content:
                # The plan reports the interruption itself if it allows no further call.
                if interruption is None or error is interruption:
                    raise
                raise interruption from error
            if not answer.can_continue_after(error):
                raise
            interruption = error
            await plan.handle_failure(error)


class _ContinuedAnswer:
    """The text and usage of one answer so far, over all its calls."""

    def __init__(self, request: ChatRequest, trace: CallTrace) -> None:
        self._request = request
        self._trace = trace
        self._text: list[str] = []
        self._has_started = False
        self._has_called_tools = False
        #: White space at the end of the text so far. It is not sent, so the next provider may repeat it.
        self._trailing_space = ""
        #: Used by the calls before the current one.
        self._usage = Usage()

    def next_request(self) -> ChatRequest:
        """Return the request for the next call: the caller's, with the text so far as the model's own turn."""
        text = "".join(self._text)
        # Anthropic rejects a last turn that ends in white space.
        text_so_far = text.rstrip()
        self._trailing_space = text[len(text_so_far) :]
        if not text_so_far:
            return self._request
        turn = ChatMessage(Role.ASSISTANT, (TextPart(text_so_far),))
        max_tokens = self._request.max_tokens
        if max_tokens is not None:
            max_tokens = max(max_tokens - estimate_text_tokens(text_so_far), 1)
        original = self._request.original.with_turn(text_so_far) if self._request.original is not None else None
        return replace(
            self._request, messages=(*self._request.messages, turn), max_tokens=max_tokens, original=original
        )

    def add(self, burst: Burst) -> Burst:
        """Return a burst as part of the one answer. The call of an `AnswerFinished` must be in the trace."""
        return Burst(list(self._joined(burst.events)))

    def can_continue_after(self, error: ProviderError) -> bool:
        """Return whether another call can continue the answer; if so, add the usage of the interrupted call."""
        # Another model cannot complete a tool call or a JSON document that it did not begin.
        if not error.failover or self._has_called_tools or not can_be_continued(self._request):
            return False
        self._usage = _sum(self._usage, self._trace.closed[-1].usage)
        return True

    def _joined(self, events: Sequence[StreamEvent]) -> Iterator[StreamEvent]:
        for event in events:
            match event:
                case AnswerStarted():
                    if not self._has_started:
                        self._has_started = True
                        yield event
                case TextDelta(text):
                    if text := self._without_trailing_space(text):
                        self._text.append(text)
                        yield TextDelta(text)
                case AnswerFinished(reason):
                    yield AnswerFinished(reason, _sum(self._usage, self._trace.closed[-1].usage))
                case _:
                    self._has_called_tools = self._has_called_tools or isinstance(event, ToolCallStarted)
                    yield event

    def _without_trailing_space(self, text: str) -> str:
        trailing_space, self._trailing_space = self._trailing_space, ""
        return text.removeprefix(trailing_space)


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(*(getattr(one, field.name) + getattr(other, field.name) for field in fields(Usage)))
