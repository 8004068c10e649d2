"""Go on with an answer that was cut: what the next provider is asked, and how the two answers are joined."""

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace

from inference.calls import CallTrace
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
    """Say whether another provider could go on with the answer, should it be cut: as far as neutral events tell it."""
    is_text = request.output_format is None or request.output_format.kind == "text"
    return is_text and request.untranslatable is None


class Continuation:
    """What was said so far of one answer, over all the calls that it takes."""

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._text: list[str] = []
        self._has_started = False
        self._has_called_tools = False
        #: White space at the end of the text so far: it was not sent, and may be said again.
        self._trailing_space = ""
        #: What the calls before this one used.
        self._usage = Usage()

    def request(self) -> ChatRequest:
        """Return what to ask now: the request, and what was said of the answer as the model's own turn."""
        text = "".join(self._text)
        # Anthropic refuses a last turn that ends in white space.
        text_so_far = text.rstrip()
        self._trailing_space = text[len(text_so_far) :]
        if not text_so_far:
            return self._request
        turn = ChatMessage(Role.ASSISTANT, (TextPart(text_so_far),))
        max_tokens = self._request.max_tokens
        if max_tokens is not None:
            max_tokens = max(max_tokens - estimate_text_tokens(text_so_far), 1)
        sent = self._request.original.with_turn(text_so_far) if self._request.original is not None else None
        return replace(self._request, messages=(*self._request.messages, turn), max_tokens=max_tokens, original=sent)

    def add(self, burst: Burst, trace: CallTrace) -> Burst:
        """Return a burst as part of the one answer. `AnswerFinished` comes after its call is in the trace."""
        return Burst(list(self._joined(burst.events, trace)))

    def can_continue_after(self, error: ProviderError, trace: CallTrace) -> bool:
        """Say whether somebody else can go on; then what the call used, which is in the trace, counts too."""
        # A tool call or a document that was cut has no end which another model would write.
        if not error.failover or self._has_called_tools or not can_be_continued(self._request):
            return False
        self._usage = _sum(self._usage, trace.closed[-1].usage)
        return True

    def _joined(self, events: Sequence[StreamEvent], trace: CallTrace) -> Iterator[StreamEvent]:
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
                    yield AnswerFinished(reason, _sum(self._usage, trace.closed[-1].usage))
                case _:
                    self._has_called_tools = self._has_called_tools or isinstance(event, ToolCallStarted)
                    yield event

    def _without_trailing_space(self, text: str) -> str:
        gap, self._trailing_space = self._trailing_space, ""
        return text.removeprefix(gap)


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(*(getattr(one, each.name) + getattr(other, each.name) for each in fields(Usage)))
