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
import math
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
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
from core.crypto import UnknownKey
from core.grouping import Grouped
from core.ids import to_public
from core.threads import DatabaseThreads
from inference.breaker import NO_BREAKER, Breaker
from inference.clients import Clients
from inference.retry_budget import RetryBudgets, to_report
from inference.routing import Glances, ProviderSpec
from jobs import leases, retention
from jobs.batches.expand import expand_one
from jobs.batches.upkeep import tend
from jobs.claim import Claimed, claim
from jobs.endings import Canceled, Ending, Failed, GivenBack, RetryIn
from jobs.execute import Opening, Run, begin, execute, open_calls
from jobs.fence import Fence
from jobs.finish import End, Finish, finish_all
from jobs.leases import Held, Renewal
from jobs.models import Job
from jobs.pulse import Beat, Lost, Missed, Pulse, Renewed, Taken
from jobs.ramp import Ramp
from jobs.sweep import sweep
from jobs.voices import Voice, Voices
from metering.accounts import Account
from providers.types import Provider

Item = TypeVar("Item")
R = TypeVar("R")

log = structlog.get_logger(__name__)

POLL_SECONDS = 1.0
#: How soon who looks at a job hears of it.
AUDIENCE_SECONDS = 0.5
#: While members of a batch end all the time, it is looked after this often.
TEND_GAP_SECONDS = 0.2
#: How often what was kept long enough is erased.
RETENTION_SECONDS = 60.0
#: How long the end of an attempt waits for Postgres to come back, before it is left to the sweep.
FINISH_PATIENCE_SECONDS = 120.0
#: How long the jobs that are given back at a stop may take to say so.
GIVE_BACK_SECONDS = 5.0
#: After an outage of Postgres, workers get this long to beat again before any is taken for lost.
SETTLE_SECONDS = leases.LEASE_SECONDS + leases.HEARTBEAT_SECONDS
#: How long a job waits that this worker cannot read yet, because it lacks a new encryption key.
UNREADABLE_SECONDS = 10.0
#: Threads for claims and finishes; the heartbeat has its own (`jobs.pulse`), so that it never waits behind them.
DATABASE_THREADS = 6
#: Calls are opened, and attempts ended, in groups of at most so many, so many groups at a time.
LARGEST_GROUP, GROUPS_AT_ONCE = 200, 2
#: Claims come no closer together: each takes what has come meanwhile. The first after a pause comes at once.
CLAIM_GAP_SECONDS = 0.02
#: So many jobs at most are between their claim and their call, and so many slots are open at first (`jobs.ramp`).
BEGIN_AT_ONCE = 64
#: While more slots are about to be opened, it is looked after this long.
RAMP_STEP_SECONDS = 0.05

BROKEN = "The desk itself failed while it ran this attempt; its log has the details."
IN_PIECES = Failed("internal_error", BROKEN)

#: Postgres is away, or the connection broke: worth another try, and nobody's fault here.
DATABASE_AWAY = (OperationalError, InterfaceError)


class Phase(Enum):
    """How far a job under way has come. It takes up a slot until its end is being written."""

    NOT_BEGUN = auto()
    #: Its first call is being prepared, and the account of it opened.
    BEGINNING = auto()
    CALLING = auto()
    #: Its end is being written, and nothing may cut that off.
    ENDING = auto()


@dataclass(slots=True)
class Slot:
    """One job under way. `stopped_by` says why it was stopped, if it was."""

    run: Run
    voice: Voice
    task: "asyncio.Task[None] | None" = None
    phase: Phase = Phase.NOT_BEGUN
    stopped_by: Canceled | GivenBack | None = None

    def stop(self, why: Canceled | GivenBack) -> None:
        """Stop its calls. A task that has not begun must not be canceled: it would never write its end."""
        if self.stopped_by is not None or self.phase is Phase.ENDING:
            return
        self.stopped_by = why
        if self.phase is not Phase.NOT_BEGUN and self.task is not None:
            self.task.cancel()


