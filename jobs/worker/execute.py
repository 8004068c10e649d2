"""Executes one attempt on the worker's event loop: body to request, inference, answer to result."""

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from uuid import UUID

import structlog
from django.conf import settings
from django.db import transaction

from core import clock
from inference.calls import CallClosed, CallOpened, CallTrace
from inference.circuit_breaker import NO_CIRCUIT_BREAKER, CircuitBreaker
from inference.complete import Answered, Deferred, Exhausted, OnBurst, complete
from inference.context import InferenceContext
from inference.errors import InferenceError
from inference.retry_budget import RequestRetryBudget
from inference.routing import ProviderSpec, Routing, filter_capable
from inference.usage_records import UsageAttribution, to_open_usage_record, to_usage_record
from jobs.errors import InvalidBody, UnreadablePayload
from jobs.models import Job
from jobs.payload import PAYLOAD_VERSION, decrypt_body, encode_answer, to_request
from jobs.worker.claim import ClaimedJob
from jobs.worker.fence import Fence, lock_owned_jobs
from jobs.worker.outcomes import (
    PROVIDERS_IN_COOLDOWN,
    RETRY_BUDGET_EXHAUSTED,
    AttemptCanceled,
    AttemptFailed,
    AttemptReleased,
    AttemptSucceeded,
    ExecutionOutcome,
    JobRetryPolicy,
    decide_retry,
    defer,
)
from metering import usage_records
from metering.usage_records import UsageRecord
from providers.invalid_request import InvalidRequest
from providers.types import Provider

log = structlog.get_logger(__name__)

#: How long a job waits whose payload only a newer version of the worker can read.
NEWER_PAYLOAD_DELAY_SECONDS = 10.0


class AttemptStopped(Exception):
    """No further call may be made. `outcome` says how the attempt ends."""

    def __init__(self, outcome: AttemptCanceled | AttemptReleased) -> None:
        super().__init__()
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class AttemptRun:
    """One attempt in progress, and the trace of its calls, which survives the cancellation of its task."""

    job: ClaimedJob
    fence: Fence
    attribution: UsageAttribution
    trace: CallTrace

    def usage_records(self) -> Sequence[UsageRecord]:
        return [to_usage_record(self.attribution, call) for call in self.trace.closed]


@dataclass(frozen=True, slots=True)
class CallOpening:
    """A call about to be made: its usage record, and the closed one of the previous call."""

    fence: Fence
    rows: Sequence[UsageRecord]


#: Writes an opening. Returns the outcome of the attempt if the call may not be made.
CallOpener: TypeAlias = Callable[[CallOpening], Awaitable[AttemptCanceled | AttemptReleased | None]]


@dataclass(frozen=True, slots=True)
class JobLedger:
    """Writes a job's calls to Postgres before they are made, so that the calls of a killed worker are known."""

    run: AttemptRun
    opener: CallOpener

    async def open(self, call: CallOpened, previous_call: CallClosed | None) -> None:
        rows = [to_open_usage_record(self.run.attribution, call)]
        if previous_call is not None:
            rows.append(to_usage_record(self.run.attribution, previous_call))
        if stopped := await self.opener(CallOpening(self.run.fence, rows)):
            raise AttemptStopped(stopped)


@transaction.atomic
def open_calls(openings: Sequence[CallOpening]) -> list[AttemptCanceled | AttemptReleased | None]:
    """Open calls; for each, return None, or the outcome of its attempt if that was fenced or canceled meanwhile."""
    jobs = lock_owned_jobs(opening.fence for opening in openings)
    stopped = [_stop_outcome(jobs.get(opening.fence)) for opening in openings]
    usage_records.write(
        [row for opening, stop in zip(openings, stopped, strict=True) if not stop for row in opening.rows]
    )
    return stopped


def _stop_outcome(job: Job | None) -> AttemptCanceled | AttemptReleased | None:
    if job is None:
        return AttemptReleased()
    return None if job.cancel_requested_at is None else AttemptCanceled()


def prepare_attempt(claimed: ClaimedJob, worker_id: UUID) -> AttemptRun:
    """Prepare the attempt at a job that this worker has just claimed."""
    attribution = UsageAttribution(claimed.site_id, claimed.model, claimed.request_id, claimed.job_id, claimed.attempt)
    fence = Fence(claimed.job_id, claimed.attempt, worker_id)
    return AttemptRun(claimed, fence, attribution, CallTrace(f"{claimed.public_id}:{claimed.attempt}"))


async def execute(
    run: AttemptRun,
    *,
    routing: Routing,
    opener: CallOpener,
    retry_budget: RequestRetryBudget,
    provider_for: Callable[[ProviderSpec], Provider],
    rng: random.Random,
    breaker: CircuitBreaker = NO_CIRCUIT_BREAKER,
    on_burst: OnBurst | None = None,
) -> ExecutionOutcome:
    """Make the calls and return the outcome of the attempt. Only usage records of open calls are written."""
    job = run.job
    if job.payload_version > PAYLOAD_VERSION:
        # A newer version wrote it, in a format that this one does not know; a newer worker will read it.
        log.error("payload_newer", version=job.payload_version, hint="update this worker")
        return AttemptReleased(NEWER_PAYLOAD_DELAY_SECONDS, "newer_payload")
    try:
        body = decrypt_body(job.encrypted_payload, job.payload_version)
        request = to_request(job.kind, body)
        result = await complete(
            request,
            # Routes may have changed since `permit` chose targets when the job was submitted.
            filter_capable(routing.targets_for(job.model), request),
            InferenceContext(
                trace=run.trace,
                ledger=JobLedger(run, opener),
                retry_budget=retry_budget,
                deadline_seconds=settings.JOB_ATTEMPT_TIMEOUT_SECONDS,
                provider_for=provider_for,
                rng=rng,
                breaker=breaker,
                is_retry=job.error_count > 0,
            ),
            on_burst,
        )
    except AttemptStopped as stopped:
        return stopped.outcome
    except (InvalidBody, InvalidRequest, UnreadablePayload) as error:
        return AttemptFailed("invalid_body", str(error))
    except InferenceError as error:
        return AttemptFailed("no_provider", str(error))
    match result:
        case Answered(answer):
            return AttemptSucceeded(encode_answer(job.kind, body, answer, clock.unix_seconds()))
        case Exhausted():
            return decide_retry(result, _retry_policy(job), rng)
        case Deferred(refusal, seconds):
            # Attempts without an error were deferred; a few may have been lost or released.
            times = job.attempt - 1 - job.error_count
            return defer(times, rng, PROVIDERS_IN_COOLDOWN if refusal else RETRY_BUDGET_EXHAUSTED, seconds or 0.0)


def _retry_policy(job: ClaimedJob) -> JobRetryPolicy:
    return JobRetryPolicy(
        errors=job.error_count,
        max_attempts=job.max_attempts,
        base_seconds=settings.JOB_RETRY_BASE_SECONDS,
        cap_seconds=settings.JOB_RETRY_CAP_SECONDS,
    )
