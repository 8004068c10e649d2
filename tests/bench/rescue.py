"""How long the jobs of a killed worker wait until they run elsewhere.

Twenty jobs are under way in one worker, and another has its lease and nothing to do. The first is killed with -9, at
a different moment of its heartbeat in each round.
"""

import time
from collections.abc import Sequence

from tests.bench.books import Books, opened
from tests.bench.desk import Desk, running_desk
from tests.bench.figures import percentile
from tests.bench.load import post_jobs
from tests.bench.progress import tell
from tests.bench.report import Goal, Report, Row

SUITE = "rescue"
ROUNDS = 4
JOBS = 20
MODEL = "bench-slow"
#: Longer than a round.
CALL_SECONDS = 60
HEARTBEAT_SECONDS = 2.0


def run() -> Report:
    with running_desk() as desk, opened(desk.database_url) as books:
        books.take_webhooks(False)
        books.add_route(MODEL, f"gpt-4o-mini@ttft_ms={CALL_SECONDS * 1000}")
        waits: list[float] = []
        for number in range(ROUNDS):
            tell(f"round {number + 1} of {ROUNDS}: {JOBS} jobs orphaned")
            waits += _round(desk, books, HEARTBEAT_SECONDS * number / ROUNDS)
    return _report(waits)


def _round(desk: Desk, books: Books, pause_seconds: float) -> Sequence[float]:
    """Return for each orphan how many seconds after the kill its next attempt began."""
    with desk.worker() as doomed:
        books.first_lease_at()
        post_jobs(desk.card, MODEL, JOBS)
        books.until("(SELECT count(*) FROM metering_usageevent WHERE outcome = 'open') = %s", JOBS)
        with desk.worker() as other:
            books.until("(SELECT count(*) FROM jobs_workerlease) = 2")
            time.sleep(pause_seconds)
            (killed_at,) = books.ask("SELECT clock_timestamp()")
            doomed.kill()
            books.until("(SELECT count(*) FROM jobs_attempt WHERE number = 2) = %s", JOBS)
            other.kill()
    rows = books.connection.execute(
        "SELECT extract(epoch FROM started_at - %s) FROM jobs_attempt WHERE number = 2", [killed_at]
    ).fetchall()
    books.do("TRUNCATE jobs_job, jobs_workerlease, metering_usageevent CASCADE")
    return [float(row[0]) for row in rows]


def _report(waits: Sequence[float]) -> Report:
    worst = max(waits)
    rows = [
        Row("orphan runs elsewhere, p50", percentile(waits, 0.5), "s after the kill"),
        Row(f"orphan runs elsewhere, worst of {len(waits)}", worst, "s after the kill"),
    ]
    return Report(SUITE, rows, [Goal("rescue", "less than 10 s at worst", worst, worst < 10)])
