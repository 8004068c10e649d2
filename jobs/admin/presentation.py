"""The words and values that the admin's pages about jobs and batches are made of."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Model

from core.humanize import format_age
from jobs.models import BatchState, JobState
from metering.cost import PICO_PER_USD, format_usd

DASH = "–"

STATE_COLORS = {
    JobState.QUEUED: "info",
    JobState.RUNNING: "primary",
    JobState.SUCCEEDED: "success",
    JobState.FAILED: "danger",
    JobState.EXPIRED: "warning",
}
BATCH_COLORS = {
    BatchState.VALIDATING: "info",
    BatchState.IN_PROGRESS: "primary",
    BatchState.FINALIZING: "primary",
    BatchState.COMPLETED: "success",
    BatchState.FAILED: "danger",
    BatchState.EXPIRED: "warning",
    BatchState.CANCELLING: "warning",
}

#: Returns the address of a row's page in the admin, or None where the reader may not see it.
LinkTo = Callable[[Model], str | None]


@dataclass(frozen=True, slots=True)
class Visibility:
    """What the reader may see beside the job or the batch itself."""

    usage: bool
    webhooks: bool
    audit: bool
    link_to: LinkTo
    #: Where the page is not a job's own.
    jobs: bool = True


@dataclass(frozen=True, slots=True)
class Badge:
    text: str
    color: str


@dataclass(frozen=True, slots=True)
class Fact:
    name: str
    value: str
    #: The same more exactly.
    title: str = ""
    url: str | None = None
    is_code: bool = False


def due_text(due_at: datetime, now: datetime) -> str:
    """Write when something is due: `in 5 s`, or `now`."""
    return f"in {format_age(now, due_at)}" if due_at > now else "now"


def error_text(code: str, message: str) -> str:
    return ": ".join(filter(None, (code, message)))


def usd(pico_usd: int | None) -> str:
    """Write money; None is what no price is known for."""
    return "no price" if pico_usd is None else f"${format_usd(pico_usd)}"


def short_usd(pico_usd: int | None) -> str:
    """Write money as exactly as it matters: the smaller it is, the more digits."""
    if pico_usd is None:
        return usd(None)
    amount = pico_usd / PICO_PER_USD
    if amount >= 1 or not pico_usd:
        return f"${amount:,.2f}"
    return f"${amount:.{4 if amount >= 0.01 else 6}f}"


def short_number(number: int) -> str:
    """Write a number in full while it is short: `8,644`, `31.5 k`, `9.96 M`."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**4, "k")):
        if number >= size:
            return f"{number / (1000 if unit == 'k' else size):.3g}\N{NO-BREAK SPACE}{unit}"
    return f"{number:,}"
