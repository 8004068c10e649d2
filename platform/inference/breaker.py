"""Leaves a provider alone that is in trouble, until it has had time to recover."""

from typing import Protocol

from inference.routing import Target
from providers.errors import Overloaded, ProviderError


class Breaker(Protocol):
    """What a request asks before each call, and tells after it."""

    async def allows(self, target: Target) -> bool:
        """May the target be asked? Who may, reports what came of it, or releases."""
        ...

    async def report(self, target: Target, error: ProviderError | None) -> None:
        """Take in that a target answers, or failed."""
        ...

    def release(self, target: Target) -> None:
        """Take in that a call was not made, or ended without a word about its target."""
        ...

    def refusal(self, target: Target) -> ProviderError:
        """Return why the target may not be asked, as the error that asking it would be."""
        ...


class NoBreaker:
    """Every target may be asked."""

    async def allows(self, target: Target) -> bool:
        return True

    async def report(self, target: Target, error: ProviderError | None) -> None: ...

    def release(self, target: Target) -> None: ...

    def refusal(self, target: Target) -> ProviderError:
        return Overloaded(f"Provider {target.provider.name} is being left alone.")


NO_BREAKER = NoBreaker()
