"""Finishes attempts: one fenced transaction writes states, attempts, usage records and events, or nothing."""

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
    """The outcome of an attempt that a worker wants to write, with the calls that were made in it."""

    fence: Fence
    outcome: ExecutionOutcome
    calls: Sequence[UsageRecord] = ()


class FinishResult(StrEnum):
    """Whether the outcome was written."""

    WRITTEN = "written"
    #: The attempt no longer belongs to the worker: its result is discarded, its calls are recorded but not billed.
    FENCED = "fenced"


def finish(fence: Fence, outcome: ExecutionOutcome, calls: Sequence[UsageRecord]) -> FinishResult:
    """Finish one attempt; see `finish_all`."""
    return finish_all([FinishRequest(fence, outcome, calls)])[0]


@transaction.atomic
def finish_all(requests: Sequence[FinishRequest]) -> list[FinishResult]:
    """Write the outcomes of the attempts that still belong to the worker; each is fenced individually.

    If the process is killed before the commit, nothing is written and the sweep finds the attempts.
    """
    # Registered first, so that it runs before the doorbell is rung after the commit.
    transaction.on_commit(partial(crash_point, CrashPoint.AFTER_COMMIT))
    jobs = lock_owned_jobs(request.fence for request in requests)
    # Of two requests for one attempt in a group the first counts, as if they had come one after the other.
    first = {request.fence: request for request in reversed(requests) if request.fence in jobs}
    owned = list(first.values())
    fenced = [request for request in requests if first.get(request.fence) is not request]
    usage_records.write([call for request in owned for call in _calls_to_write(request)])
    usage_records.write_fenced_out([call for request in fenced for call in request.calls])
    # Calls that were opened but not made: the attempt was stopped, or crashed, in between.
    close_open_calls([(request.fence.job_id, request.fence.attempt) for request in owned])
    apply_transitions([transition(jobs[request.fence], request.outcome) for request in owned])
    crash_point(CrashPoint.BEFORE_COMMIT)
    return [
        FinishResult.WRITTEN if first.get(request.fence) is request else FinishResult.FENCED for request in requests
    ]


def transition(job: Job, outcome: ExecutionOutcome) -> Transition:
    """Return the transition of a running job that follows from the outcome of its attempt."""
    canceled = job.cancel_requested_at is not None
    match outcome:
        case AttemptSucceeded(result):
            # The answer came before the cancel reached the worker: the site pays for it, and gets it.
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
        case AttemptReleased(seconds, reason) if not canceled:
            problem = JobProblem(reason)
            job_problem = problem if reason else None
            return Transition(
                job, JobState.QUEUED, AttemptOutcome.RELEASED, problem, job_problem, delay_seconds=seconds
            )
        case AttemptReleased():
            return Transition(job, JobState.CANCELED, AttemptOutcome.RELEASED, problem=NO_PROBLEM)
        case AttemptCanceled():
            return Transition(job, JobState.CANCELED, AttemptOutcome.CANCELED, problem=NO_PROBLEM)


def _calls_to_write(request: FinishRequest) -> Sequence[UsageRecord]:
    return _mark_billable(request.calls) if isinstance(request.outcome, AttemptSucceeded) else request.calls


def _mark_billable(calls: Sequence[UsageRecord]) -> list[UsageRecord]:
    """Mark the call that answered as billable; the other calls are the operator's own cost."""
    return [structs.replace(call, billable=call.outcome is UsageOutcome.OK and call is calls[-1]) for call in calls]
