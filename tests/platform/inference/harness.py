"""Inference with scripted providers, and a record of their calls."""

import random
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from uuid import UUID

from inference.calls import CallClosed, CallOpened, CallOutcome, CallTrace
from inference.circuit_breaker import NO_CIRCUIT_BREAKER, CircuitBreaker
from inference.complete import InferenceResult, complete, complete_non_streaming
from inference.context import InferenceContext
from inference.continuation import stream_with_continuation
from inference.retry_budget import RetryBudgets
from inference.routing import ProviderSpec, Target
from inference.stream import StreamPart, stream
from providers import errors
from providers.scripted_provider import ScriptedProvider
from providers.types import (
    AnswerFinished,
    ChatMessage,
    ChatRequest,
    Dialect,
    FinishReason,
    Provider,
    Role,
    TextDelta,
    TextPart,
    Usage,
)

REQUEST = ChatRequest("desk", (ChatMessage(Role.USER, (TextPart("Hello, desk. " * 40),)),))
HELLO = (TextDelta("Hello"), AnswerFinished(FinishReason.STOP, Usage(9, 1)))
SITE_ID = UUID(int=1)
BUSY = errors.ProviderOverloaded("busy", 503)


@dataclass
class InMemoryLedger:
    """A ledger that keeps its records in lists."""

    opened: list[CallOpened] = field(default_factory=list)
    closed: list[CallClosed] = field(default_factory=list)

    async def open(self, call: CallOpened, previous_call: CallClosed | None) -> None:
        self.opened.append(call)
        if previous_call:
            self.closed.append(previous_call)


class InferenceHarness:
    """Calls scripted providers by name, in this order."""

    def __init__(self, *, dialect: Dialect = Dialect.OPENAI, **scripts: ScriptedProvider) -> None:
        self.scripts = scripts
        self.dialect = dialect
        self.ledger = InMemoryLedger()
        self.trace = CallTrace("job_1:1")
        self.budgets = RetryBudgets(share=0.2, floor=1000)
        self.breaker: CircuitBreaker = NO_CIRCUIT_BREAKER

    async def complete(
        self, request: ChatRequest = REQUEST, *, deadline_seconds: float = 30, keys: bool = True, is_retry: bool = False
    ) -> InferenceResult:
        context = self.context(deadline_seconds=deadline_seconds, is_retry=is_retry)
        return await complete(request, self.targets(keys=keys), context)

    async def complete_non_streaming(self, request: ChatRequest = REQUEST) -> InferenceResult:
        return await complete_non_streaming(request, self.targets(), self.context())

    def stream(self, request: ChatRequest = REQUEST) -> AsyncGenerator[StreamPart, None]:
        return stream(request, self.targets(), self.context())

    def stream_with_continuation(self, request: ChatRequest = REQUEST) -> AsyncGenerator[StreamPart, None]:
        return stream_with_continuation(request, self.targets(), self.context())

    def context(self, *, deadline_seconds: float = 30, is_retry: bool = False) -> InferenceContext:
        return InferenceContext(
            trace=self.trace,
            ledger=self.ledger,
            retry_budget=self.budgets.for_site(SITE_ID),
            deadline_seconds=deadline_seconds,
            provider_for=self.provider_for,
            rng=random.Random(2),
            breaker=self.breaker,
            is_retry=is_retry,
        )

    def targets(self, *, keys: bool = True) -> tuple[Target, ...]:
        return tuple(
            Target(ProviderSpec(name, self.dialect, "http://x", "sk" if keys else None), f"{name}-model", position)
            for position, name in enumerate(self.scripts, 1)
        )

    def provider_for(self, spec: ProviderSpec) -> Provider:
        return self.scripts[spec.name]

    def calls(self) -> list[tuple[str, CallOutcome]]:
        return [(call.opened.target.provider.name, call.outcome) for call in self.trace.closed]
