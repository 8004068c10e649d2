"""Records of the provider calls of one request: opened, closed, and the ledger that stores them."""

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
    #: The requested tier.
    tier: Tier = Tier.STANDARD


class CallClosed(Struct, frozen=True):
    """A call that has ended. `usage` is the provider's, or our estimate if `estimated`.

    `tier` is the one that the provider reported, or else the requested one.
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
    """The calls of one request. Owned by the caller, so that it can be read after a cancellation, too."""

    #: `<prefix>:<number>` is the id of a call: here, upstream and in its usage record.
    prefix: str
    closed: list[CallClosed] = field(default_factory=list)


class CallLedger(Protocol):
    """Stores the usage record of each call before it is made, so that a killed process leaves a trace."""

    async def open(self, call: CallOpened, previous_call: CallClosed | None) -> None:
        """Record that a call begins, and how the previous one ended. The call is made only if this returns."""
        ...
