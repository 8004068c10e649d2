"""Deterministic simulation: many workers in one process, in an order that a seed decides, on a real Postgres.

Nothing of the desk is replaced: workers claim, open calls, finish attempts and sweep through its own functions.
Only the workers are simulated: they die and freeze at any point, and return with late finishes.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from django.db import DatabaseError, connection, transaction
from django.db.models.functions import Now
from msgspec.structs import replace

from core.ids import to_public
from inference.usage_records import UsageAttribution
from jobs.cancel import cancel
from jobs.errors import JobEnded
from jobs.models import Job, JobKind, JobState, WorkerLease
from jobs.priorities import NORMAL_PRIORITY
from jobs.submit import JobSubmission, submit
from jobs.worker.claim import claim
from jobs.worker.execute import AttemptRun, CallOpening, open_calls, prepare_attempt
from jobs.worker.finish import FinishRequest, FinishResult, finish_all
from jobs.worker.leases import acquire_lease, renew_lease
from jobs.worker.outcomes import (
    AttemptCanceled,
    AttemptFailed,
    AttemptReleased,
    AttemptSucceeded,
    ExecutionOutcome,
    RetryAfterBackoff,
)
from jobs.worker.sweep import sweep
from metering.models import UsageOutcome
from metering.usage_records import UsageRecord
from providers.types import Usage
from tenants.models import Site
from tests.chaos.books import read_books
from tests.chaos.invariants import Violation, check
from tests.chaos.turns import Turns, unfair_turns
from tests.factories import make_provider, make_route, make_site
from webhooks.models import Endpoint

STEPS = 120
#: A run needs about ten rounds to settle; one that never does is stopped.
ROUNDS = 25
WORKERS = 4
SITE_CAP = 2
#: Jobs with this metadata kill every worker that calls a provider for them.
DEADLY = "deadly"
PRIORITIES = (NORMAL_PRIORITY - 50, NORMAL_PRIORITY, NORMAL_PRIORITY)


@dataclass(slots=True)
class Hand:
    """One claimed job, as its worker knows it."""

    run: AttemptRun
    is_deadly: bool
    accounts: list[UsageRecord] = field(default_factory=list)


@dataclass(slots=True)
class Worker:
    id: UUID
    hands: list[Hand] = field(default_factory=list)


class Simulation:
    """The run of one seed."""

    def __init__(self, seed: int) -> None:
        self.fenced = 0
        self._chance = random.Random(seed)
        self._sites = _make_desk()
        self._capped = self._sites[-1].id
        self._workers = [_recruit() for _ in range(WORKERS)]
        #: Attempts of frozen workers, which try to finish them when they return.
        self._zombies: list[Hand] = []
        #: Committed finishes whose response may have been lost.
        self._written: list[FinishRequest] = []
        self._ended: dict[UUID, tuple[str, str | None]] = {}
        self._keys: list[tuple[Site, JobSubmission]] = []
        self._violations: list[Violation] = []

    def run(self) -> list[Violation]:
        """Run to the end; return the broken promises."""
        steps: Mapping[Callable[[], None], float] = {
            self._submit: 8,
            self._claim: 9,
            self._open_call: 8,
            self._end: 8,
            self._return_of_a_zombie: 3,
            self._end_once_more: 1,
            self._kill: 1.2,
            self._freeze: 1.2,
            self._sweep: 4,
            self._cancel: 1.5,
            self._hang: 0.5,
            self._let_time_pass: 3,
        }
        names, weights = list(steps), list(steps.values())
        for _ in range(STEPS):
            self._take(self._chance.choices(names, weights)[0])
            self._look_back()
            if self._violations:
                return self._violations
        self._come_to_rest()
        with connection.cursor() as cursor:
            return [*self._violations, *check(read_books(cursor))]

    def _take(self, step: Callable[[], None]) -> None:
        try:
            with transaction.atomic():
                step()
        except DatabaseError as error:
            # The last line of defense held, but it should never be needed.
            self._violations.append(Violation("broke", step.__name__, f"{type(error).__name__}: {error}"))

    # Acts of sites

    def _submit(self) -> None:
        site = self._chance.choices(self._sites, (6, 1, 3))[0]
        if self._keys and self._chance.random() < 0.15:
            site, wanted = self._chance.choice(self._keys)
            if submit(site, wanted).created:
                self._violations.append(Violation("idempotency", str(wanted.idempotency_key), "two jobs were made"))
            return
        for _ in range(self._chance.choice((1, 2, 6))):
            self._submit_one(site)

    def _submit_one(self, site: Site) -> None:
        number = self._chance.randrange(10**9)
        wanted = JobSubmission(
            JobKind.CHAT,
            {"model": "desk", "messages": [{"role": "user", "content": str(number)}]},
            metadata={DEADLY: "yes"} if self._chance.random() < 0.04 else {},
            idempotency_key=str(number) if self._chance.random() < 0.3 else None,
            priority=self._chance.choice(PRIORITIES),
            max_attempts=3,
        )
        submit(site, wanted)
        if wanted.idempotency_key:
            self._keys.append((site, wanted))

    def _cancel(self) -> None:
        job = self._any_job(JobState.QUEUED, JobState.RUNNING)
        if job is not None:
            with suppress(JobEnded):
                cancel(job.site, job.public_id)

    # Acts of workers

    def _claim(self) -> None:
        """A doorbell, received once or twice, or a poll without one."""
        worker = self._chance.choice(self._workers)
        for _ in range(self._chance.choice((1, 1, 2))):
            self._claim_for(worker, self._chance.randint(1, 4))

    def _claim_for(self, worker: Worker, limit: int) -> None:
        before = _standing()
        claims = claim(worker.id, limit)
        if not claims:
            return
        rows = Job.objects.filter(id__in=[each.job_id for each in claims]).values_list("id", "priority", "metadata")
        known = {job_id: (priority, metadata) for job_id, priority, metadata in rows}
        taken = tuple((each.site_id, known[each.job_id][0]) for each in claims)
        self._violations += unfair_turns(Turns(before, _standing(), taken), self._capped)
        worker.hands += [Hand(prepare_attempt(each, worker.id), DEADLY in known[each.job_id][1]) for each in claims]

    def _open_call(self) -> None:
        if (worker := self._busy()) is None:
            return
        hands = self._chance.sample(worker.hands, self._chance.randint(1, len(worker.hands)))
        accounts = [_account(hand) for hand in hands]
        stops = open_calls(
            [
                CallOpening(hand.run.fence, [*hand.accounts[-1:], opened])
                for hand, opened in zip(hands, accounts, strict=True)
            ]
        )
        for hand, opened, stop in zip(hands, accounts, stops, strict=True):
            if stop is not None:
                self._end_all(worker, [(hand, stop)])
            elif hand.is_deadly:
                self._lose(worker)
                return
            else:
                hand.accounts.append(_closed(opened, self._chance))

    def _end(self) -> None:
        if (worker := self._busy()) is None:
            return
        ready = [hand for hand in worker.hands if hand.accounts]
        hands = self._chance.sample(ready, min(len(ready), self._chance.randint(1, 3)))
        self._end_all(worker, [(hand, self._ending(hand)) for hand in hands])

    def _ending(self, hand: Hand) -> ExecutionOutcome:
        if hand.accounts and hand.accounts[-1].outcome == UsageOutcome.OK and self._chance.random() < 0.8:
            return AttemptSucceeded(b'{"by": "%s"}' % str(hand.run.fence.worker_id).encode())
        return self._chance.choice(
            (
                RetryAfterBackoff(5, "overloaded", "busy"),
                AttemptFailed("rejected", "no"),
                AttemptReleased(),
                AttemptCanceled(),
            )
        )

    def _end_all(self, worker: Worker, endings: Sequence[tuple[Hand, ExecutionOutcome]]) -> None:
        ends = [FinishRequest(hand.run.fence, ending, tuple(hand.accounts)) for hand, ending in endings]
        self._written += ends
        self._count(finish_all(ends))
        for hand, _ in endings:
            worker.hands.remove(hand)

    def _end_once_more(self) -> None:
        """The commit succeeded and its response was lost, so the worker writes the same again."""
        if self._written:
            self._count(finish_all([self._chance.choice(self._written)]))

    def _return_of_a_zombie(self) -> None:
        """A worker returns from a freeze, and finishes what it held as if nothing had happened."""
        if not self._zombies:
            return
        hand = self._zombies.pop(self._chance.randrange(len(self._zombies)))
        if self._chance.random() < 0.4:
            # It was about to make another call, and may die in it.
            (stop,) = open_calls([CallOpening(hand.run.fence, [_account(hand)])])
            if stop is None:
                return
        if not hand.accounts:
            hand.accounts.append(_closed(_account(hand), self._chance))
        self._count(finish_all([FinishRequest(hand.run.fence, self._ending(hand), tuple(hand.accounts))]))

    def _sweep(self) -> None:
        sweep()

    def _count(self, results: Sequence[FinishResult]) -> None:
        self.fenced += results.count(FinishResult.FENCED)

    # Faults of workers

    def _kill(self) -> None:
        self._lose(self._chance.choice(self._workers))

    def _freeze(self) -> None:
        worker = self._chance.choice(self._workers)
        self._zombies += worker.hands
        self._lose(worker)

    def _lose(self, worker: Worker) -> None:
        """Let its lease expire. A new worker replaces it."""
        WorkerLease.objects.filter(worker_id=worker.id).update(expires_at=_seconds_ago())
        assert renew_lease(worker.id) is None
        self._workers.remove(worker)
        self._workers.append(_recruit())

    def _hang(self) -> None:
        job = self._any_job(JobState.RUNNING)
        if job is not None:
            Job.objects.filter(id=job.id).update(deadline_at=_seconds_ago())

    def _let_time_pass(self) -> None:
        Job.objects.filter(state=JobState.QUEUED).update(available_at=Now())

    # The end

    def _come_to_rest(self) -> None:
        """Every frozen worker returns, and one worker does the rest."""
        for _ in range(ROUNDS):
            is_over = not Job.objects.filter(state__in=[JobState.QUEUED, JobState.RUNNING]).exists()
            if is_over or self._violations:
                break
            for step in (self._return_of_a_zombie, self._sweep, self._let_time_pass, self._work_off):
                self._take(step)
            self._look_back()
        while self._zombies:
            self._take(self._return_of_a_zombie)
        self._look_back()

    def _work_off(self) -> None:
        for worker in list(self._workers):
            self._claim_for(worker, 20)
            # A job that shares a worker with two deadly ones is suspected too.
            innocent = [hand for hand in worker.hands if not hand.is_deadly]
            openings = [(hand, _account(hand)) for hand in innocent]
            stops = open_calls(
                [CallOpening(hand.run.fence, [*hand.accounts[-1:], opened]) for hand, opened in openings]
            )
            for hand, opened in openings:
                hand.accounts.append(_closed(opened, None))
            ending = zip(innocent, (stop or AttemptSucceeded(b"{}") for stop in stops), strict=True)
            self._end_all(worker, list(ending))
            if worker.hands:
                self._lose(worker)

    def _look_back(self) -> None:
        """Terminal rows must not change."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT id, state, md5(result) FROM jobs_job WHERE finished_at IS NOT NULL")
            ended = {job_id: (state, digest) for job_id, state, digest in cursor.fetchall()}
        for job_id, before in self._ended.items():
            if ended.get(job_id) != before:
                self._violations.append(Violation("fence", str(job_id), "it had ended, and has changed since"))
        self._ended = ended

    def _busy(self) -> Worker | None:
        busy = [worker for worker in self._workers if worker.hands]
        return self._chance.choice(busy) if busy else None

    def _any_job(self, *states: JobState) -> Job | None:
        jobs = list(
            Job.objects.filter(state__in=states).select_related("site").defer("payload", "result").order_by("id")
        )
        return self._chance.choice(jobs) if jobs else None


