"""How long a claim takes with a million finished jobs in the table, against a table without them.

Two databases of one server, alike but for those rows. They claim in turns, so that both see the same machine.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from devstack.ports import free_port
from devstack.postgres import DATABASE, postgres_server
from devstack.postgres_data import remove_cluster
from devstack.stack import ROOT
from tests.bench.books import Books, opened
from tests.bench.desk import environment_in, prepare
from tests.bench.figures import percentile
from tests.bench.progress import tell
from tests.bench.report import Comparison, Goal, Report

SUITE = "claim"
FINISHED = 1_000_000
SITES = 10
QUEUED = 4_000
CLAIMS = 100
WARM_UP = 10
LIMIT = 20
NOBODY = "http://127.0.0.1:9"

# Rows are made of one that the desk made itself, whatever columns it has.
ADD_SITES = """
INSERT INTO tenants_site
SELECT made.* FROM tenants_site site, generate_series(2, %s) number,
       LATERAL jsonb_populate_record(site, jsonb_build_object('id', uuidv7(), 'slug', 'bench-' || number)) made
"""
ADD_JOBS = """
INSERT INTO jobs_job
SELECT made.* FROM jobs_job job, (SELECT array_agg(id) AS ids FROM tenants_site) site, generate_series(1, %s) number,
       LATERAL jsonb_populate_record(job, jsonb_build_object(
            'id', uuidv7(),
            'site_id', site.ids[1 + number %% array_length(site.ids, 1)],
            'available_at', now() - number * interval '1 ms'
       ) || {changes}) made
 WHERE job.id = (SELECT id FROM jobs_job ORDER BY id LIMIT 1)
"""
ADD_QUEUED = ADD_JOBS.replace("{changes}", "'{}'")
ADD_FINISHED = ADD_JOBS.replace(
    "{changes}",
    "jsonb_build_object('state', 'succeeded', 'attempt', 1, 'finished_at', now(), 'result', job.payload)",
)
ADD_ATTEMPTS = """
INSERT INTO jobs_attempt (job_id, number, worker_id, started_at, ended_at, outcome, error_code, error_message)
SELECT id, 1, site_id, created_at, finished_at, 'ok', '', '' FROM jobs_job WHERE state = 'succeeded'
"""
FINISH = """
UPDATE jobs_job SET state = 'succeeded', worker_id = NULL, deadline_at = NULL, finished_at = now()
 WHERE state = 'running'
"""


@dataclass(frozen=True, slots=True)
class Table:
    """A database whose jobs a process claims on command."""

    name: str
    books: Books
    process: "subprocess.Popen[str]"

    def claim(self) -> float:
        """Return the milliseconds of a claim; the claimed jobs are then finished."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{LIMIT}\n")
        self.process.stdin.flush()
        milliseconds, got = self.process.stdout.readline().split()
        if int(got) != LIMIT:
            raise RuntimeError(f"A claim got {got} of {LIMIT} jobs.")
        self.books.do(FINISH)
        return float(milliseconds)


def run() -> Report:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nightdesk-bench-")))
        stack.callback(remove_cluster, folder / "postgres")
        server = stack.enter_context(postgres_server(folder / "postgres", free_port()))
        environment = environment_in(folder, DATABASE_URL=server.url, SIMULATOR_URL=NOBODY)
        full_url = _url(server.url, "full")
        tell(f"filling a table with {FINISHED:,} finished jobs")
        _make_databases(environment, server.url, full_url)
        tables = [
            stack.enter_context(_table(name, {**environment, "DATABASE_URL": url}))
            for name, url in (("without finished jobs", server.url), (f"with {FINISHED:,}", full_url))
        ]
        tell(f"claiming {CLAIMS} times in each")
        return _report(_claim_in_turns(tables))


def _make_databases(environment: Mapping[str, str], url: str, full_url: str) -> None:
    prepare(environment, NOBODY)
    command = [sys.executable, "-m", "tests.bench.claimer", "submit"]
    subprocess.run(command, env=environment, cwd=ROOT, check=True)
    with opened(url) as books:
        books.do(ADD_SITES, SITES)
        books.do(ADD_QUEUED, QUEUED)
    with psycopg.connect(_url(url, "postgres"), autocommit=True) as maintenance:
        maintenance.execute(f'CREATE DATABASE "full" TEMPLATE "{DATABASE}"'.encode())
    with opened(full_url) as books:
        books.do(ADD_FINISHED, FINISHED)
        books.do(ADD_ATTEMPTS)
    for each in (url, full_url):
        with opened(each) as books:
            # As autovacuum would have done during the days that a million jobs take.
            books.do("VACUUM ANALYZE")


@contextmanager
def _table(name: str, environment: Mapping[str, str]) -> Iterator[Table]:
    command = [sys.executable, "-m", "tests.bench.claimer", "claim"]
    pipe = subprocess.PIPE
    with (
        opened(environment["DATABASE_URL"]) as books,
        subprocess.Popen(command, env=environment, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process,
    ):
        # It exits when its standard input is closed at the end of the block.
        yield Table(name, books, process)


def _claim_in_turns(tables: Sequence[Table]) -> Mapping[str, Sequence[float]]:
    """Return the milliseconds of the claims in each table."""
    turns = [[table.claim() for table in tables] for _ in range(WARM_UP + CLAIMS)][WARM_UP:]
    return {table.name: times for table, times in zip(tables, zip(*turns, strict=True), strict=True)}


def _url(url: str, database: str) -> str:
    """Return the address of another database of the same server."""
    return url.removesuffix(DATABASE) + database


def _report(times: Mapping[str, Sequence[float]]) -> Report:
    medians = {name: percentile(each, 0.5) for name, each in times.items()}
    empty, full = medians.values()
    comparisons = [
        Comparison(f"claim of {LIMIT}, p50", "ms", medians),
        Comparison(f"claim of {LIMIT}, p95", "ms", {name: percentile(each, 0.95) for name, each in times.items()}),
    ]
    goals = [Goal("claims slower, p50", "less than 1.3 times", full / empty, full / empty < 1.3)]
    notes = [f"{QUEUED:,} jobs of {SITES} sites are queued; what is claimed is finished before the next claim."]
    return Report(SUITE, [], goals, comparisons, notes)
