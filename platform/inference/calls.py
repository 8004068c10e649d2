"""The record of a request's calls: what was asked of whom, and what became of it."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from msgspec import Struct

from inference.routing import Target
from providers.errors import ProviderError
from providers.tiers import Tier
from providers.types import Usage


class CallOutcome(StrEnum):
    OK = "ok"
    ERROR = "error"
    TIMEOUT = "timeout"
    CANCELED = "canceled"


class CallOpened(Struct, frozen=True):
    """A call about to be made. `number` counts from 1 within the request."""

    number: int
    call_id: str
    target: Target
    started_at: datetime
    #: What was asked for.
    tier: Tier = Tier.STANDARD


class CallClosed(Struct, frozen=True):
    """A call that ended. `usage` is the provider's, or our estimate where `estimated` says so.

    `tier` is what the provider said, or what was asked for if it said nothing.
    """

    opened: CallOpened
    outcome: CallOutcome
    usage: Usage
    estimated: bool
    duration_ms: int
    first_token_ms: int | None = None
    error: ProviderError | None = None
    tier: Tier = Tier.STANDARD


@dataclass(slots=True)
class CallTrace:
    """The calls of one request. It is the caller's, so that it can be read when the request was cut short."""

    #: `<prefix>:<call>` names a call here, upstream and in the accounts.
    prefix: str
    closed: list[CallClosed] = field(default_factory=list)


class CallLedger(Protocol):
    """Where calls are written down, before they are made and after."""

    async def open(self, call: CallOpened, previous_call: CallClosed | None) -> None:
        """Write that a call begins, and how the one before it ended. The call is made only if this returns."""
        ...
