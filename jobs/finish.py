"""End attempts: one transaction writes states, attempts, accounts and events, or nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from django.db import transaction
from msgspec import structs

from core.crash import CrashPoint, crash_point
from jobs.endings import Canceled, Ending, Failed, GivenBack, RetryIn, Succeeded
from jobs.fence import Fence, lock_held
from jobs.models import AttemptOutcome, Job, JobState
from jobs.transitions import FINE, Problem, Transition, apply
from metering import accounts
from metering.accounts import Account
from metering.lost import close_open_calls
from metering.models import Outcome


@dataclass(frozen=True, slots=True)
class End:
    """A worker's wish to end an attempt, with the calls that were made in it."""

    fence: Fence
    ending: Ending
    calls: Sequence[Account] = ()


class Finish(StrEnum):
    """What became of the wish."""

    WRITTEN = "written"
    #: The attempt is no longer the worker's; its result is discarded, its calls are accounted for, unbilled.
    FENCED = "fenced"


def finish(fence: Fence, ending: Ending, calls: Sequence[Account]) -> Finish:
    """End one attempt; see `finish_all`."""
    return finish_all([End(fence, ending, calls)])[0]


@transaction.atomic
def finish_all(ends: Sequence[End]) -> list[Finish]:
    """Write the ends of the attempts that are still the worker's, each fenced by itself; return what became of each.

    Killed before the commit, nothing has happened and the sweep finds the attempts; killed after, all has.
    """
    # Before the doorbell, which is rung after commit too.
    transaction.on_commit(partial(crash_point, CrashPoint.AFTER_COMMIT))
    jobs = lock_held(end.fence for end in ends)
    # Of two wishes for one attempt, in one group, the first counts, as it would if they came one after the other.
    first = {end.fence: end for end in reversed(ends) if end.fence in jobs}
    held = list(first.values())
    accounts.write([call for end in held for call in _calls_of(end)])
    accounts.write_late([call for end in ends if first.get(end.fence) is not end for call in end.calls])
    # Opened and then not made: the attempt was stopped, or broke, in between.
    close_open_calls([(end.fence.job_id, end.fence.attempt) for end in held])
    apply([transition(jobs[end.fence], end.ending) for end in held])
    crash_point(CrashPoint.BEFORE_COMMIT)
    return [Finish.WRITTEN if first.get(end.fence) is end else Finish.FENCED for end in ends]


def transition(job: Job, ending: Ending) -> Transition:
    """Say what an ending makes of a running job."""
    canceled = job.cancel_requested_at is not None
    match ending:
        case Succeeded(result):
            # It was answered before the cancel could reach it: the site has paid, and gets what it paid for.
            return Transition(job, JobState.SUCCEEDED, AttemptOutcome.OK, problem=FINE, result=result)
        case Failed(code, message):
            problem = Problem(code, message)
            return Transition(job, JobState.FAILED, AttemptOutcome.ERROR, problem, problem, is_error=True)
        case RetryIn(seconds, code, message) if not canceled:
            problem = Problem(code, message)
            return Transition(
                job, JobState.QUEUED, AttemptOutcome.ERROR, problem, problem, is_error=True, delay_seconds=seconds
            )
        case RetryIn(_, code, message):
            return Transition(job, JobState.CANCELED, AttemptOutcome.ERROR, Problem(code, message), FINE)
        case GivenBack(seconds, why) if not canceled:
            problem = Problem(why)
            kept = problem if why else None
            return Transition(job, JobState.QUEUED, AttemptOutcome.DRAINED, problem, kept, delay_seconds=seconds)
        case GivenBack():
            return Transition(job, JobState.CANCELED, AttemptOutcome.DRAINED, problem=FINE)
        case Canceled():
            return Transition(job, JobState.CANCELED, AttemptOutcome.CANCELED, problem=FINE)


def _calls_of(end: End) -> Sequence[Account]:
    return _bill(end.calls) if isinstance(end.ending, Succeeded) else end.calls


def _bill(calls: Sequence[Account]) -> list[Account]:
    """Mark the call that answered; the others were made too, and are the desk's own cost."""
    return [structs.replace(call, billable=call.outcome is Outcome.OK and call is calls[-1]) for call in calls]
