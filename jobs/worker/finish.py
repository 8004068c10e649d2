"""End attempts: one transaction writes states, attempts, accounts and events, or nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from django.db import transaction
from msgspec import structs

from core.crash import CrashPoint, crash_point
from jobs.models import AttemptOutcome, Job, JobState
from jobs.worker.fence import Fence, lock_owned_jobs
from jobs.worker.outcomes import (
    AttemptCanceled,
    AttemptFailed,
    AttemptReleased,
    AttemptSucceeded,
    ExecutionOutcome,
    RetryAfterBackoff,
)
from jobs.worker.transitions import NO_PROBLEM, JobProblem, Transition, apply_transitions
from metering import usage_records
from metering.models import UsageOutcome
from metering.open_calls import close_open_calls
from metering.usage_records import UsageRecord


@dataclass(frozen=True, slots=True)
class FinishRequest:
    """A worker's wish to end an attempt, with the calls that were made in it."""

    fence: Fence
    outcome: ExecutionOutcome
    calls: Sequence[UsageRecord] = ()


class FinishResult(StrEnum):
    """What became of the wish."""

    WRITTEN = "written"
    #: The attempt is no longer the worker's; its result is discarded, its calls are accounted for, unbilled.
    FENCED = "fenced"


def finish(fence: Fence, outcome: ExecutionOutcome, calls: Sequence[UsageRecord]) -> FinishResult:
    """End one attempt; see `finish_all`."""
    return finish_all([FinishRequest(fence, outcome, calls)])[0]


@transaction.atomic
def finish_all(ends: Sequence[FinishRequest]) -> list[FinishResult]:
    """Write the ends of the attempts that are still the worker's, each fenced by itself; return what became of each.

    Killed before the commit, nothing has happened and the sweep finds the attempts; killed after, all has.
    """
    # Before the doorbell, which is rung after commit too.
    transaction.on_commit(partial(crash_point, CrashPoint.AFTER_COMMIT))
    jobs = lock_owned_jobs(end.fence for end in ends)
    # Of two wishes for one attempt, in one group, the first counts, as it would if they came one after the other.
    first = {end.fence: end for end in reversed(ends) if end.fence in jobs}
    held = list(first.values())
    usage_records.write([call for end in held for call in _calls_to_write(end)])
    usage_records.write_fenced_out([call for end in ends if first.get(end.fence) is not end for call in end.calls])
    # Opened and then not made: the attempt was stopped, or broke, in between.
    close_open_calls([(end.fence.job_id, end.fence.attempt) for end in held])
    apply_transitions([transition(jobs[end.fence], end.outcome) for end in held])
    crash_point(CrashPoint.BEFORE_COMMIT)
    return [FinishResult.WRITTEN if first.get(end.fence) is end else FinishResult.FENCED for end in ends]


def transition(job: Job, outcome: ExecutionOutcome) -> Transition:
    """Say what an ending makes of a running job."""
    canceled = job.cancel_requested_at is not None
    match outcome:
        case AttemptSucceeded(result):
            # It was answered before the cancel could reach it: the site has paid, and gets what it paid for.
            return Transition(job, JobState.SUCCEEDED, AttemptOutcome.OK, problem=NO_PROBLEM, result=result)
        case AttemptFailed(code, message):
            problem = JobProblem(code, message)
            return Transition(job, JobState.FAILED, AttemptOutcome.ERROR, problem, problem, is_error=True)
        case RetryAfterBackoff(seconds, code, message) if not canceled:
            problem = JobProblem(code, message)
            return Transition(
                job, JobState.QUEUED, AttemptOutcome.ERROR, problem, problem, is_error=True, delay_seconds=seconds
            )
        case RetryAfterBackoff(_, code, message):
            return Transition(job, JobState.CANCELED, AttemptOutcome.ERROR, JobProblem(code, message), NO_PROBLEM)
        case AttemptReleased(seconds, why) if not canceled:
            problem = JobProblem(why)
            kept = problem if why else None
            return Transition(job, JobState.QUEUED, AttemptOutcome.RELEASED, problem, kept, delay_seconds=seconds)
        case AttemptReleased():
            return Transition(job, JobState.CANCELED, AttemptOutcome.RELEASED, problem=NO_PROBLEM)
        case AttemptCanceled():
            return Transition(job, JobState.CANCELED, AttemptOutcome.CANCELED, problem=NO_PROBLEM)


def _calls_to_write(end: FinishRequest) -> Sequence[UsageRecord]:
    return _mark_billable(end.calls) if isinstance(end.outcome, AttemptSucceeded) else end.calls


def _mark_billable(calls: Sequence[UsageRecord]) -> list[UsageRecord]:
    """Mark the call that answered; the others were made too, and are the desk's own cost."""
    return [structs.replace(call, billable=call.outcome is UsageOutcome.OK and call is calls[-1]) for call in calls]
