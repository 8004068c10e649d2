"""Run one claimed job on the worker's event loop: body to request, inference, answer to result."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from django.conf import settings
from django.db import transaction

from core import clock
from core.threads import DatabaseThreads
from inference import routing
from inference.accounts import Asker, to_account, to_open_account
from inference.calls import CallClosed, CallOpened
from inference.complete import Answered, Trace, complete
from inference.errors import InferenceError
from inference.routing import ProviderSpec
from jobs.claim import Claimed
from jobs.endings import Canceled, Ending, Failed, GivenBack, RetryRule, Succeeded, judge
from jobs.errors import InvalidBody, UnreadablePayload
from jobs.fence import Fence, lock_held
from jobs.models import Job
from jobs.payload import encode_answer, open_body, to_request
from metering import accounts
from metering.accounts import Account
from providers.types import Provider


class AttemptStopped(Exception):
    """No further call may be made. `ending` says how the attempt ends."""

    def __init__(self, ending: Canceled | GivenBack) -> None:
        super().__init__()
        self.ending = ending


@dataclass(frozen=True, slots=True)
class Run:
    """One attempt under way, and the trace of its calls, which outlives a cancellation."""

    job: Job
    sealed_payload: bytes
    fence: Fence
    asker: Asker
    trace: Trace

    def accounts(self) -> Sequence[Account]:
        return [to_account(self.asker, call) for call in self.trace.closed]


@dataclass(frozen=True, slots=True)
class JobLedger:
    """Writes a job's calls into Postgres before they are made, so that a killed worker leaves their trace."""

    run: Run
    database: DatabaseThreads

    async def open(self, call: CallOpened, closed_before: CallClosed | None) -> None:
        rows = [to_open_account(self.run.asker, call)]
        if closed_before is not None:
            rows.append(to_account(self.run.asker, closed_before))
        await self.database.run(open_call, self.run.fence, rows)


def open_call(fence: Fence, rows: Sequence[Account]) -> None:
    """Write that a call begins. Raises `AttemptStopped` if the attempt was taken away, or is to be canceled."""
    with transaction.atomic():
        job = lock_held(fence)
        if job is None:
            raise AttemptStopped(GivenBack())
        if job.cancel_requested_at is not None:
            raise AttemptStopped(Canceled())
        accounts.write(rows)


def begin(claimed: Claimed, worker_id: UUID) -> Run:
    """Prepare the run of a job that this worker just claimed."""
    job = claimed.job
    asker = Asker(job.site_id, job.model, job.request_id, job.id, job.attempt)
    fence, trace = Fence(job.id, job.attempt, worker_id), Trace(f"{job.public_id}:{job.attempt}")
    return Run(job, claimed.sealed_payload, fence, asker, trace)


async def execute(
    run: Run,
    *,
    database: DatabaseThreads,
    provider_for: Callable[[ProviderSpec], Provider],
    chance: random.Random,
) -> Ending:
    """Make the calls and say how the attempt ends. Nothing is written but the accounts of calls begun."""
    job = run.job
    try:
        body = open_body(run.sealed_payload, job.payload_version)
        request = to_request(job.kind, body)
        targets = (await database.run(routing.current)).targets_for(job.model)
        result = await complete(
            request,
            targets,
            trace=run.trace,
            ledger=JobLedger(run, database),
            deadline_seconds=settings.JOB_ATTEMPT_SECONDS,
            provider_for=provider_for,
            chance=chance,
        )
    except AttemptStopped as stopped:
        return stopped.ending
    except (InvalidBody, UnreadablePayload) as error:
        return Failed("invalid_body", str(error))
    except InferenceError as error:
        return Failed("no_provider", str(error))
    if isinstance(result, Answered):
        return Succeeded(encode_answer(job.kind, body, result.answer, clock.unix_seconds()))
    return judge(result, _retry_rule(job), chance)


def _retry_rule(job: Job) -> RetryRule:
    return RetryRule(
        errors=job.error_count,
        max_attempts=job.max_attempts,
        base_seconds=settings.JOB_RETRY_BASE_SECONDS,
        cap_seconds=settings.JOB_RETRY_CAP_SECONDS,
    )
