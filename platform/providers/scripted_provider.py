"""Fake provider that follows a script, for tests of everything above the `Provider` interface."""

from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from providers.errors import BadResponse, ProviderError, ResponseInterrupted
from providers.tiers import Tier
from providers.types import (
    AnswerFinished,
    AnswerStarted,
    Burst,
    CallContext,
    ChatRequest,
    Completion,
    EmbeddingRequest,
    Embeddings,
    InferenceRequest,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolCallStarted,
)

T = TypeVar("T")

#: The outcome of one call: stream these events (an error among them ends the stream), answer, or fail.
ScriptStep: TypeAlias = Sequence[StreamEvent | ProviderError] | Completion | Embeddings | ProviderError


@dataclass(frozen=True, slots=True)
class ReceivedCall:
    """One call that the provider received."""

    request: InferenceRequest
    call: CallContext


class ScriptedProvider:
    """Each call takes the next step of the script; a call beyond the script raises AssertionError.

    `before` is awaited in every call before its step is taken: wait for an event there to hold a call in flight.
    A script of events also answers non-streaming calls, and a complete answer also streams. Streams report `tier`.
    """

    def __init__(
        self,
        *script: ScriptStep,
        name: str = "scripted",
        before: Callable[[InferenceRequest], Awaitable[None]] | None = None,
        tier: Tier | None = None,
    ) -> None:
        self.name = name
        self.received: list[ReceivedCall] = []
        self.is_closed = False
        self._script = deque(script)
        self._before = before
        self._tier = tier

    async def stream(self, request: ChatRequest, call: CallContext) -> AsyncGenerator[Burst, None]:
        step = await self._next(request, call)
        for event in _play_events(step if isinstance(step, Sequence) else _to_events(_expect_type(Completion, step))):
            yield Burst((event,), tier=self._tier)

    async def complete(self, request: ChatRequest, call: CallContext) -> Completion:
        step = await self._next(request, call)
        if not isinstance(step, Sequence):
            return _expect_type(Completion, step)
        return _to_completion(tuple(_play_events(step)))

    async def embed(self, request: EmbeddingRequest, call: CallContext) -> Embeddings:
        return _expect_type(Embeddings, await self._next(request, call))

    async def close(self) -> None:
        self.is_closed = True

    async def _next(self, request: InferenceRequest, call: CallContext) -> ScriptStep:
        self.received.append(ReceivedCall(request, call))
        if self._before is not None:
            await self._before(request)
        if not self._script:
            raise AssertionError(f"Provider {self.name} was called {len(self.received)} times, more than its script.")
        step = self._script.popleft()
        if isinstance(step, ProviderError):
            raise step
        return step


def _expect_type(kind: type[T], step: object) -> T:
    if not isinstance(step, kind):
        raise BadResponse(f"The script has a {type(step).__name__} for a call that expects {kind.__name__}.")
    return step


def _play_events(step: Iterable[StreamEvent | ProviderError]) -> Iterable[StreamEvent]:
    """Yield a step's events up to AnswerFinished; raise the error in it, or ResponseInterrupted if it has neither."""
    for event in step:
        if isinstance(event, ProviderError):
            raise event
        yield event
        if isinstance(event, AnswerFinished):
            return
    raise ResponseInterrupted("The script ends before the stream does.")


def _to_events(completion: Completion) -> Iterable[StreamEvent]:
    yield AnswerStarted(completion.id, completion.model)
    if completion.reasoning:
        yield ReasoningDelta(completion.reasoning)
    if text := completion.text or completion.refusal:
        yield TextDelta(text)
    for index, call in enumerate(completion.tool_calls):
        yield ToolCallStarted(index, call.id, call.name)
        yield ToolCallDelta(index, call.arguments)
    yield AnswerFinished(completion.finish_reason, completion.usage)


def _to_completion(events: Sequence[StreamEvent]) -> Completion:
    started = next((event for event in events if isinstance(event, AnswerStarted)), AnswerStarted("", ""))
    finished = next(event for event in events if isinstance(event, AnswerFinished))
    return Completion(
        id=started.id,
        model=started.model,
        text="".join(event.text for event in events if isinstance(event, TextDelta)),
        finish_reason=finished.reason,
        usage=finished.usage,
        tool_calls=tuple(_to_call(event, events) for event in events if isinstance(event, ToolCallStarted)),
        reasoning="".join(event.text for event in events if isinstance(event, ReasoningDelta)),
    )


def _to_call(started: ToolCallStarted, events: Sequence[StreamEvent]) -> ToolCall:
    deltas = (event for event in events if isinstance(event, ToolCallDelta) and event.index == started.index)
    return ToolCall(started.id, started.name, "".join(delta.arguments for delta in deltas))
