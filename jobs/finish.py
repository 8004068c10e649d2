"""End an attempt: one transaction writes state, attempt, accounts and the event, or nothing."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from enum import StrEnum
from typing import Any

from django.db import transaction
from django.db.models.functions import Now

from jobs.endings import Canceled, Ending, Failed, GivenBack, RetryIn, Succeeded
from jobs.events import record_end
from jobs.fence import Fence, lock_held
from jobs.models import Attempt, AttemptOutcome, Job, JobState
from metering import accounts
from metering.accounts import Account
from metering.lost import close_open_calls
from metering.models import Outcome

#: What the columns take. A message that is too long must not keep a job from ending.
CODE_LENGTH, MESSAGE_LENGTH = 60, 600


class Finish(StrEnum):
    """What became of a worker's wish to end an attempt."""

    WRITTEN = "written"
    #: The attempt is no longer the worker's; its result is discarded, its calls are accounted for, unbilled.
    FENCED = "fenced"


def finish(fence: Fence, ending: Ending, calls: Sequence[Account]) -> Finish:
    """Write the end of an attempt, if it is still the worker's.

    Killed before the commit, nothing has happened and the sweep finds the attempt; killed after, all has.
    """
    with transaction.atomic():
        job = lock_held(fence)
        if job is None:
            accounts.write_late(calls)
            return Finish.FENCED
        _end_attempt(fence, ending)
        _change(job, _changes(job, ending))
        accounts.write(_bill(calls) if isinstance(ending, Succeeded) else calls)
        # Opened and then not made: the attempt was stopped, or broke, in between.
        close_open_calls(job.id, fence.attempt)
        if job.is_terminal:
            record_end(job)
    return Finish.WRITTEN


def _changes(job: Job, ending: Ending) -> dict[str, Any]:
    """Return what the ending changes in the job's row."""
    canceled = job.cancel_requested_at is not None
    match ending:
        case Succeeded(result):
            # It was answered before the cancel could reach it: the site has paid, and gets what it paid for.
            return {"state": JobState.SUCCEEDED, "result": result, "error_code": "", "error_message": ""}
        case Failed(code, message):
            errors = job.error_count + 1
            return {"state": JobState.FAILED, "error_code": code, "error_message": message, "error_count": errors}
        case RetryIn(seconds, code, message) if not canceled:
            return {
                "state": JobState.QUEUED,
                "available_at": Now() + timedelta(seconds=seconds),
                "error_count": job.error_count + 1,
                "error_code": code,
                "error_message": message,
            }
        case GivenBack(seconds) if not canceled:
            return {"state": JobState.QUEUED, "available_at": Now() + timedelta(seconds=seconds)}
        case Canceled() | RetryIn() | GivenBack():
            return {"state": JobState.CANCELED, "error_code": "", "error_message": ""}


def _change(job: Job, changes: dict[str, Any]) -> None:
    for name, value in changes.items():
        setattr(job, name, value)
    job.error_code, job.error_message = job.error_code[:CODE_LENGTH], job.error_message[:MESSAGE_LENGTH]
    job.worker_id = job.deadline_at = None
    if job.is_terminal:
        job.finished_at = Now()
    job.save(update_fields=[*changes, "worker_id", "deadline_at", "finished_at"])


def _end_attempt(fence: Fence, ending: Ending) -> None:
    outcome, code, message = _outcome(ending)
    Attempt.objects.filter(job_id=fence.job_id, number=fence.attempt).update(
        ended_at=Now(), outcome=outcome, error_code=code[:CODE_LENGTH], error_message=message[:MESSAGE_LENGTH]
    )


def _outcome(ending: Ending) -> tuple[AttemptOutcome, str, str]:
    match ending:
        case Succeeded():
            return AttemptOutcome.OK, "", ""
        case RetryIn(_, code, message) | Failed(code, message):
            return AttemptOutcome.ERROR, code, message
        case Canceled():
            return AttemptOutcome.CANCELED, "", ""
        case GivenBack():
            return AttemptOutcome.DRAINED, "", ""


def _bill(calls: Sequence[Account]) -> list[Account]:
    """Mark the call that answered; the others were made too, and are the desk's own cost."""
    return [replace(call, billable=call.outcome is Outcome.OK and call is calls[-1]) for call in calls]
