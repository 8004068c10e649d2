"""A campaign: carries out the plan on a real desk, waits until everything has settled, and compares the ledgers."""

import asyncio
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psycopg
import redis
from celery import Celery
from kombu.exceptions import OperationalError as BrokerAway

from devstack.ports import free_port
from simulator.journal import JournalEntry
from tests.chaos.books import Books, read_books
from tests.chaos.clients import Clients
from tests.chaos.desk import Desk, Member, running_desk
from tests.chaos.ledgers import Ledgers, compare
from tests.chaos.plan import Blow, Deed, Plan, crash_variables
from tests.chaos.receiver import Receiver, receiving
from tests.chaos.recovery import Fault, Outage
from tests.chaos.verdict import Verdict, judge
from tests.chaos.watcher import Watcher, connect, read_ended

#: Everything must have finished within this time after the last fault.
SETTLE_SECONDS = 60.0
#: A killed worker is restarted after this time, as a supervisor would do.
RESTART_SECONDS = 1.0
#: Time after an outage of Postgres in which the desk declares no worker lost.
AFTER_OUTAGE_SECONDS = 9.0
BROKER_PREFIX = "nightdesk:"
DOORBELLS = ("jobs.ring", "webhooks.ring")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a campaign: its verdict, and the folder of its ledgers if they were kept."""

    verdict: Verdict
    kept: Path | None


class Campaign:
    """Carries out one plan on one desk."""

    def __init__(self, plan: Plan, desk: Desk, clients: Clients, watcher: Watcher, say: Say, hurry: str) -> None:
        self._hurry_webhooks = hurry
        self.done: Counter[str] = Counter()
        self.faults: list[Fault] = []
        self.outages: list[Outage] = []
        self._plan, self._desk, self._clients, self._watcher, self._say = plan, desk, clients, watcher, say
        self._begin = time.monotonic()
        self._is_over = False
        self._ringer = _ringer(desk.redis_url)

    async def run(self) -> None:
        """Carry out the whole plan, and wait until everything has settled."""
        for number in range(self._plan.workers):
            self._start_worker(number)
        keepers = [asyncio.create_task(self._keep(number)) for number in range(self._plan.workers)]
        keepers.append(asyncio.create_task(self._keep_web()))
        reporter = asyncio.create_task(self._report())
        try:
            await self._until_a_worker_lives()
            self._begin = time.monotonic()
            await asyncio.gather(self._clients.run(self._begin), *(self._strike(blow) for blow in self._plan.blows))
            self._is_over = True
            await self._settle()
        finally:
            for task in (reporter, *keepers):
                task.cancel()
            await asyncio.gather(reporter, *keepers, return_exceptions=True)
        await self._clients.read_all()
        await self._stop_workers()

    # Processes that exit are restarted

    def _start_worker(self, number: int) -> None:
        member, starts = self._desk.workers[number], self._plan.starts[number]
        at = None if self._is_over else starts[member.starts % len(starts)]
        self._desk.start_worker(number, at)
        if member.starts > 1 or at:
            self._tell(f"worker {number} starts" + (f", to crash at {at.point}:{at.hit_number}" if at else ""))

    async def _keep(self, number: int) -> None:
        member = self._desk.workers[number]
        while True:
            code = await member.ended()
            self._note_fault(member)
            self.done["kills" if code == -signal.SIGKILL else "worker_exits"] += 1
            self._tell(f"worker {number} ended ({code})")
            await asyncio.sleep(RESTART_SECONDS)
            self._start_worker(number)

    async def _keep_web(self) -> None:
        while True:
            code = await self._desk.web.ended()
            self.done["web_kills" if code == -signal.SIGKILL else "web_exits"] += 1
            self._tell(f"web ended ({code})")
            starts, web = self._plan.web_starts, self._desk.web
            web.start(**crash_variables(None if self._is_over else starts[web.starts % len(starts)]))

    def _note_fault(self, member: Member) -> None:
        self.faults.append(Fault(time.time(), member.pid))

    # Faults

    async def _strike(self, blow: Blow) -> None:
        await asyncio.sleep(max(0.0, self._begin + blow.at - time.monotonic()))
        length = f" for {blow.seconds:.1f} s" if blow.seconds else ""
        self._tell(f"{blow.deed}{f' {blow.worker}' if 'worker' in blow.deed else ''}{length}")
        match blow.deed:
            case Deed.KILL_WORKER:
                self._desk.workers[blow.worker].signal(signal.SIGKILL)
            case Deed.FREEZE_WORKER:
                await self._freeze(self._desk.workers[blow.worker], blow.seconds)
            case Deed.KILL_WEB:
                self._desk.web.signal(signal.SIGKILL)
            case Deed.FLUSH_REDIS | Deed.LOSE_DOORBELLS | Deed.DOUBLE_DOORBELLS:
                await asyncio.to_thread(self._meddle, blow.deed)
            case Deed.RESTART_REDIS:
                await self._restart("valkey", self._desk.valkey, signal.SIGKILL, blow.seconds)
            case Deed.STOP_POSTGRES:
                await self._restart("postgres", self._desk.postgres, signal.SIGINT, blow.seconds)
            case Deed.CRASH_POSTGRES:
                await self._restart("postgres", self._desk.postgres, signal.SIGQUIT, blow.seconds)

    async def _freeze(self, member: Member, seconds: float) -> None:
        if not member.is_running:
            return
        self._note_fault(member)
        self.done["freezes"] += 1
        frozen = member.process
        member.signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        if member.process is frozen:
            member.signal(signal.SIGCONT)

    def _meddle(self, deed: Deed) -> None:
        """Remove messages from the broker, or send spurious ones."""
        try:
            if deed == Deed.DOUBLE_DOORBELLS:
                for name in DOORBELLS * 5:
                    self._ringer.send_task(name, queue="doorbell", ignore_result=True)
                self.done["doorbells_doubled"] += 1
                return
            with self._desk.broker() as broker:
                if deed == Deed.FLUSH_REDIS:
                    broker.flushall()
                    self.done["flushes"] += 1
                else:
                    broker.delete(f"{BROKER_PREFIX}doorbell")
                    self.done["doorbells_lost"] += 1
        except (redis.RedisError, BrokerAway, OSError):  # the broker itself is down
            self.done["missed_blows"] += 1

    async def _restart(self, name: str, member: Member, how: signal.Signals, seconds: float) -> None:
        began = time.time()
        member.signal(how)
        await member.ended()
        await asyncio.sleep(seconds)
        member.start()
        await self._desk.until_ready(name)
        self.done[f"{name}_restarts"] += 1
        if name == "postgres":
            self.outages.append(Outage(began, time.time() + AFTER_OUTAGE_SECONDS))

    # Settling

    async def _until_a_worker_lives(self) -> None:
        give_up_at = time.monotonic() + 60
        while not self._watcher.workers:
            if time.monotonic() > give_up_at:
                raise RuntimeError(f"No worker took a lease:\n{self._desk.logs()[-4000:]}")
            await asyncio.sleep(0.05)

    async def _settle(self) -> None:
        """Wait until every job and every delivery has ended, or the time for it is over."""
        self._tell("nothing more is done to the desk; it settles")
        began = time.monotonic()
        await asyncio.sleep(1)
        while time.monotonic() - began < SETTLE_SECONDS:
            left = await asyncio.to_thread(self._hurry)
            if left == 0:
                break
            await asyncio.sleep(0.3)
        self._tell(f"settled after {time.monotonic() - began:.1f} s")

    def _hurry(self) -> int:
        """Return the number of unfinished items. Backoffs of minutes between webhook attempts are shortened."""
        with connect(self._desk.database_url) as connection:
            connection.execute(self._hurry_webhooks.encode())
            row = connection.execute(UNFINISHED).fetchone()
            return int(row[0]) if row else 0

    async def _stop_workers(self) -> None:
        for member in self._desk.workers:
            member.signal(signal.SIGTERM)
        await asyncio.gather(*(member.ended() for member in self._desk.workers if member.process))

    # Reporting

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(3)
            jobs, ended, pending = self._watcher.counts
            total = len(self._plan.orders)
            filled = round(30 * ended / max(total, 1))
            bar = "█" * filled + "░" * (30 - filled)
            self._tell(
                f"{bar} {self._clients.accepted}/{total} accepted, {ended}/{jobs} jobs ended, {pending} webhooks wait"
            )

    def _tell(self, text: str) -> None:
        self._say(f"{time.monotonic() - self._begin:6.1f} s  {text}")


#: Shortens backoffs of minutes between webhook attempts.
PATIENCE = """
UPDATE webhooks_delivery SET due_at = clock_timestamp() + interval '3 seconds'
 WHERE state = 'pending' AND due_at > clock_timestamp() + interval '30 seconds'
