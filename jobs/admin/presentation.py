"""Values, colors and texts that the admin pages of jobs and batches share."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Model

from core.humanize import format_age
from jobs.models import BatchState, JobState
from metering.cost import format_usd, format_usd_short

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

#: Returns the URL of a row's page in the admin; None if the user may not view it.
LinkTo = Callable[[Model], str | None]


@dataclass(frozen=True, slots=True)
class Visibility:
    """What the user may view in addition to the job or the batch itself."""

    usage: bool
    webhooks: bool
    audit: bool
    link_to: LinkTo
    #: Only needed by pages other than that of a job.
    jobs: bool = True


@dataclass(frozen=True, slots=True)
class Badge:
    text: str
    color: str


@dataclass(frozen=True, slots=True)
class Fact:
    name: str
    value: str
    #: Tooltip: the exact value, or an explanation.
    title: str = ""
    url: str | None = None
    is_code: bool = False


def due_text(due_at: datetime, now: datetime) -> str:
    """Return when something is due: `in 5 s`, or `now`."""
    return f"in {format_age(now, due_at)}" if due_at > now else "now"


def error_text(code: str, message: str) -> str:
    """Return an error as a sentence with its code: `The request timed out. (timeout)`."""
    return f"{message} ({code})" if code and message else message or code


def usd(pico_usd: int | None) -> str:
    """Format an exact amount; None means that there is no price."""
    return "no price" if pico_usd is None else f"${format_usd(pico_usd)}"


def short_usd(pico_usd: int | None) -> str:
    """Format a rounded amount: the smaller it is, the more digits it has."""
    return usd(None) if pico_usd is None else f"${format_usd_short(pico_usd)}"


def short_number(number: int) -> str:
    """Format a number in full while it is short: `8,644`, `31.5 k`, `9.96 M`."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**4, "k")):
        if number >= size:
            return f"{number / (1000 if unit == 'k' else size):.3g}\N{NO-BREAK SPACE}{unit}"
    return f"{number:,}"
