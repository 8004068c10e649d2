"""A desk of scripted providers, and what was written of them."""

import random
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from uuid import UUID

from inference.breaker import NO_BREAKER, Breaker
from inference.calls import CallClosed, CallOpened, CallOutcome, Trace
from inference.complete import Result, complete
from inference.retry_budget import RetryBudgets
from inference.routing import ProviderSpec, Target
from inference.stream import Part, stream
from providers import errors
from providers.scripted import Scripted
from providers.types import (
    ChatRequest,
    Dialect,
    Finished,
    FinishReason,
    Message,
    Provider,
    Role,
    TextDelta,
    TextPart,
    Usage,
)

REQUEST = ChatRequest("desk", (Message(Role.USER, (TextPart("Hello, desk. " * 40),)),))
HELLO = (TextDelta("Hello"), Finished(FinishReason.STOP, Usage(9, 1)))
SITE_ID = UUID(int=1)
BUSY = errors.Overloaded("busy", 503)


@dataclass
class Written:
    """A ledger that remembers."""

    opened: list[CallOpened] = field(default_factory=list)
    closed: list[CallClosed] = field(default_factory=list)

    async def open(self, call: CallOpened, closed_before: CallClosed | None) -> None:
        self.opened.append(call)
        if closed_before:
            self.closed.append(closed_before)


class Desk:
    """Scripted providers by name, asked in this order."""

    def __init__(self, *, dialect: Dialect = Dialect.OPENAI, **scripts: Scripted) -> None:
        self.scripts = scripts
        self.dialect = dialect
        self.ledger = Written()
        self.trace = Trace("job_1:1")
        self.budgets = RetryBudgets(share=0.2, floor=1000)
        self.breaker: Breaker = NO_BREAKER

    async def ask(
        self,
        request: ChatRequest = REQUEST,
        *,
        deadline_seconds: float = 30,
        keys: bool = True,
        asked_before: bool = False,
        whole: bool = False,
    ) -> Result:
        return await complete(
            request,
            self.targets(keys=keys),
            trace=self.trace,
            ledger=self.ledger,
            retries=self.budgets.of_site(SITE_ID),
            asked_before=asked_before,
            deadline_seconds=deadline_seconds,
            provider_for=self.provider_for,
            chance=random.Random(2),
            breaker=self.breaker,
            whole=whole,
        )

    def stream(self, request: ChatRequest = REQUEST, *, continuation: bool = False) -> AsyncGenerator[Part, None]:
        return stream(
            request,
            self.targets(),
            trace=self.trace,
            ledger=self.ledger,
            retries=self.budgets.of_site(SITE_ID),
            deadline_seconds=30,
            provider_for=self.provider_for,
            chance=random.Random(2),
            breaker=self.breaker,
            continuation=continuation,
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