"""
#: A lease lasts 18 s and an attempt 3 s: the owner of a lease with less than 14 s left is dead.
HASTE = """
UPDATE webhooks_delivery SET due_at = clock_timestamp()
 WHERE state = 'pending' AND due_at NOT BETWEEN clock_timestamp() + interval '14 seconds'
                                            AND clock_timestamp() + interval '19 seconds'
"""
UNFINISHED = """
SELECT (SELECT count(*) FROM jobs_job WHERE finished_at IS NULL)
     + (SELECT count(*) FROM jobs_batch WHERE state NOT IN ('completed', 'failed', 'expired', 'cancelled'))
     + (SELECT count(*) FROM webhooks_delivery WHERE state = 'pending')
"""


def play(plan: Plan, folder: Path, say: Say, *, in_haste: bool = False) -> Verdict:
    """Carry the plan out and compare the ledgers; where a promise is broken they are written into the folder.

    With `haste`, deliveries of a dead courier are sent again immediately at the end, not when its lease expires.
    """
    return asyncio.run(_play(plan, folder, say, in_haste))


async def _play(plan: Plan, folder: Path, say: Say, in_haste: bool) -> Verdict:
    began = time.monotonic()
    receiver = Receiver({str(order.number) for order in plan.orders if order.webhook_stumbles})
    port = free_port()
    async with receiving(receiver, port):
        with ExitStack() as stack:
            # Entered in the main thread: the servers end with the thread that starts them.
            desk = stack.enter_context(running_desk(plan, port))
            receiver.trust([site.webhook_secret for site in desk.sites])
            say(f"the desk is up after {time.monotonic() - began:.1f} s")
            watcher = Watcher(desk.database_url)
            stack.enter_context(watcher.watching())
            clients = Clients(plan, desk.web_url, desk.sites)
            campaign = Campaign(plan, desk, clients, watcher, say, HASTE if in_haste else PATIENCE)
            await campaign.run()
            with connect(desk.database_url) as connection:
                books = _books(connection)
                ended = {sighting.job_id: sighting for sighting in read_ended(connection)}
            ledgers = Ledgers(
                orders=plan.orders,
                told=clients.told,
                journal=read_journal(desk.journal),
                books=books,
                received=receiver.received,
                batch_orders=plan.batches,
                batches=clients.batches,
                results=clients.results,
                sightings=list(watcher.sightings.values()),
                ended=ended,
            )
            verdict = judge(
                plan,
                ledgers,
                compare(ledgers),
                done=campaign.done,
                faults=campaign.faults,
                workers=watcher.workers,
                outages=campaign.outages,
                logs=desk.logs(),
                seconds=time.monotonic() - began,
            )
            if not verdict.is_kept:
                _keep(folder, plan, ledgers, verdict, desk)
            return verdict


def _books(connection: "psycopg.Connection[tuple[object, ...]]") -> Books:
    with connection.cursor() as cursor:
        return read_books(cursor)


def read_journal(path: Path) -> Sequence[JournalEntry]:
    """Return each call as its last journal line describes it."""
    entries: Mapping[int, JournalEntry] = {
        entry.seq: entry
        for line in path.read_bytes().splitlines()
        for entry in [msgspec.json.decode(line, type=JournalEntry)]
        if entry.client_request_id is not None
    }
    return list(entries.values())


def _keep(folder: Path, plan: Plan, ledgers: Ledgers, verdict: Verdict, desk: Desk) -> None:
    """Write the plan and all ledgers to the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {
        "plan": plan,
        "verdict": verdict,
        "told": ledgers.told,
        "journal": ledgers.journal,
        "database": {
            name: getattr(ledgers.books, name)
            for name in ("jobs", "attempts", "usage", "events", "deliveries", "batches")
        },
        "received": ledgers.received,
    }
    for name, part in parts.items():
        (folder / f"{name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(part), indent=1))
    for log in desk.folder.glob("*.log"):
        (folder / log.name).write_bytes(log.read_bytes())


def _ringer(redis_url: str) -> Celery:
    app = Celery("ringer", broker=redis_url)
    app.conf.broker_transport_options = {"global_keyprefix": BROKER_PREFIX, "socket_timeout": 2}
    app.conf.task_publish_retry = False
    return app


def to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
