"""The job engine of a worker process: claims jobs, runs many attempts on one event loop, and writes their outcomes.

    doorbell, or every second   ──▶ claim as many jobs as there are free slots ──▶ a task each ──▶ outcomes, in groups
    heartbeat, every 2 s        ──▶ renew the lease, cancel attempts; lease lost: release all, acquire a new one
    sweep, every second         ──▶ requeue or end lost, hung and expired jobs
    maintenance, every second, and soon after a member of a batch finished
                                ──▶ cancel, report and finalize batches
    files, every second         ──▶ expand batch files into jobs
    watchers, twice a second    ──▶ write watched attempts as streams
    retention, every minute     ──▶ erase prompts and answers at the end of their retention

`jobs.worker.slot_pool` decides how many jobs to claim and which attempts to stop; this module acts on it.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import structlog
from django.conf import settings
from structlog.contextvars import bound_contextvars

from core.crash import CrashPoint, crash_point
from core.crypto import UnknownEncryptionKey
from core.database_threads import DATABASE_UNAVAILABLE, DatabaseThreadPool
from core.group_commit import GroupCommitter
from core.ids import to_public
from core.redis import RedisUnavailable
from core.supervised_loop import LoopSupervisor
from core.tasks import BackgroundTasks, cancel_and_wait
from inference.circuit_breaker import NO_CIRCUIT_BREAKER, CircuitBreaker
from inference.clients import ProviderClients
from inference.retry_budget import RetryBudgets, to_report
from inference.routing import ProviderSpec, get_routing_async
from jobs import retention
from jobs.batches.expand import expand_one
from jobs.batches.maintenance import run_maintenance
from jobs.models import Job
from jobs.worker import leases
from jobs.worker.attempt_streams import AttemptStream, AttemptStreams
from jobs.worker.claim import ClaimedJob, claim
from jobs.worker.execute import AttemptRun, CallOpening, execute, open_calls, prepare_attempt
from jobs.worker.fence import Fence
from jobs.worker.finish import FinishRequest, FinishResult, finish_all
from jobs.worker.heartbeat import Heartbeat, HeartbeatEvent, HeartbeatMissed, LeaseAcquired, LeaseLost, LeaseRenewed
from jobs.worker.leases import LeaseRenewal
from jobs.worker.outcomes import (
    AttemptCanceled,
    AttemptFailed,
    AttemptReleased,
    AttemptSucceeded,
    ExecutionOutcome,
    RetryAfterBackoff,
)
from jobs.worker.slot_pool import JobSlot, SlotPhase, SlotPool
from jobs.worker.sweep import sweep
from metering.usage_records import UsageRecord
from providers.types import Provider

Item = TypeVar("Item")
R = TypeVar("R")

log = structlog.get_logger(__name__)

#: The outcome of an attempt as the log names it; independent of the names of classes.
LOGGED_OUTCOMES: Mapping[type, str] = {
    AttemptSucceeded: "succeeded",
    RetryAfterBackoff: "retry",
    AttemptFailed: "failed",
    AttemptCanceled: "canceled",
    AttemptReleased: "released",
}

POLL_SECONDS = 1.0
#: How soon a newly watched job is streamed to its watchers.
WATCHER_POLL_SECONDS = 0.5
#: The minimum pause between two runs of the maintenance, while members of batches finish all the time.
MAINTENANCE_GAP_SECONDS = 0.2
RETENTION_INTERVAL_SECONDS = 60.0
#: How long the outcome of an attempt waits for Postgres to recover, before it is left to the sweep.
FINISH_RETRY_SECONDS = 120.0
#: How long jobs that are released at shutdown may take to write that.
RELEASE_SECONDS = 5.0
#: After an outage of Postgres, workers get this long to send a heartbeat before any is considered lost.
OUTAGE_RECOVERY_SECONDS = leases.LEASE_SECONDS + leases.HEARTBEAT_SECONDS
#: How long a job waits that this worker cannot decrypt yet, because it lacks a new encryption key.
UNKNOWN_KEY_DELAY_SECONDS = 10.0
#: Threads for claims and outcomes. The heartbeat has its own (`jobs.worker.heartbeat`) and never waits behind them.
DATABASE_THREADS = 6
#: Group commit of call openings and of outcomes: the largest group, and how many groups at a time.
MAX_GROUP_SIZE, MAX_CONCURRENT_GROUPS = 200, 2
#: The minimum time between two claims, so that each takes what has arrived meanwhile. The first after a pause is
#: immediate.
CLAIM_GAP_SECONDS = 0.02
#: Jobs that may be between their claim and their first call, and slots open at first (`jobs.worker.ramp`).
MAX_STARTING = 64
#: The pause between claims while jobs wait and the ramp is about to open more slots.
RAMP_POLL_SECONDS = 0.05

INTERNAL_ERROR_MESSAGE = "Internal error while this attempt ran; the details are in the server log."
INTERNAL_ERROR = AttemptFailed("internal_error", INTERNAL_ERROR_MESSAGE)


@dataclass(slots=True, kw_only=True)
class AttemptSlot(JobSlot):
    """An attempt in progress, with its task."""

    run: AttemptRun
    stream: AttemptStream
    task: "asyncio.Task[None] | None" = None


class JobEngine:
    """One per worker process, in one event loop: `await run()`. `wake` and `stop` may be called from any thread."""

    def __init__(
        self,
        provider_for: Callable[[ProviderSpec], Provider] | None = None,
        breaker: CircuitBreaker = NO_CIRCUIT_BREAKER,
    ) -> None:
        self._breaker = breaker
        self._rng = random.Random()  # noqa: S311 (jitter, not a secret)
        self._pool: SlotPool[AttemptSlot] = SlotPool(
            settings.JOB_SLOTS, max_starting=MAX_STARTING, now=time.monotonic()
        )
        self._wake_event = asyncio.Event()
        self._stopping = asyncio.Event()
        self._members_finished = asyncio.Event()
        self._database = DatabaseThreadPool("jobs", DATABASE_THREADS)
        self._maintenance_threads = DatabaseThreadPool("maintenance", 1)
        #: Reading a large file takes a while; nothing else should wait for it.
        self._file_threads = DatabaseThreadPool("files", 1)
        self._call_opener: GroupCommitter[CallOpening, AttemptCanceled | AttemptReleased | None] = self._grouped(
            open_calls
        )
        self._finisher: GroupCommitter[FinishRequest, FinishResult] = self._grouped(finish_all)
        self._clients = ProviderClients()
        self._retry_budgets = RetryBudgets(settings.RETRY_BUDGET_PERCENT / 100, settings.RETRY_BUDGET_FLOOR)
        self._provider_for = provider_for or self._clients
        self._attempt_streams = AttemptStreams()
        #: None without a lease.
        self._worker_id: UUID | None = None
        self._is_claiming = False
        self._background_tasks = BackgroundTasks()
        self._supervisor = LoopSupervisor(
            unavailable_event="worker_database_unavailable",
            recovered_event="worker_database_recovered",
            outage_errors=DATABASE_UNAVAILABLE,
            recovery_seconds=OUTAGE_RECOVERY_SECONDS,
        )
        self._watchers_supervisor = LoopSupervisor(
            unavailable_event="watchers_unavailable",
            recovered_event="watchers_recovered",
            outage_errors=(RedisUnavailable,),
        )
        self._loop: asyncio.AbstractEventLoop | None = None

    def _grouped(self, work: Callable[[Sequence[Item]], Sequence[R]]) -> GroupCommitter[Item, R]:
        async def do(items: Sequence[Item]) -> Sequence[R]:
            return await self._database.run(work, items)

        return GroupCommitter(
            do,
            max_group_size=MAX_GROUP_SIZE,
            max_concurrent_groups=MAX_CONCURRENT_GROUPS,
            group_errors=DATABASE_UNAVAILABLE,
        )

    def wake(self) -> None:
        """Claim now."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._wake_event.set)

    def stop(self) -> None:
        """Shut down gracefully: claim no more, finish what ends within the drain time, release the rest.

        `run` then returns.
        """
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._start_stopping)

    async def run(self) -> None:
        """Work until `stop`."""
        self._loop = asyncio.get_running_loop()
        heartbeat = Heartbeat(self._loop, self._on_heartbeat, self._report)
        heartbeat.start()
        run_forever, run_in_thread = self._supervisor.run_forever, self._maintenance_threads.run
        loops = [
            asyncio.create_task(loop)
            for loop in (
                run_forever(self._sweep, POLL_SECONDS),
                self._run_maintenance_forever(),
                run_forever(self._expand_batch_files, POLL_SECONDS),
                self._stream_watched_attempts_forever(),
                run_forever(partial(run_in_thread, retention.run_retention), RETENTION_INTERVAL_SECONDS),
            )
        ]
        try:
            await self._claim_until_stopped()
            await self._drain()
        finally:
            await cancel_and_wait(*loops)
            await self._shut_down(heartbeat)

    # Heartbeat

    def _on_heartbeat(self, beat: HeartbeatEvent) -> None:
        match beat:
            case LeaseAcquired(worker_id):
                self._worker_id = worker_id
                log.info("lease_acquired", worker=str(worker_id))
                self._wake_event.set()
            case LeaseRenewed(worker_id, renewal):
                for slot in self._pool.to_cancel(renewal.held):
                    _stop(slot, AttemptCanceled())
                self._release_unknown_claims(worker_id, renewal)
            case LeaseLost(worker_id):
                self._on_lease_lost(worker_id)
            case HeartbeatMissed(error):
                self._supervisor.on_failure(error)

    def _release_unknown_claims(self, worker_id: UUID, renewal: LeaseRenewal) -> None:
        for held in self._pool.to_release(renewal.held, is_claiming=self._is_claiming):
            log.warning("unknown_claim_released", job=to_public(Job.ID_PREFIX, held.job_id), attempt=held.attempt)
            fence = Fence(held.job_id, held.attempt, worker_id)
            release = partial(self._finisher.submit, FinishRequest(fence, AttemptReleased()))
            self._background_tasks.spawn(self._supervisor.run(release))

    def _on_lease_lost(self, worker_id: UUID) -> None:
        """Stop everything: another worker may hold our jobs by now."""
        log.error("lease_lost", worker=str(worker_id), jobs=len(self._pool))
        self._worker_id = None
        for slot in self._pool:
            _stop(slot, AttemptReleased())

    def _report(self) -> dict[str, Any]:
        """Return what the heartbeat reports of this worker, for the admin."""
        return {"slots": settings.JOB_SLOTS, "jobs": len(self._pool), "retry_budgets": to_report(self._retry_budgets)}

    # The other loops

    async def _sweep(self) -> None:
        heartbeats_possible = self._supervisor.seconds_since_failure > OUTAGE_RECOVERY_SECONDS
        swept = await self._database.run(
            sweep, heartbeats_possible=heartbeats_possible, recovery_seconds=OUTAGE_RECOVERY_SECONDS
        )
        if swept and (swept.lost or swept.expired):
            log.info("sweep_completed", lost=swept.lost, expired=swept.expired)
            self._wake_event.set()

    async def _run_maintenance_forever(self) -> None:
        """Maintain batches every second; sooner when a member finished, because it may have been the last."""
        while True:
            self._members_finished.clear()
            await self._supervisor.run(partial(self._maintenance_threads.run, run_maintenance))
            await asyncio.sleep(MAINTENANCE_GAP_SECONDS)
            await _wait_for_event(self._members_finished, POLL_SECONDS)

    async def _stream_watched_attempts_forever(self) -> None:
        """Stream the watched attempts. Redis is queried only while some attempt does not stream yet."""
        while True:
            if streams := [slot.stream for slot in self._pool.unfinished() if not slot.stream.is_streaming]:
                await self._watchers_supervisor.run(partial(self._attempt_streams.stream_watched, streams))
            await asyncio.sleep(WATCHER_POLL_SECONDS)

    async def _expand_batch_files(self) -> None:
        while await self._file_threads.run(expand_one, self._stopping.is_set):
            self._wake_event.set()

    async def _claim_until_stopped(self) -> None:
        """Claim when the doorbell rings, and every second without it.

        This loop ends by its own condition and is never canceled: no task would run the jobs of an interrupted claim.
        """
        while not self._stopping.is_set():
            self._wake_event.clear()
            gap_ends_at = time.monotonic() + CLAIM_GAP_SECONDS
            if not await self._claim():
                await _wait_for_event(
                    self._wake_event, RAMP_POLL_SECONDS if self._pool.opens_more_soon else POLL_SECONDS
                )
            await asyncio.sleep(max(gap_ends_at - time.monotonic(), 0))

    async def _claim(self) -> int:
        """Claim as many jobs as there are free slots and start them; return how many."""
        worker_id, free = self._worker_id, self._pool.free(time.monotonic())
        if worker_id is None or free <= 0:
            # Not a step of the supervisor: without a query it says nothing about the database.
            return 0
        return await self._supervisor.run(partial(self._claim_and_start, worker_id, free)) or 0

    async def _claim_and_start(self, worker_id: UUID, free: int) -> int:
        self._is_claiming = True
        try:
            claims = await self._database.run(claim, worker_id, free, settings.JOB_QUEUES)
            self._pool.on_claimed(free, len(claims))
        finally:
            self._is_claiming = False
        if claims:
            crash_point(CrashPoint.AFTER_CLAIM)
        for claimed in claims:
            self._start(claimed, worker_id)
        return len(claims)

    # One attempt

    def _start(self, claimed: ClaimedJob, worker_id: UUID) -> None:
        slot = AttemptSlot(
            job_id=claimed.job_id, run=prepare_attempt(claimed, worker_id), stream=AttemptStream(claimed)
        )
        self._pool.add(slot)
        slot.task = asyncio.create_task(self._run_attempt(slot), name=claimed.public_id)
        slot.task.add_done_callback(lambda task: self._on_task_done(slot, task))
        if worker_id != self._worker_id:
            # The lease was lost during the claim.
            _stop(slot, AttemptReleased())

    def _on_task_done(self, slot: AttemptSlot, task: "asyncio.Task[None]") -> None:
        self._pool.remove(slot)
        if not task.cancelled() and (error := task.exception()):
            log.error("job_task_crashed", job=slot.run.job.public_id, exc_info=error)
        self._wake_event.set()

    async def _run_attempt(self, slot: AttemptSlot) -> None:
        job = slot.run.job
        with bound_contextvars(job=job.public_id, attempt=job.attempt, request_id=job.request_id):
            started = time.monotonic()
            outcome = slot.stop_outcome or await self._execute(slot)
            slot.phase = SlotPhase.FINISHING
            self._wake_event.set()
            slot.stream.finish(outcome)
            result = await self._finish(slot, outcome)
            if job.batch_id is not None:
                self._members_finished.set()
            log.info(
                "attempt_finished",
                outcome=LOGGED_OUTCOMES[type(outcome)],
                finish=result,
                calls=len(slot.run.trace.closed),
                seconds=round(time.monotonic() - started, 3),
            )

    async def _execute(self, slot: AttemptSlot) -> ExecutionOutcome:
        slot.phase = SlotPhase.STARTING
        try:
            return await execute(
                slot.run,
                routing=await get_routing_async(self._database),
                opener=partial(self._open_call, slot),
                retry_budget=self._retry_budgets.for_site(slot.run.job.site_id),
                provider_for=self._provider_for,
                rng=self._rng,
                breaker=self._breaker,
                on_burst=slot.stream.on_burst,
            )
        except asyncio.CancelledError:
            if slot.stop_outcome is None:
                raise
            return slot.stop_outcome
        except DATABASE_UNAVAILABLE:
            # No provider is called before the call's usage record is open, so nothing is lost.
            return AttemptReleased()
        except UnknownEncryptionKey:
            # Another process encrypts with a newer key than this one was started with.
            log.error("encryption_key_unknown", hint="restart this worker with the ENCRYPTION_KEYS of the others")
            return AttemptReleased(UNKNOWN_KEY_DELAY_SECONDS)
        except Exception:  # the outermost handler of an attempt: a bug must not leave its job running forever
            log.exception("job_crashed")
            return _after_internal_error(slot.run.job)

    async def _open_call(self, slot: AttemptSlot, opening: CallOpening) -> AttemptCanceled | AttemptReleased | None:
        stopped = await self._call_opener.submit(opening)
        if slot.phase is SlotPhase.STARTING:
            slot.phase = SlotPhase.CALLING
            if self._pool.has_backlog:
                self._wake_event.set()
        return stopped

    async def _finish(self, slot: AttemptSlot, outcome: ExecutionOutcome) -> FinishResult | None:
        """Write the outcome, and wait for Postgres while it is unavailable. None if it could not be written.

        The sweep then requeues the job.
        """
        calls: Sequence[UsageRecord] = slot.run.usage_records()
        give_up_at = time.monotonic() + FINISH_RETRY_SECONDS
        while time.monotonic() < give_up_at:
            try:
                return await self._finisher.submit(FinishRequest(slot.run.fence, outcome, calls))
            except DATABASE_UNAVAILABLE as error:
                self._supervisor.on_failure(error)
                await asyncio.sleep(self._rng.uniform(0.2, POLL_SECONDS))
            except Exception:
                # A job whose outcome cannot be written must not be run, and paid for, again and again.
                log.exception("finish_failed")
                if outcome is not INTERNAL_ERROR:
                    # The answer may be what cannot be written. The usage of the calls is known, and kept.
                    outcome = INTERNAL_ERROR
                elif calls:
                    calls = []
                else:
                    return None
        log.error("finish_abandoned")
        return None

    # Graceful shutdown

    def _start_stopping(self) -> None:
        self._stopping.set()
        self._wake_event.set()

    async def _drain(self) -> None:
        log.info("draining", jobs=len(self._pool))
        if self._worker_id is not None:
            await self._supervisor.run(partial(self._database.run, leases.mark_draining, self._worker_id))
        await self._wait_for_attempts(settings.JOB_DRAIN_SECONDS)
        for slot in self._pool:
            _stop(slot, AttemptReleased())
        await self._wait_for_attempts(RELEASE_SECONDS)

    async def _wait_for_attempts(self, timeout_seconds: float) -> None:
        tasks = [slot.task for slot in self._pool if slot.task]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_seconds)

    async def _shut_down(self, heartbeat: Heartbeat) -> None:
        await self._background_tasks.cancel()
        await cancel_and_wait(*(slot.task for slot in self._pool))
        await self._clients.close()
        await self._attempt_streams.stop()
        await asyncio.to_thread(heartbeat.stop)
        if self._worker_id is not None:
            await self._supervisor.run(partial(self._database.run, leases.release_lease, self._worker_id))
        for threads in (self._database, self._maintenance_threads, self._file_threads):
            threads.close()


def _stop(slot: AttemptSlot, outcome: AttemptCanceled | AttemptReleased) -> None:
    if slot.stop(outcome) and slot.task is not None:
        slot.task.cancel()


async def _wait_for_event(event: asyncio.Event, timeout_seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_seconds):
            await event.wait()


def _after_internal_error(job: ClaimedJob) -> RetryAfterBackoff | AttemptFailed:
    if job.error_count + 1 >= job.max_attempts:
        return AttemptFailed("internal_error", INTERNAL_ERROR_MESSAGE)
    return RetryAfterBackoff(settings.JOB_RETRY_BASE_SECONDS, "internal_error", INTERNAL_ERROR_MESSAGE)
