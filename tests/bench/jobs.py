"""Jobs on a desk of one web and one worker process: submissions, end to end, webhooks, and many slow calls in flight.

End to end is from the moment the worker could claim (its lease) until the last job's finish, usage event and webhook
event are committed. All jobs were posted before, so that the API takes no part in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.books import Books, opened
from tests.bench.desk import Desk, running_desk
from tests.bench.figures import mean_at_once, most_at_once, percentile, rate, steady_rate
from tests.bench.journal import tail
from tests.bench.load import Posted, post_jobs
from tests.bench.memory import memory_of, watched
from tests.bench.processor import seconds_of
from tests.bench.progress import tell
from tests.bench.report import Goal, Report, Row

SUITE = "jobs"
JOBS = 1500
CALM_JOBS = 200
CALM_GAP_SECONDS = 0.05
SLOTS = 500
SLOW_SECONDS = 3.0
SLOW_JOBS = 3 * SLOTS
IDEAL = SLOTS / SLOW_SECONDS

FAST, SLOW = "bench-fast", "bench-slow"
UPSTREAM = "gpt-4o-mini"


@dataclass(frozen=True, slots=True)
class Slow:
    """The result of one worker process for slow calls."""

    jobs_per_second: float
    steady_jobs_per_second: float
    most_in_flight: int
    mean_in_flight: float
    resident_mb: float
    proportional_mb: float


@dataclass(frozen=True, slots=True)
class EndToEnd:
    """The result of one worker process for queued jobs."""

    jobs_per_second: float
    processor_ms: float


def run() -> Report:
    with running_desk() as desk, opened(desk.database_url) as books:
        books.add_route(FAST, UPSTREAM)
        books.add_route(SLOW, f"{UPSTREAM}@ttft_ms={SLOW_SECONDS * 1000:.0f}")
        tell(f"posting {JOBS:,} jobs")
        used = seconds_of(desk.web_pid)
        posted = post_jobs(desk.card, FAST, JOBS)
        submit_ms = (seconds_of(desk.web_pid) - used) / JOBS * 1000
        tell("end to end, with a webhook for each")
        with_webhooks = _end_to_end(desk, books, JOBS)
        tell("webhooks, at a gentle pace")
        delays = _webhook_delays(desk, books)
        books.take_webhooks(False)
        tell("end to end, without webhooks")
        post_jobs(desk.card, FAST, JOBS)
        without_webhooks = _end_to_end(desk, books, JOBS)
        tell(f"{SLOW_JOBS:,} calls of {SLOW_SECONDS:g} s")
        slow = _slow(desk, books)
        books.check_all_paid(FAST, 2 * JOBS + CALM_JOBS)
        books.check_all_paid(SLOW, SLOW_JOBS)
    return _report(posted, submit_ms, with_webhooks, without_webhooks, delays, slow)


def _end_to_end(desk: Desk, books: Books, count: int) -> EndToEnd:
    """Start a worker for the queued jobs, and time it until the last has finished."""
    with desk.worker(JOB_SLOTS=str(SLOTS)) as process:
        began_at = books.first_lease_at()
        used = seconds_of(process.pid)
        ended_at = books.until_all_ended()
        books.until("NOT EXISTS (SELECT FROM webhooks_delivery WHERE state = 'pending')")
        processor_ms = (seconds_of(process.pid) - used) / count * 1000
    return EndToEnd(count / (ended_at - began_at), processor_ms)


def _webhook_delays(desk: Desk, books: Books) -> Sequence[float]:
    """Return the seconds from each job's end to its webhook's sending."""
    with desk.worker():
        books.first_lease_at()
        post_jobs(desk.card, FAST, CALM_JOBS, gap_seconds=CALM_GAP_SECONDS, connections=1)
        books.until_all_ended()
        books.until("NOT EXISTS (SELECT FROM webhooks_delivery WHERE state = 'pending')")
    rows = books.connection.execute(
        "SELECT extract(epoch FROM log.started_at - job.finished_at) FROM webhooks_deliveryattempt log"
        " JOIN webhooks_delivery delivery ON delivery.id = log.delivery_id"
        " JOIN webhooks_event event ON event.id = delivery.event_id"
        " JOIN jobs_job job ON job.id = event.subject_id WHERE log.number = 1"
        " ORDER BY job.id DESC LIMIT %s",
        [CALM_JOBS],
    )
    return [float(row[0]) for row in rows]


def _slow(desk: Desk, books: Books) -> Slow:
    post_jobs(desk.card, SLOW, SLOW_JOBS)
    calls = tail(desk.journal)
    with desk.worker(JOB_SLOTS=str(SLOTS)) as process, watched(process.pid) as peak:
        books.first_lease_at()
        books.until_all_ended()
        peak.see(memory_of(process.pid))
    calls.read()
    spans = calls.spans()
    return Slow(
        rate(spans),
        steady_rate(spans, SLOTS),
        most_at_once(spans),
        mean_at_once(spans),
        peak.memory.resident,
        peak.memory.proportional,
    )


def _report(
    posted: Posted,
    submit_ms: float,
    with_webhooks: EndToEnd,
    without_webhooks: EndToEnd,
    delays: Sequence[float],
    slow: Slow,
) -> Report:
    webhook_p95 = percentile(delays, 0.95) * 1000
    share = slow.steady_jobs_per_second / IDEAL
    alone, told = without_webhooks.jobs_per_second, with_webhooks.jobs_per_second
    many = f"{SLOTS} calls of {SLOW_SECONDS:g} s in flight"
    rows = [
        Row("submit through the API", posted.rate, "jobs/s, each a durable commit"),
        Row("submit, p50", percentile(posted.latencies, 0.5) * 1000, "ms"),
        Row("submit, p99", percentile(posted.latencies, 0.99) * 1000, "ms"),
        Row("submit, web process", submit_ms, "ms of processor time each"),
        Row("end to end, upstream at once, no webhooks", alone, "jobs/s"),
        Row("end to end, upstream at once, no webhooks", without_webhooks.processor_ms, "ms of processor time each"),
        Row("end to end, upstream at once, webhooks", told, "jobs/s"),
        Row("end to end, upstream at once, webhooks", with_webhooks.processor_ms, "ms of processor time each"),
        Row("webhook sent after the job's end, p50", percentile(delays, 0.5) * 1000, "ms"),
        Row("webhook sent after the job's end, p95", webhook_p95, "ms"),
        Row(f"{many}: at most", slow.most_in_flight, "calls"),
        Row(f"{many}: once it runs", slow.steady_jobs_per_second, f"jobs/s of an ideal {IDEAL:.1f}"),
        Row(f"{many}: with start and end", slow.jobs_per_second, "jobs/s"),
        Row(f"{many}: with start and end", slow.mean_in_flight, "calls on average"),
        Row(f"{many}: memory", slow.resident_mb, "MB resident"),
        Row(f"{many}: memory", slow.proportional_mb, "MB proportional"),
    ]
    goals = [
        Goal("submit", "at least 200 jobs/s through one web process", posted.rate, posted.rate >= 200),
        Goal("end to end, no webhooks", "at least 300 jobs/s, durable", alone, alone >= 300),
        Goal("end to end, webhooks", "at least 300 jobs/s, durable", told, told >= 300),
        Goal("webhook p95", "sent less than 500 ms after the job's end", webhook_p95, webhook_p95 < 500),
        Goal("slow calls, share of the ideal rate", "at least 0.9, one worker process", share, share >= 0.9),
        Goal(
            "slow calls, in flight", f"{SLOTS} in one worker process", slow.most_in_flight, slow.most_in_flight >= SLOTS
        ),
        Goal("slow calls, memory", "less than 300 MB", slow.resident_mb, slow.resident_mb < 300),
    ]
    return Report(SUITE, rows, goals)
