"""Collects the events of a stream into a complete answer."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from providers.errors import ResponseInterrupted
from providers.tiers import Tier
from providers.types import (
    AnswerFinished,
    AnswerStarted,
    Completion,
    OpaqueDelta,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolCallStarted,
)


@dataclass(slots=True)
class StreamCollector:
    """Accumulates events. The answer so far can be read at any time, also after an interruption."""

    id: str = ""
    model: str = ""
    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    tools: dict[int, tuple[ToolCallStarted, list[str]]] = field(default_factory=dict)
    opaque_text: list[str] = field(default_factory=list)
    finished: AnswerFinished | None = None
    tier: Tier | None = None

    def add(self, event: StreamEvent) -> None:
        match event:
            case TextDelta(text):
                self.text.append(text)
            case ReasoningDelta(text):
                self.reasoning.append(text)
            case AnswerStarted():
                self.id, self.model = event.id, event.model
            case ToolCallStarted(index):
                self.tools[index] = (event, [])
            case ToolCallDelta(index, arguments):
                self.tools[index][1].append(arguments)
            case OpaqueDelta(text):
                self.opaque_text.append(text)
            case AnswerFinished():
                self.finished = event

    def events(self) -> list[StreamEvent]:
        """Return the answer so far as the fewest equivalent events."""
        events: list[StreamEvent] = [AnswerStarted(self.id, self.model)]
        if self.reasoning:
            events.append(ReasoningDelta("".join(self.reasoning)))
        if self.text:
            events.append(TextDelta("".join(self.text)))
        for started, parts in self.tools.values():
            events += [started, ToolCallDelta(started.index, "".join(parts))]
        return [*events, self.finished] if self.finished else events

    @property
    def received(self) -> str:
        """All text that the model wrote, to estimate its output tokens."""
        calls = (call.arguments for call in self._tool_calls())
        return "".join((*self.reasoning, *self.text, *calls, *self.opaque_text))

    def completion(self) -> Completion:
        """Return the complete answer. Raises `ResponseInterrupted` if there was no `AnswerFinished`."""
        if self.finished is None:
            raise ResponseInterrupted("The provider's stream ended without a final event.")
        return Completion(
            id=self.id,
            model=self.model,
            text="".join(self.text),
            finish_reason=self.finished.reason,
            usage=self.finished.usage,
            tool_calls=tuple(self._tool_calls()),
            reasoning="".join(self.reasoning),
            tier=self.tier,
        )

    def _tool_calls(self) -> Iterator[ToolCall]:
        for _, (started, parts) in sorted(self.tools.items()):
            yield ToolCall(started.id, started.name, "".join(parts))