def simulate(seed: int) -> list[Violation]:
    """Run one seed, and leave nothing of it in the database."""
    with transaction.atomic():
        found = Simulation(seed).run()
        transaction.set_rollback(True)
    return found


def _recruit() -> Worker:
    """A worker whose lease expires when the run says so, however slow the machine is."""
    worker = Worker(acquire_lease())
    WorkerLease.objects.filter(worker_id=worker.id).update(expires_at=Now() + timedelta(hours=1))
    return worker


def _make_desk() -> list[Site]:
    """One site has most of the work, one little, and one may have few jobs running."""
    make_route("desk", (make_provider(), "gpt-4o-mini"))
    sites = [make_site("many"), make_site("few"), make_site("capped", max_running_jobs=SITE_CAP)]
    for site in sites:
        Endpoint.objects.create(site=site, url="https://bakery.test/hook")
    return sites


def _standing() -> Mapping[tuple[UUID, int], tuple[int, int]]:
    """How many jobs are ready and how many run, of each site and priority. Those in quarantine wait for each other."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT site_id, priority, count(*) FILTER (WHERE state = 'queued' AND available_at <= clock_timestamp()"
            " AND crash_count < 2),"
            " count(*) FILTER (WHERE state = 'running') FROM jobs_job GROUP BY site_id, priority"
        )
        return {(site_id, priority): (ready, running) for site_id, priority, ready, running in cursor.fetchall()}


def _seconds_ago() -> object:
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp() - interval '1 second'")
        return cursor.fetchone()[0]


def _account(hand: Hand) -> UsageRecord:
    """The usage record of the next call, which is about to be made."""
    job, number = hand.run.job, len(hand.accounts) + 1
    attribution: UsageAttribution = hand.run.attribution
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        started_at = cursor.fetchone()[0]
    return UsageRecord(
        dedupe_key=f"{to_public(Job.ID_PREFIX, job.job_id)}:{job.attempt}:{number}",
        site_id=job.site_id,
        job_id=job.job_id,
        attempt=job.attempt,
        call=number,
        request_id=attribution.request_id,
        provider="sim-openai",
        price_list="openai",
        model=job.model,
        upstream_model="gpt-4o-mini",
        started_at=started_at,
    )


def _closed(opened: UsageRecord, chance: random.Random | None) -> UsageRecord:
    outcome = UsageOutcome.OK if chance is None or chance.random() < 0.7 else UsageOutcome.ERROR
    usage = Usage(10, 5) if outcome == UsageOutcome.OK else Usage()
    return replace(opened, outcome=outcome, usage=usage)