class Engine:
    """Lives in one event loop: `await run()`. `wake` and `stop` may be called from any thread."""

    def __init__(
        self, provider_for: Callable[[ProviderSpec], Provider] | None = None, breaker: Breaker = NO_BREAKER
    ) -> None:
        self._breaker = breaker
        self._chance = random.Random()  # noqa: S311 (jitter, not a secret)
        self._slots: dict[UUID, Slot] = {}
        self._bell = asyncio.Event()
        self._stopping = asyncio.Event()
        self._members_ended = asyncio.Event()
        self._database = DatabaseThreads("jobs", DATABASE_THREADS)
        self._upkeep = DatabaseThreads("upkeep", 1)
        #: Reading a large file takes a while, and nothing else should wait for it.
        self._reading = DatabaseThreads("reading", 1)
        self._opener: Grouped[Opening, Canceled | GivenBack | None] = self._grouped(open_calls)
        self._ender: Grouped[End, Finish] = self._grouped(finish_all)
        self._glances = Glances(self._database)
        self._clients = Clients()
        self._budgets = RetryBudgets(settings.RETRY_BUDGET_PERCENT / 100, settings.RETRY_BUDGET_FLOOR)
        self._provider_for = provider_for or self._clients
        self._voices = Voices()
        self._worker_id: UUID | None = None
        #: Jobs that the database says we hold, and we know nothing of, at the last heartbeat.
        self._strays: frozenset[Held] = frozenset()
        self._is_claiming = False
        self._ramp = Ramp(BEGIN_AT_ONCE, settings.JOB_SLOTS, time.monotonic())
        #: The last claim got as much as it asked for, so that there may be more.
        self._was_cut = False
        self._chores: set[asyncio.Task[object]] = set()
        self._last_outage = -math.inf
        self._loop: asyncio.AbstractEventLoop | None = None

    def _grouped(self, work: Callable[[Sequence[Item]], Sequence[R]]) -> Grouped[Item, R]:
        async def do(items: Sequence[Item]) -> Sequence[R]:
            return await self._database.run(work, items)

        return Grouped(do, largest=LARGEST_GROUP, at_once=GROUPS_AT_ONCE, shared=DATABASE_AWAY)

    def wake(self) -> None:
        """Look for work now."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._bell.set)

    def stop(self) -> None:
        """Claim nothing more, finish what can be in time, give the rest back; then `run` returns."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._begin_stop)

    async def run(self) -> None:
        """Work until `stop`."""
        self._loop = asyncio.get_running_loop()
        pulse = Pulse(self._loop, self._hear, self._report)
        pulse.start()
        broom = asyncio.create_task(self._forever(self._sweep, POLL_SECONDS))
        upkeep = asyncio.create_task(self._tend_forever())
        reader = asyncio.create_task(self._forever(self._read_files, POLL_SECONDS))
        ears = asyncio.create_task(self._forever(self._look_for_audience, AUDIENCE_SECONDS))
        eraser = asyncio.create_task(self._forever(partial(self._upkeep.run, retention.tend), RETENTION_SECONDS))
        try:
            await self._claim_until_stopped()
            await self._drain()
        finally:
            await _cancel(broom, upkeep, reader, eraser, ears)
            await self._leave(pulse)

    # The loops

    def _hear(self, beat: Beat) -> None:
        """Take in what a heartbeat brought."""
        match beat:
            case Taken(worker_id):
                self._worker_id = worker_id
                log.info("lease_taken", worker=str(worker_id))
                self._bell.set()
            case Renewed(worker_id, renewal):
                self._hear_cancels(renewal)
                self._look_for_strays(worker_id, renewal)
            case Lost(worker_id):
                self._fence(worker_id)
            case Missed(error):
                self._note_outage(error)

    def _hear_cancels(self, renewal: Renewal) -> None:
        for held in renewal.held:
            if held.is_to_be_canceled and (slot := self._slots.get(held.job_id)):
                slot.stop(Canceled())

    def _look_for_strays(self, worker_id: UUID, renewal: Renewal) -> None:
        """Give back what we hold without knowing, such as a claim whose answer was lost on its way to us.

        Seen twice, and not while a claim is on its way. Should it come after all, its fence stops it.
        """
        unknown = [held for held in renewal.held if held.job_id not in self._slots]
        strays = frozenset() if self._is_claiming else frozenset(unknown)
        for held in strays & self._strays:
            log.warning("stray_given_back", job=to_public(Job.ID_PREFIX, held.job_id), attempt=held.attempt)
            fence = Fence(held.job_id, held.attempt, worker_id)
            self._do_beside(partial(self._ender.do, End(fence, GivenBack())))
        self._strays = strays

    def _do_beside(self, step: Callable[[], Awaitable[object]]) -> None:
        chore = asyncio.create_task(self._survive(step))
        self._chores.add(chore)
        chore.add_done_callback(self._chores.discard)

    def _report(self) -> dict[str, Any]:
        """What this worker says of itself, for people to look at."""
        return {"slots": settings.JOB_SLOTS, "jobs": len(self._slots), "retry_budgets": to_report(self._budgets)}

    def _fence(self, worker_id: UUID) -> None:
        """The lease ran out: what we hold may be another's by now."""
        log.error("lease_lost", worker=str(worker_id), jobs=len(self._slots))
        self._worker_id = None
        for slot in self._slots.values():
            slot.stop(GivenBack())

    async def _sweep(self) -> None:
        could_beat = time.monotonic() - self._last_outage > SETTLE_SECONDS
        swept = await self._database.run(sweep, workers_could_beat=could_beat, settle_seconds=SETTLE_SECONDS)
        if swept and (swept.lost or swept.expired):
            log.info("swept", lost=swept.lost, expired=swept.expired)
            self._bell.set()

    async def _tend_forever(self) -> None:
        """Look after batches each second; sooner when members of one ended, for they may have been the last."""
        while True:
            self._members_ended.clear()
            await self._survive(partial(self._upkeep.run, tend))
            await asyncio.sleep(TEND_GAP_SECONDS)
            await _wait(self._members_ended, POLL_SECONDS)

    async def _look_for_audience(self) -> None:
        await self._voices.look([slot.voice for slot in self._slots.values() if slot.phase is not Phase.ENDING])

    async def _read_files(self) -> None:
        while await self._reading.run(expand_one, self._stopping.is_set):
            self._bell.set()

    async def _claim_until_stopped(self) -> None:
        """Claim whenever the bell rings, or a second has passed. Ends by itself: a claim is never cut off,
        for what it had claimed would then be held by nobody."""
        while not self._stopping.is_set():
            self._bell.clear()
            gap_ends_at = time.monotonic() + CLAIM_GAP_SECONDS
            claimed = await self._survive(self._claim)
            if not claimed:
                more_soon = self._was_cut and self._ramp.is_opening
                await _wait(self._bell, RAMP_STEP_SECONDS if more_soon else POLL_SECONDS)
            await asyncio.sleep(max(gap_ends_at - time.monotonic(), 0))

    async def _claim(self) -> int:
        worker_id, free = self._worker_id, self._free_slots()
        if worker_id is None or free <= 0:
            return 0
        self._is_claiming = True
        try:
            claims = await self._database.run(claim, worker_id, free, settings.JOB_QUEUES)
            self._was_cut = len(claims) == free
        finally:
            self._is_claiming = False
        if claims:
            crash_point(CrashPoint.AFTER_CLAIM)
        for claimed in claims:
            self._start(claimed, worker_id)
        return len(claims)

    def _free_slots(self) -> int:
        held, phases = len(self._slots), Counter(slot.phase for slot in self._slots.values())
        taken = held - phases[Phase.ENDING]
        beginning = phases[Phase.NOT_BEGUN] + phases[Phase.BEGINNING]
        open_slots = self._ramp.open_slots(taken, time.monotonic())
        # While Postgres is slow, no more ends wait for it than there are slots.
        return min(open_slots - taken, 2 * settings.JOB_SLOTS - held, BEGIN_AT_ONCE - beginning)

    async def _forever(self, step: Callable[[], Awaitable[object]], pause_seconds: float) -> None:
        """Take one step after the other."""
        while True:
            await self._survive(step)
            await asyncio.sleep(pause_seconds)

    async def _survive(self, step: Callable[[], Awaitable[R]]) -> R | None:
        """Take a step, and come back from it whatever happens: without its loops a worker is a shell.

        An outage of Postgres is logged once, when it begins.
        """
        try:
            return await step()
        except Exception as error:
            self._note_outage(error)
        return None

    def _note_outage(self, error: Exception) -> None:
        if not isinstance(error, DATABASE_AWAY):
            log.error("step_broke", exc_info=error)
            return
        now = time.monotonic()
        if now - self._last_outage > SETTLE_SECONDS:
            log.error("database_away", error=str(error).strip()[:200])
        self._last_outage = now

    # One job

    def _start(self, claimed: Claimed, worker_id: UUID) -> None:
        slot = self._slots[claimed.job_id] = Slot(begin(claimed, worker_id), Voice(claimed))
        slot.task = asyncio.create_task(self._work(slot), name=claimed.public_id)
        slot.task.add_done_callback(lambda task: self._free(slot, task))
        if worker_id != self._worker_id:
            # The lease was lost while the claim was under way.
            slot.stop(GivenBack())

    def _free(self, slot: Slot, task: "asyncio.Task[None]") -> None:
        if self._slots.get(slot.run.job.job_id) is slot:
            del self._slots[slot.run.job.job_id]
        if not task.cancelled() and (error := task.exception()):
            log.error("job_task_broke", job=slot.run.job.public_id, exc_info=error)
        self._bell.set()

    async def _work(self, slot: Slot) -> None:
        job = slot.run.job
        with bound_contextvars(job=job.public_id, attempt=job.attempt, request_id=job.request_id):
            started = time.monotonic()
            ending = slot.stopped_by or await self._execute(slot)
            slot.phase = Phase.ENDING
            self._bell.set()
            slot.voice.end(ending)
            result = await self._finish(slot, ending)
            if job.batch_id is not None:
                self._members_ended.set()
            log.info(
                "attempt_ended",
                ending=type(ending).__name__,
                finish=result,
                calls=len(slot.run.trace.closed),
                seconds=round(time.monotonic() - started, 3),
            )

    async def _execute(self, slot: Slot) -> Ending:
        slot.phase = Phase.BEGINNING
        try:
            return await execute(
                slot.run,
                routing=await self._glances.routing(),
                opener=partial(self._open, slot),
                retries=self._budgets.of_site(slot.run.job.site_id),
                provider_for=self._provider_for,
                chance=self._chance,
                breaker=self._breaker,
                hear=slot.voice.hear,
            )
        except asyncio.CancelledError:
            if slot.stopped_by is None:
                raise
            return slot.stopped_by
        except DATABASE_AWAY:
            # Nothing was asked of a provider without its account being open, so nothing is lost.
            return GivenBack()
        except UnknownKey:
            # Another process seals with a newer key than this one was started with.
            log.error("key_unknown", hint="restart this worker with the ENCRYPTION_KEYS of the others")
            return GivenBack(UNREADABLE_SECONDS)
        except Exception:  # the outermost of a job: a fault of ours must not leave it running for ever
            log.exception("job_broke")
            return _broken(slot.run.job)

    async def _open(self, slot: Slot, opening: Opening) -> Canceled | GivenBack | None:
        stopped = await self._opener.do(opening)
        if slot.phase is Phase.BEGINNING:
            slot.phase = Phase.CALLING
            if self._was_cut:
                self._bell.set()
        return stopped

    async def _finish(self, slot: Slot, ending: Ending) -> Finish | None:
        """Write the end, waiting for Postgres if need be. None if it could not be written: the sweep will see to it."""
        calls: Sequence[Account] = slot.run.accounts()
        give_up_at = time.monotonic() + FINISH_PATIENCE_SECONDS
        while time.monotonic() < give_up_at:
            try:
                return await self._ender.do(End(slot.run.fence, ending, calls))
            except DATABASE_AWAY:
                self._last_outage = time.monotonic()
                await asyncio.sleep(self._chance.uniform(0.2, POLL_SECONDS))
            except Exception:
                # What cannot be written would be tried, and paid, again and again.
                log.exception("finish_broke")
                if ending is not IN_PIECES:
                    # It may be the answer that cannot be written. What the calls used is known, and stays.
                    ending = IN_PIECES
                elif calls:
                    calls = []
                else:
                    return None
        log.error("finish_given_up")
        return None

    # The end

    def _begin_stop(self) -> None:
        self._stopping.set()
        self._bell.set()

    async def _drain(self) -> None:
        log.info("draining", jobs=len(self._slots))
        if self._worker_id is not None:
            await self._survive(partial(self._database.run, leases.start_draining, self._worker_id))
        await self._wait_for_slots(settings.JOB_DRAIN_SECONDS)
        for slot in self._slots.values():
            slot.stop(GivenBack())
        await self._wait_for_slots(GIVE_BACK_SECONDS)

    async def _wait_for_slots(self, seconds: float) -> None:
        tasks = [slot.task for slot in self._slots.values() if slot.task]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)

    async def _leave(self, pulse: Pulse) -> None:
        await _cancel(*self._chores, *(slot.task for slot in self._slots.values() if slot.task))
        await self._clients.close()
        await self._voices.stop()
        await asyncio.to_thread(pulse.stop)
        if self._worker_id is not None:
            await self._survive(partial(self._database.run, leases.drop_lease, self._worker_id))
        for threads in (self._database, self._upkeep, self._reading):
            threads.close()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def _cancel(*tasks: "asyncio.Task[Any]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _broken(job: Claimed) -> RetryIn | Failed:
    if job.error_count + 1 >= job.max_attempts:
        return Failed("internal_error", BROKEN)
    return RetryIn(settings.JOB_RETRY_BASE_SECONDS, "internal_error", BROKEN)
