"""The job engine of a worker process: it claims, runs many jobs on one event loop, and ends them.

doorbell, or a second gone ──▶ claim as many as there are free slots ──▶ a task per job ──▶ finish, in groups
heartbeat, every 2 s       ──▶ lease renewed, cancels heard; lease lost ──▶ all dropped, a new lease
sweep, every second        ──▶ lost, hung and overdue jobs put right
upkeep, every second, or when members of a batch ended ──▶ batches stopped, told of, concluded
reader, every second       ──▶ files of batches read
audience, twice a second   ──▶ attempts that somebody looks at written as streams
retention, every minute    ──▶ prompts and answers erased that were kept long enough
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError
from structlog.contextvars import bound_contextvars

from core.crash import CrashPoint, crash_point
from core.crypto import UnknownEncryptionKey
from core.database_threads import DatabaseThreadPool
from core.group_commit import GroupCommitter
from core.ids import to_public
from core.supervised_loop import LoopSupervisor
from core.tasks import BackgroundTasks
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
from jobs.worker.leases import HeldJob, LeaseRenewal
from jobs.worker.outcomes import AttemptCanceled, AttemptFailed, AttemptReleased, ExecutionOutcome, RetryAfterBackoff
from jobs.worker.ramp import SlotRamp
from jobs.worker.sweep import sweep
from metering.usage_records import UsageRecord
from providers.types import Provider

Item = TypeVar("Item")
R = TypeVar("R")

log = structlog.get_logger(__name__)

POLL_SECONDS = 1.0
#: How soon who looks at a job hears of it.
WATCHER_POLL_SECONDS = 0.5
#: While members of a batch end all the time, it is looked after this often.
MAINTENANCE_GAP_SECONDS = 0.2
#: How often what was kept long enough is erased.
RETENTION_INTERVAL_SECONDS = 60.0
#: How long the end of an attempt waits for Postgres to come back, before it is left to the sweep.
FINISH_RETRY_SECONDS = 120.0
#: How long the jobs that are given back at a stop may take to say so.
RELEASE_SECONDS = 5.0
#: After an outage of Postgres, workers get this long to beat again before any is taken for lost.
OUTAGE_RECOVERY_SECONDS = leases.LEASE_SECONDS + leases.HEARTBEAT_SECONDS
#: How long a job waits that this worker cannot read yet, because it lacks a new encryption key.
UNKNOWN_KEY_DELAY_SECONDS = 10.0
#: Threads for claims and finishes. The heartbeat has its own (`jobs.worker.heartbeat`) and never waits behind them.
DATABASE_THREADS = 6
#: Calls are opened, and attempts ended, in groups of at most so many, so many groups at a time.
MAX_GROUP_SIZE, MAX_CONCURRENT_GROUPS = 200, 2
#: Claims come no closer together: each takes what has come meanwhile. The first after a pause comes at once.
CLAIM_GAP_SECONDS = 0.02
#: Jobs that may be between their claim and their call; also the slots that are open at first (`jobs.worker.ramp`).
MAX_STARTING = 64
#: While more slots are about to be opened, it is looked after this long.
RAMP_POLL_SECONDS = 0.05

INTERNAL_ERROR_MESSAGE = "Internal error while this attempt ran; the details are in the server log."
INTERNAL_ERROR = AttemptFailed("internal_error", INTERNAL_ERROR_MESSAGE)

#: Postgres is away, or the connection broke: worth another try, and nobody's fault here.
DATABASE_UNAVAILABLE = (OperationalError, InterfaceError)


class SlotPhase(Enum):
    """How far a job under way has come. It takes up a slot until its end is being written."""

    PENDING = auto()
    #: Its first call is being prepared, and the account of it opened.
    STARTING = auto()
    CALLING = auto()
    #: Its end is being written, and nothing may cut that off.
    FINISHING = auto()


@dataclass(slots=True)
class JobSlot:
    """One job under way. `stop_outcome` says why it was stopped, if it was."""

    run: AttemptRun
    stream: AttemptStream
    task: "asyncio.Task[None] | None" = None
    phase: SlotPhase = SlotPhase.PENDING
    stop_outcome: AttemptCanceled | AttemptReleased | None = None

    def stop(self, why: AttemptCanceled | AttemptReleased) -> None:
        """Stop its calls. A task that has not begun must not be canceled: it would never write its end."""
        if self.stop_outcome is not None or self.phase is SlotPhase.FINISHING:
            return
        self.stop_outcome = why
        if self.phase is not SlotPhase.PENDING and self.task is not None:
            self.task.cancel()


class JobEngine:
    """Lives in one event loop: `await run()`. `wake` and `stop` may be called from any thread."""

    def __init__(
        self,
        provider_for: Callable[[ProviderSpec], Provider] | None = None,
        breaker: CircuitBreaker = NO_CIRCUIT_BREAKER,
    ) -> None:
        self._breaker = breaker
        self._rng = random.Random()  # noqa: S311 (jitter, not a secret)
        self._slots: dict[UUID, JobSlot] = {}
        self._wake_event = asyncio.Event()
        self._stopping = asyncio.Event()
        self._members_finished = asyncio.Event()
        self._database = DatabaseThreadPool("jobs", DATABASE_THREADS)
        self._maintenance_threads = DatabaseThreadPool("upkeep", 1)
        #: Reading a large file takes a while, and nothing else should wait for it.
        self._file_threads = DatabaseThreadPool("reading", 1)
        self._call_opener: GroupCommitter[CallOpening, AttemptCanceled | AttemptReleased | None] = self._grouped(
            open_calls
        )
        self._finisher: GroupCommitter[FinishRequest, FinishResult] = self._grouped(finish_all)
        self._clients = ProviderClients()
        self._retry_budgets = RetryBudgets(settings.RETRY_BUDGET_PERCENT / 100, settings.RETRY_BUDGET_FLOOR)
        self._provider_for = provider_for or self._clients
        self._attempt_streams = AttemptStreams()
        self._worker_id: UUID | None = None
        #: Jobs that the database says we hold, and we know nothing of, at the last heartbeat.
        self._unknown_claims: frozenset[HeldJob] = frozenset()
        self._is_claiming = False
        self._ramp = SlotRamp(MAX_STARTING, settings.JOB_SLOTS, time.monotonic())
        #: The last claim got as much as it asked for, so that there may be more.
        self._has_backlog = False
        self._background_tasks = BackgroundTasks()
        self._supervisor = LoopSupervisor(
            unavailable_event="worker_database_unavailable",
            recovered_event="worker_database_recovered",
            outage_errors=DATABASE_UNAVAILABLE,
            recovery_seconds=OUTAGE_RECOVERY_SECONDS,
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
        """Look for work now."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._wake_event.set)

    def stop(self) -> None:
        """Claim nothing more, finish what can be in time, give the rest back; then `run` returns."""
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
                run_forever(self._stream_watched_attempts, WATCHER_POLL_SECONDS),
                run_forever(partial(run_in_thread, retention.run_retention), RETENTION_INTERVAL_SECONDS),
            )
        ]
        try:
            await self._claim_until_stopped()
            await self._drain()
        finally:
            await _cancel_tasks(*loops)
            await self._shut_down(heartbeat)

    # The loops

    def _on_heartbeat(self, beat: HeartbeatEvent) -> None:
        """Take in what a heartbeat brought."""
        match beat:
            case LeaseAcquired(worker_id):
                self._worker_id = worker_id
                log.info("lease_acquired", worker=str(worker_id))
                self._wake_event.set()
            case LeaseRenewed(worker_id, renewal):
                self._apply_cancels(renewal)
                self._release_unknown_claims(worker_id, renewal)
            case LeaseLost(worker_id):
                self._on_lease_lost(worker_id)
            case HeartbeatMissed(error):
                self._supervisor.on_failure(error)

    def _apply_cancels(self, renewal: LeaseRenewal) -> None:
        for held in renewal.held:
            if held.is_cancel_requested and (slot := self._slots.get(held.job_id)):
                slot.stop(AttemptCanceled())

    def _release_unknown_claims(self, worker_id: UUID, renewal: LeaseRenewal) -> None:
        """Give back what we hold without knowing, such as a claim whose answer was lost on its way to us.

        Seen twice, and not while a claim is on its way. Should it come after all, its fence stops it.
        """
        unknown = [held for held in renewal.held if held.job_id not in self._slots]
        strays = frozenset() if self._is_claiming else frozenset(unknown)
        for held in strays & self._unknown_claims:
            log.warning("unknown_claim_released", job=to_public(Job.ID_PREFIX, held.job_id), attempt=held.attempt)
            fence = Fence(held.job_id, held.attempt, worker_id)
            release = partial(self._finisher.submit, FinishRequest(fence, AttemptReleased()))
            self._background_tasks.spawn(self._supervisor.run(release))
        self._unknown_claims = strays

    def _report(self) -> dict[str, Any]:
        """What this worker says of itself, for people to look at."""
        return {"slots": settings.JOB_SLOTS, "jobs": len(self._slots), "retry_budgets": to_report(self._retry_budgets)}

    def _on_lease_lost(self, worker_id: UUID) -> None:
        """The lease ran out: what we hold may be another's by now."""
        log.error("lease_lost", worker=str(worker_id), jobs=len(self._slots))
        self._worker_id = None
        for slot in self._slots.values():
            slot.stop(AttemptReleased())

    async def _sweep(self) -> None:
        heartbeats_possible = self._supervisor.seconds_since_failure > OUTAGE_RECOVERY_SECONDS
        swept = await self._database.run(
            sweep, heartbeats_possible=heartbeats_possible, recovery_seconds=OUTAGE_RECOVERY_SECONDS
        )
        if swept and (swept.lost or swept.expired):
            log.info("sweep_completed", lost=swept.lost, expired=swept.expired)
            self._wake_event.set()

    async def _run_maintenance_forever(self) -> None:
        """Look after batches each second; sooner when members of one ended, for they may have been the last."""
        while True:
            self._members_finished.clear()
            await self._supervisor.run(partial(self._maintenance_threads.run, run_maintenance))
            await asyncio.sleep(MAINTENANCE_GAP_SECONDS)
            await _wait_for_event(self._members_finished, POLL_SECONDS)

    async def _stream_watched_attempts(self) -> None:
        await self._attempt_streams.stream_watched(
            [slot.stream for slot in self._slots.values() if slot.phase is not SlotPhase.FINISHING]
        )

    async def _expand_batch_files(self) -> None:
        while await self._file_threads.run(expand_one, self._stopping.is_set):
            self._wake_event.set()

    async def _claim_until_stopped(self) -> None:
        """Claim whenever the bell rings, or a second has passed. Ends by itself: a claim is never cut off,
        for what it had claimed would then be held by nobody."""
        while not self._stopping.is_set():
            self._wake_event.clear()
            gap_ends_at = time.monotonic() + CLAIM_GAP_SECONDS
            claimed = await self._supervisor.run(self._claim)
            if not claimed:
                more_soon = self._has_backlog and self._ramp.is_opening
                await _wait_for_event(self._wake_event, RAMP_POLL_SECONDS if more_soon else POLL_SECONDS)
            await asyncio.sleep(max(gap_ends_at - time.monotonic(), 0))

    async def _claim(self) -> int:
        worker_id, free = self._worker_id, self._free_slots()
        if worker_id is None or free <= 0:
            return 0
        self._is_claiming = True
        try:
            claims = await self._database.run(claim, worker_id, free, settings.JOB_QUEUES)
            self._has_backlog = len(claims) == free
        finally:
            self._is_claiming = False
        if claims:
            crash_point(CrashPoint.AFTER_CLAIM)
        for claimed in claims:
            self._start(claimed, worker_id)
        return len(claims)

    def _free_slots(self) -> int:
        held, phases = len(self._slots), Counter(slot.phase for slot in self._slots.values())
        taken = held - phases[SlotPhase.FINISHING]
        starting = phases[SlotPhase.PENDING] + phases[SlotPhase.STARTING]
        open_slots = self._ramp.open_slots(taken, time.monotonic())
        # While Postgres is slow, no more ends wait for it than there are slots.
        return min(open_slots - taken, 2 * settings.JOB_SLOTS - held, MAX_STARTING - starting)

    # One job

    def _start(self, claimed: ClaimedJob, worker_id: UUID) -> None:
        slot = self._slots[claimed.job_id] = JobSlot(prepare_attempt(claimed, worker_id), AttemptStream(claimed))
        slot.task = asyncio.create_task(self._run_attempt(slot), name=claimed.public_id)
        slot.task.add_done_callback(lambda task: self._on_task_done(slot, task))
        if worker_id != self._worker_id:
            # The lease was lost while the claim was under way.
            slot.stop(AttemptReleased())

    def _on_task_done(self, slot: JobSlot, task: "asyncio.Task[None]") -> None:
        if self._slots.get(slot.run.job.job_id) is slot:
            del self._slots[slot.run.job.job_id]
        if not task.cancelled() and (error := task.exception()):
            log.error("job_task_crashed", job=slot.run.job.public_id, exc_info=error)
        self._wake_event.set()

    async def _run_attempt(self, slot: JobSlot) -> None:
        job = slot.run.job
        with bound_contextvars(job=job.public_id, attempt=job.attempt, request_id=job.request_id):
            started = time.monotonic()
            outcome = slot.stop_outcome or await self._execute(slot)
            slot.phase = SlotPhase.FINISHING
            self._wake_event.set()
            slot.stream.end(outcome)
            result = await self._finish(slot, outcome)
            if job.batch_id is not None:
                self._members_finished.set()
            log.info(
                "attempt_finished",
                outcome=type(outcome).__name__,
                finish=result,
                calls=len(slot.run.trace.closed),
                seconds=round(time.monotonic() - started, 3),
            )

    async def _execute(self, slot: JobSlot) -> ExecutionOutcome:
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
            # Nothing was asked of a provider without its account being open, so nothing is lost.
            return AttemptReleased()
        except UnknownEncryptionKey:
            # Another process seals with a newer key than this one was started with.
            log.error("encryption_key_unknown", hint="restart this worker with the ENCRYPTION_KEYS of the others")
            return AttemptReleased(UNKNOWN_KEY_DELAY_SECONDS)
        except Exception:  # the outermost of a job: a fault of ours must not leave it running for ever
            log.exception("job_crashed")
            return _after_internal_error(slot.run.job)

    async def _open_call(self, slot: JobSlot, opening: CallOpening) -> AttemptCanceled | AttemptReleased | None:
        stopped = await self._call_opener.submit(opening)
        if slot.phase is SlotPhase.STARTING:
            slot.phase = SlotPhase.CALLING
            if self._has_backlog:
                self._wake_event.set()
        return stopped

    async def _finish(self, slot: JobSlot, outcome: ExecutionOutcome) -> FinishResult | None:
        """Write the end, waiting for Postgres if need be. None if it could not be written: the sweep will see to it."""
        calls: Sequence[UsageRecord] = slot.run.usage_records()
        give_up_at = time.monotonic() + FINISH_RETRY_SECONDS
        while time.monotonic() < give_up_at:
            try:
                return await self._finisher.submit(FinishRequest(slot.run.fence, outcome, calls))
            except DATABASE_UNAVAILABLE as error:
                self._supervisor.on_failure(error)
                await asyncio.sleep(self._rng.uniform(0.2, POLL_SECONDS))
            except Exception:
                # What cannot be written would be tried, and paid, again and again.
                log.exception("finish_failed")
                if outcome is not INTERNAL_ERROR:
                    # It may be the answer that cannot be written. What the calls used is known, and stays.
                    outcome = INTERNAL_ERROR
                elif calls:
                    calls = []
                else:
                    return None
        log.error("finish_abandoned")
        return None

    # The end

    def _start_stopping(self) -> None:
        self._stopping.set()
        self._wake_event.set()

    async def _drain(self) -> None:
        log.info("draining", jobs=len(self._slots))
        if self._worker_id is not None:
            await self._supervisor.run(partial(self._database.run, leases.mark_draining, self._worker_id))
        await self._wait_for_slots(settings.JOB_DRAIN_SECONDS)
        for slot in self._slots.values():
            slot.stop(AttemptReleased())
        await self._wait_for_slots(RELEASE_SECONDS)

    async def _wait_for_slots(self, seconds: float) -> None:
        tasks = [slot.task for slot in self._slots.values() if slot.task]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)

    async def _shut_down(self, heartbeat: Heartbeat) -> None:
        await self._background_tasks.cancel()
        await _cancel_tasks(*(slot.task for slot in self._slots.values() if slot.task))
        await self._clients.close()
        await self._attempt_streams.stop()
        await asyncio.to_thread(heartbeat.stop)
        if self._worker_id is not None:
            await self._supervisor.run(partial(self._database.run, leases.release_lease, self._worker_id))
        for threads in (self._database, self._maintenance_threads, self._file_threads):
            threads.close()


async def _wait_for_event(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def _cancel_tasks(*tasks: "asyncio.Task[Any]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _after_internal_error(job: ClaimedJob) -> RetryAfterBackoff | AttemptFailed:
    if job.error_count + 1 >= job.max_attempts:
        return AttemptFailed("internal_error", INTERNAL_ERROR_MESSAGE)
    return RetryAfterBackoff(settings.JOB_RETRY_BASE_SECONDS, "internal_error", INTERNAL_ERROR_MESSAGE)
