"""Nightdesk against plain Celery: the same machine, broker, simulator and calls, one worker process at a time.

A system's jobs are queued first; then its worker starts, and is timed. Celery is timed from the first call to the end
of the last, as the provider sees them. Nightdesk is timed from the moment its worker could claim until the last job's
end and account are committed, which is more.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import run as run_program
from sys import executable
from typing import Protocol

from devstack.stack import ROOT
from tests.bench.books import POLL_SECONDS, Books, opened
from tests.bench.desk import Desk, Process, running, running_desk
from tests.bench.figures import growth_per_hundred, most_at_once, rate
from tests.bench.journal import JournalTail, tail
from tests.bench.load import post_jobs
from tests.bench.memory import Memory, memory_of, watched
from tests.bench.processor import seconds_of
from tests.bench.progress import tell
from tests.bench.report import Comparison, Goal, Report
from tests.polling import wait_for

AT_ONCE = 200
JOBS_AT_ONCE = 600
SLOW_JOBS = 500
UPSTREAM = "gpt-4o-mini"

PEER = ("-m", "celery", "-q", "-A", "tests.bench.peers.app", "worker", "-P", "threads", "-c", str(AT_ONCE))
#: A peer is done when it made no call for this time. Longer than any call.
STALLED_SECONDS = 12.0

PEER_QUIET = ("--without-gossip", "--without-mingle", "-l", "ERROR")

SUITE = "celery"
NIGHTDESK, WIDE, SYNC, LOOP = "Nightdesk", "Nightdesk, 500 slots", "Celery, httpx", "Celery, httpx on a loop"
ORDER = (NIGHTDESK, WIDE, SYNC, LOOP)
WIDE_SLOTS = 500
NOTES = (
    f"One worker process each, {AT_ONCE} jobs at once where nothing else is said; {JOBS_AT_ONCE:,} jobs where the"
    f" upstream answers at once, {SLOW_JOBS} where it is slow.",
    "Nightdesk enqueues through its API, and each 202 is a durable commit; Celery by delay() in a loop, into memory.",
    "Nightdesk's chat jobs stream from the provider; plain Celery requests the complete answer, or streams too.",
    "Celery here acks early and keeps nothing: no job outlives its worker, and neither answers nor costs are kept.",
)


@dataclass(frozen=True, slots=True)
class Upstream:
    """A provider with this latency in milliseconds; as a stream, or as one response where a system can choose."""

    delay_ms: int = 0
    stream: bool = False

    @property
    def model(self) -> str:
        return f"{UPSTREAM}@ttft_ms={self.delay_ms}" if self.delay_ms else UPSTREAM

    @property
    def route(self) -> str:
        return f"bench-{self.delay_ms}"

    def describe(self) -> str:
        when = f"after {self.delay_ms / 1000:g} s" if self.delay_ms else "at once"
        return f"{when}, streamed" if self.stream else when


@dataclass(frozen=True, slots=True)
class Run:
    """The result of a system for a number of jobs."""

    enqueued_per_second: float
    jobs_per_second: float
    #: Jobs that never got an answer.
    lost: int
    most_in_flight: int
    #: Of the worker process, for each job; its start is not counted.
    processor_ms: float
    memory: Memory


class System(Protocol):
    """A system that runs queued jobs."""

    @property
    def name(self) -> str: ...

    def enqueue(self, upstream: Upstream, count: int) -> float:
        """Queue jobs; return how many a second."""

    @contextmanager
    def worker(self) -> Iterator[Process]:
        """Run one worker process."""

    def wait_until_it_works(self, journal: JournalTail) -> None:
        """Wait until the worker has started."""

    def finish(self, count: int, journal: JournalTail) -> float:
        """Wait until the system is idle; return the jobs per second."""


@dataclass(frozen=True, slots=True)
class Nightdesk:
    desk: Desk
    books: Books
    name: str = NIGHTDESK
    slots: int = AT_ONCE

    def enqueue(self, upstream: Upstream, count: int) -> float:
        return post_jobs(self.desk.card, upstream.route, count).rate

    @contextmanager
    def worker(self) -> Iterator[Process]:
        with self.desk.worker(JOB_SLOTS=str(self.slots)) as process:
            yield process

    def wait_until_it_works(self, journal: JournalTail) -> None:
        self.books.first_lease_at()

    def finish(self, count: int, journal: JournalTail) -> float:
        began_at = self.books.first_lease_at()
        return count / (self.books.until_all_ended() - began_at)


@dataclass(frozen=True, slots=True)
class Peer:
    desk: Desk
    name: str
    task: str

    @property
    def _environment(self) -> Mapping[str, str]:
        provider = f"{self.desk.card.simulator_url}/v1"
        return {
            **self.desk.environment,
            "PEER_BROKER_URL": self.desk.broker_url,
            "PEER_PROVIDER_URL": provider,
        }

    def enqueue(self, upstream: Upstream, count: int) -> float:
        how = "stream" if upstream.stream else "whole"
        command = [executable, "-m", "tests.bench.peers.enqueue", self.task, upstream.model, how, str(count)]
        said = run_program(command, env=self._environment, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        return count / float(said)

    @contextmanager
    def worker(self) -> Iterator[Process]:
        with running("peer", self.desk.folder, self._environment, *PEER, *PEER_QUIET) as process:
            yield process

    def wait_until_it_works(self, journal: JournalTail) -> None:
        wait_for(lambda: journal.read() or journal.begun)

    def finish(self, count: int, journal: JournalTail) -> float:
        # A failed call is a lost job: plain Celery neither retries nor reports it.
        ended, seen_at = 0, time.monotonic()
        while ended < count and time.monotonic() - seen_at < STALLED_SECONDS:
            time.sleep(POLL_SECONDS)
            if journal.read() > ended:
                ended, seen_at = len(journal.ended), time.monotonic()
        return rate(journal.spans())


@dataclass(frozen=True, slots=True)
class Figures:
    """All that was measured of one system."""

    name: str
    idle: Memory
    #: By what the upstream did.
    runs: dict[Upstream, Run]


AT_ONCE_WHOLE, AT_ONCE_STREAMED, ONE_SECOND, THREE_SECONDS = (
    Upstream(),
    Upstream(stream=True),
    Upstream(1000),
    Upstream(3000),
)


def run() -> Report:
    """Measure each system with each upstream."""
    with running_desk() as desk, opened(desk.database_url) as books:
        books.take_webhooks(False)
        for upstream in (AT_ONCE_WHOLE, ONE_SECOND, THREE_SECONDS):
            books.add_route(upstream.route, upstream.model)
        nightdesk = Nightdesk(desk, books)
        wide = replace(nightdesk, name=WIDE, slots=WIDE_SLOTS)
        peers: list[System] = [Peer(desk, SYNC, "ask"), Peer(desk, LOOP, "ask_on_loop")]
        figures = _measure(
            desk.journal,
            {
                AT_ONCE_WHOLE: peers,
                # Nightdesk's chat jobs always stream from the provider.
                AT_ONCE_STREAMED: [nightdesk, *peers],
                ONE_SECOND: [nightdesk, *peers],
                THREE_SECONDS: [nightdesk, wide, *peers],
            },
        )
        # Two more runs, which measure an idle process.
        for upstream, count in (
            (AT_ONCE_WHOLE, JOBS_AT_ONCE + 2),
            (ONE_SECOND, SLOW_JOBS),
            (THREE_SECONDS, 2 * SLOW_JOBS),
        ):
            books.check_all_paid(upstream.route, count)
    return _report(figures)


def _measure(journal: Path, plan: Mapping[Upstream, Sequence[System]]) -> Sequence[Figures]:
    """Measure one system after the other with each upstream, so that those compared see the same machine."""
    systems = {system.name: system for each in plan.values() for system in each}
    figures = {
        name: Figures(name, _run(system, journal, AT_ONCE_WHOLE, 1).memory, {}) for name, system in systems.items()
    }
    for upstream, measured in plan.items():
        count = SLOW_JOBS if upstream.delay_ms else JOBS_AT_ONCE
        for system in measured:
            tell(f"{count} jobs, upstream {upstream.describe()}: {system.name}")
            figures[system.name].runs[upstream] = _run(system, journal, upstream, count)
    return sorted(figures.values(), key=lambda each: ORDER.index(each.name))


def _run(system: System, journal: Path, upstream: Upstream, count: int) -> Run:
    calls = tail(journal)
    enqueued_per_second = system.enqueue(upstream, count)
    with system.worker() as process, watched(process.pid) as peak:
        system.wait_until_it_works(calls)
        used = seconds_of(process.pid)
        jobs_per_second = system.finish(count, calls)
        processor_ms = (seconds_of(process.pid) - used) / count * 1000
        peak.see(memory_of(process.pid))
    calls.read()
    spans = calls.spans()
    lost = count - len(spans)
    return Run(enqueued_per_second, jobs_per_second, lost, most_at_once(spans), processor_ms, peak.memory)


# The report


def _report(figures: Sequence[Figures]) -> Report:
    nightdesk, _, *peers = figures
    best = {
        upstream: max(peer.runs[upstream].jobs_per_second for peer in peers)
        for upstream in (AT_ONCE_WHOLE, ONE_SECOND, THREE_SECONDS)
    }
    goals = [
        Goal(
            f"times the better Celery, upstream {upstream.describe()}",
            "more jobs/s than plain Celery with either client",
            ratio := _at_once(nightdesk, upstream).jobs_per_second / celery,
            ratio > 1,
        )
        for upstream, celery in best.items()
    ]
    return Report(SUITE, [], goals, list(_comparisons(figures)), NOTES)


def _at_once(figures: Figures, upstream: Upstream) -> Run:
    """Return the run with this upstream; for a system that always streams, the streamed one."""
    return figures.runs.get(upstream) or figures.runs[replace(upstream, stream=True)]


def _comparisons(figures: Sequence[Figures]) -> Iterator[Comparison]:
    yield Comparison("enqueue", "jobs/s", {each.name: _enqueue_rate(each) for each in figures})
    for upstream in (AT_ONCE_WHOLE, AT_ONCE_STREAMED, ONE_SECOND, THREE_SECONDS):
        runs = {each.name: each.runs[upstream] for each in figures if upstream in each.runs}
        what = f"upstream {upstream.describe()}"
        yield Comparison(what, "jobs/s", {name: run.jobs_per_second for name, run in runs.items()})
        if upstream.delay_ms:
            in_flight = {name: float(run.most_in_flight) for name, run in runs.items()}
            yield Comparison(f"{what}: in flight", "calls", in_flight)
    for upstream in (AT_ONCE_WHOLE, AT_ONCE_STREAMED):
        used = {each.name: each.runs[upstream].processor_ms for each in figures if upstream in each.runs}
        yield Comparison(f"processor time, upstream {upstream.describe()}", "ms a job, worker process", used)
    lost = {each.name: float(sum(run.lost for run in each.runs.values())) for each in figures}
    yield Comparison("lost in all these runs", "jobs", lost)
    yield Comparison("memory, idle", "MB resident", {each.name: each.idle.resident for each in figures})
    yield Comparison(
        "memory, calls of 3 s in flight",
        "MB resident",
        {each.name: each.runs[THREE_SECONDS].memory.resident for each in figures},
    )
    yield Comparison("memory for each 100 in flight", "MB", {each.name: _growth(each) for each in figures})


def _enqueue_rate(figures: Figures) -> float:
    return max(run.enqueued_per_second for run in figures.runs.values())


def _growth(figures: Figures) -> float:
    loaded = figures.runs[THREE_SECONDS]
    return growth_per_hundred(figures.idle.proportional, loaded.memory.proportional, loaded.most_in_flight)
