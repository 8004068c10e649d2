"""Run one claimed job on the worker's event loop: body to request, inference, answer to result."""

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from uuid import UUID

import structlog
from django.conf import settings
from django.db import transaction

from core import clock
from inference.accounts import Asker, to_account, to_open_account
from inference.breaker import NO_BREAKER, Breaker
from inference.calls import CallClosed, CallOpened, Trace
from inference.complete import Answered, Hear, PutOff, Unanswered, complete
from inference.errors import InferenceError
from inference.retry_budget import Retries
from inference.routing import ProviderSpec, Routing
from jobs.claim import Claimed
from jobs.endings import (
    PROVIDERS_RESTING,
    RETRY_BUDGET,
    Canceled,
    Ending,
    Failed,
    GivenBack,
    RetryRule,
    Succeeded,
    judge,
    put_off,
)
from jobs.errors import InvalidBody, UnreadablePayload
from jobs.fence import Fence, lock_held
from jobs.models import Job
from jobs.payload import PAYLOAD_VERSION, encode_answer, open_body, to_request
from metering import accounts
from metering.accounts import Account
from providers.dialects.errors import InvalidRequest
from providers.types import Provider

log = structlog.get_logger(__name__)

#: How long a job waits whose payload only a newer worker can read.
NEWER_SECONDS = 10.0


class AttemptStopped(Exception):
    """No further call may be made. `ending` says how the attempt ends."""

    def __init__(self, ending: Canceled | GivenBack) -> None:
        super().__init__()
        self.ending = ending


@dataclass(frozen=True, slots=True)
class Run:
    """One attempt under way, and the trace of its calls, which outlives a cancellation."""

    job: Claimed
    fence: Fence
    asker: Asker
    trace: Trace

    def accounts(self) -> Sequence[Account]:
        return [to_account(self.asker, call) for call in self.trace.closed]


@dataclass(frozen=True, slots=True)
class Opening:
    """A call about to be made: its account, and that of the call before it."""

    fence: Fence
    rows: Sequence[Account]


#: Writes an opening; returns what stops the attempt instead, if something does.
Opener: TypeAlias = Callable[[Opening], Awaitable[Canceled | GivenBack | None]]


@dataclass(frozen=True, slots=True)
class JobLedger:
    """Writes a job's calls into Postgres before they are made, so that a killed worker leaves their trace."""

    run: Run
    opener: Opener

    async def open(self, call: CallOpened, closed_before: CallClosed | None) -> None:
        rows = [to_open_account(self.run.asker, call)]
        if closed_before is not None:
            rows.append(to_account(self.run.asker, closed_before))
        if stopped := await self.opener(Opening(self.run.fence, rows)):
            raise AttemptStopped(stopped)


@transaction.atomic
def open_calls(openings: Sequence[Opening]) -> list[Canceled | GivenBack | None]:
    """Write that calls begin; for each, return how its attempt ends instead if it was taken away, or canceled."""
    jobs = lock_held(opening.fence for opening in openings)
    stopped = [_stopped(jobs.get(opening.fence)) for opening in openings]
    accounts.write([row for opening, stop in zip(openings, stopped, strict=True) if not stop for row in opening.rows])
    return stopped


def _stopped(job: Job | None) -> Canceled | GivenBack | None:
    if job is None:
        return GivenBack()
    return None if job.cancel_requested_at is None else Canceled()


def begin(claimed: Claimed, worker_id: UUID) -> Run:
    """Prepare the run of a job that this worker just claimed."""
    asker = Asker(claimed.site_id, claimed.model, claimed.request_id, claimed.job_id, claimed.attempt)
    fence = Fence(claimed.job_id, claimed.attempt, worker_id)
    return Run(claimed, fence, asker, Trace(f"{claimed.public_id}:{claimed.attempt}"))


async def execute(
    run: Run,
    *,
    routing: Routing,
    opener: Opener,
    retries: Retries,
    provider_for: Callable[[ProviderSpec], Provider],
    chance: random.Random,
    breaker: Breaker = NO_BREAKER,
    hear: Hear | None = None,
) -> Ending:
    """Make the calls and say how the attempt ends. Nothing is written but the accounts of calls begun."""
    job = run.job
    if job.payload_version > PAYLOAD_VERSION:
        # A newer desk wrote it, in a shape that this one does not know; a newer worker will read it.
        log.error("payload_newer", version=job.payload_version, hint="update this worker")
        return GivenBack(NEWER_SECONDS, "newer_payload")
    try:
        body = open_body(job.sealed_payload, job.payload_version)
        request = to_request(job.kind, body)
        result = await complete(
            request,
            routing.targets_for(job.model),
            trace=run.trace,
            ledger=JobLedger(run, opener),
            retries=retries,
            deadline_seconds=settings.JOB_ATTEMPT_SECONDS,
            provider_for=provider_for,
            chance=chance,
            breaker=breaker,
            asked_before=job.error_count > 0,
            hear=hear,
        )
    except AttemptStopped as stopped:
        return stopped.ending
    except (InvalidBody, InvalidRequest, UnreadablePayload) as error:
        return Failed("invalid_body", str(error))
    except InferenceError as error:
        return Failed("no_provider", str(error))
    match result:
        case Answered(answer):
            return Succeeded(encode_answer(job.kind, body, answer, clock.unix_seconds()))
        case Unanswered():
            return judge(result, _retry_rule(job), chance)
        case PutOff(refusal, seconds):
            # Attempts that did not end in an error were put off, or lost, which is rare.
            times = job.attempt - 1 - job.error_count
            return put_off(times, chance, PROVIDERS_RESTING if refusal else RETRY_BUDGET, seconds or 0.0)


def _retry_rule(job: Claimed) -> RetryRule:
    return RetryRule(
        errors=job.error_count,
        max_attempts=job.max_attempts,
        base_seconds=settings.JOB_RETRY_BASE_SECONDS,
        cap_seconds=settings.JOB_RETRY_CAP_SECONDS,
    )
