"""What the admin shows of one job: read in a fixed number of queries, and written the way people read it."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from core.display import age, duration, moment
from jobs.endings import PROVIDERS_RESTING, RETRY_BUDGET
from jobs.models import TERMINAL_STATES, Attempt, AttemptOutcome, Job, JobState, WorkerLease
from jobs.read import AttemptAccount, JobAccount, account_of
from jobs.shown import NOTHING, STATE_COLORS, Badge, Fact, Sight, error_text, when
from jobs.timeline import Timeline, draw
from jobs.told import AuditRow, EventRow, audit_rows, deliveries_of, event_rows
from jobs.waiting import why_waits
from metering.models import Outcome, UsageEvent
from metering.rating import to_usd
from webhooks.models import Delivery, DeliveryState, Event

ATTEMPT_COLORS = {
    AttemptOutcome.OK: "success",
    AttemptOutcome.ERROR: "danger",
    AttemptOutcome.LOST: "warning",
    AttemptOutcome.DRAINED: "info",
}
CALL_COLORS = {
    Outcome.OPEN: "primary",
    Outcome.OK: "success",
    Outcome.ERROR: "danger",
    Outcome.TIMEOUT: "warning",
    Outcome.LOST: "warning",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a job's way: `done`, `now`, `bad` or `ahead`."""

    name: str
    note: str
    kind: str


@dataclass(frozen=True, slots=True)
class CallRow:
    number: int
    provider: str
    upstream_model: str
    badge: Badge
    status: str
    error: str
    tokens_in: str
    #: How many of them came from the provider's cache; empty where none did.
    cached: str
    tokens_out: str
    cost: str
    duration: str
    marks: tuple[Badge, ...]
    url: str | None


@dataclass(frozen=True, slots=True)
class AttemptRow:
    number: int
    badge: Badge
    started: str
    duration: str
    worker: str
    error: str
    calls: tuple[CallRow, ...]


@dataclass(frozen=True, slots=True)
class JobPage:
    public_id: str
    #: None for a job that came by itself, and for who may not see batches.
    batch_url: str | None
    badge: Badge
    error: str
    #: What a queued job waits for; empty for all others.
    waits_for: str
    steps: tuple[Step, ...]
    tiles: tuple[Fact, ...]
    facts: tuple[Fact, ...]
    metadata: str
    timeline: Timeline
    attempts: tuple[AttemptRow, ...]
    usage: tuple[Fact, ...]
    events: tuple[EventRow, ...]
    #: Why there are none.
    untold: str
    audit: tuple[AuditRow, ...]
    sight: Sight


def read_page(job: Job, sight: Sight, now: datetime) -> JobPage:
    """Read what belongs to the job. The prompt and the answer are not among it."""
    account = account_of(job) if sight.usage else _without_calls(job)
    deliveries = deliveries_of(job.id) if sight.webhooks else {}
    return JobPage(
        public_id=job.public_id,
        batch_url=sight.link_to(job.batch) if job.batch else None,
        badge=Badge(JobState(job.state).label, STATE_COLORS.get(JobState(job.state), "")),
        error="" if _is_put_off(job) else error_text(job.error_code, job.error_message),
        waits_for=why_waits(job, now) if job.state == JobState.QUEUED else "",
        steps=tuple(_steps(job, account, deliveries, sight, now)),
        tiles=tuple(_tiles(job, account, sight, now)),
        facts=tuple(_facts(job, sight, now)),
        metadata=json.dumps(job.metadata, indent=2, ensure_ascii=False) if job.metadata else "",
        timeline=draw(job, account.attempts, now),
        attempts=tuple(_attempt_rows(account, sight, now)),
        usage=tuple(_usage(account)) if sight.usage else (),
        events=tuple(event_rows(deliveries, sight, now)),
        untold="Its batch tells the site." if job.batch_id else "Nothing has been told to the site yet.",
        audit=tuple(audit_rows(job.public_id)) if sight.audit else (),
        sight=sight,
    )


def _is_put_off(job: Job) -> bool:
    """Its code says what it waits for, not what went wrong."""
    return job.state == JobState.QUEUED and job.error_code in (RETRY_BUDGET, PROVIDERS_RESTING)


def _without_calls(job: Job) -> JobAccount:
    attempts = Attempt.objects.filter(job=job).order_by("number")
    return JobAccount(tuple(AttemptAccount(attempt, ()) for attempt in attempts), None)


# The head of the page


def _steps(
    job: Job, account: JobAccount, deliveries: dict[Event, list[Delivery]], sight: Sight, now: datetime
) -> Iterator[Step]:
    """The job's way: accepted, worked on, ended, and told to the site."""
    ended = job.state in TERMINAL_STATES
    yield Step("Accepted", f"{job.created_at:%H:%M:%S}", "done")
    if account.attempts:
        first = account.attempts[0].attempt
        waited = duration(max(first.started_at - job.created_at, timedelta(0)))
        yield Step("Started", f"after {waited}", "now" if job.state == JobState.RUNNING else "done")
    else:
        yield Step("Started", "never" if ended else "waiting for a worker", "ahead" if ended else "now")
    if job.finished_at is None:
        waits = bool(account.attempts) and job.state == JobState.QUEUED
        yield Step("Ended", f"next attempt {when(job.available_at, now)}" if waits else "", "ahead")
    else:
        kind = "bad" if job.state in (JobState.FAILED, JobState.EXPIRED) else "done"
        yield Step(JobState(job.state).label, f"{job.finished_at:%H:%M:%S}", kind)
    if sight.webhooks and not job.batch_id:
        yield _told([delivery for each in deliveries.values() for delivery in each], ended=ended)


def _told(deliveries: Sequence[Delivery], *, ended: bool) -> Step:
    states = {delivery.state for delivery in deliveries}
    if not states:
        return Step("Site told", "no endpoint" if ended else "", "ahead")
    if DeliveryState.EXHAUSTED in states:
        return Step("Site not told", "no answer accepted it", "bad")
    if DeliveryState.PENDING in states:
        return Step("Telling the site", "delivery under way", "now")
    if states == {DeliveryState.CANCELED}:
        return Step("Site not told", "delivery canceled", "ahead")
    return Step("Site told", "webhook delivered", "done")


def _tiles(job: Job, account: JobAccount, sight: Sight, now: datetime) -> Iterator[Fact]:
    took = (job.finished_at or now) - job.created_at
    yield Fact("Took" if job.finished_at else "So far", duration(took), "From being accepted to its end")
    yield Fact("Attempts", f"{job.attempt} of {job.max_attempts}", f"{job.error_count} ended in an error")
    if not sight.usage:
        return
    calls = [call for each in account.attempts for call in each.calls]
    billed = account.billed
    yield Fact("Calls", str(len(calls)), "To all providers, over all attempts")
    yield Fact("Tokens", _tokens(billed) if billed else NOTHING, "Input and output of the billed call")
    yield Fact("Billed", _usd(billed) if billed else NOTHING, "The one call whose answer the site got")


def _tokens(call: UsageEvent) -> str:
    return f"{call.input_tokens:,} → {call.output_tokens:,}"


def _facts(job: Job, sight: Sight, now: datetime) -> Iterator[Fact]:
    yield Fact("Site", job.site.name, f"{job.site.slug}, {job.site.public_id}", sight.link_to(job.site))
    if job.batch:
        yield Fact("Batch", job.batch.public_id, "", sight.link_to(job.batch), is_code=True)
        yield Fact("Its custom_id", job.custom_id, is_code=True)
    yield Fact("Kind", job.get_kind_display())
    yield Fact("Model", job.model, is_code=True)
    yield Fact("Created", moment(job.created_at), f"{age(job.created_at, now)} ago")
    if job.state == JobState.QUEUED and job.available_at > now:
        yield Fact("Next attempt", moment(job.available_at), f"in {age(now, job.available_at)}")
    if job.expires_at:
        yield Fact("Expires, if still queued", moment(job.expires_at))
    if job.deadline_at:
        yield Fact("Attempt's deadline", moment(job.deadline_at))
    if job.cancel_requested_at:
        yield Fact("Cancel asked for", moment(job.cancel_requested_at))
    if job.finished_at:
        yield Fact("Finished", moment(job.finished_at), f"{age(job.finished_at, now)} ago")
    if job.erased_at:
        yield Fact("Prompt and answer", f"erased {moment(job.erased_at)}", "They were kept as long as the site wants")
    yield Fact("Queue", f"{job.queue}, priority {job.priority}")
    if job.provider:
        yield Fact("Counts against", job.provider, "The first provider of its model's route, whose cap it is under")
    if job.crash_count:
        yield Fact("Workers lost with it", str(job.crash_count))
    if job.idempotency_key is not None:
        yield Fact("Idempotency key", job.idempotency_key, is_code=True)
    if job.request_id:
        yield Fact("Request id", job.request_id, is_code=True)
    if job.replay_of:
        yield Fact("Tries again", job.replay_of.public_id, url=sight.link_to(job.replay_of), is_code=True)
    for new in job.replays.only("id").order_by("id"):
        yield Fact("Tried again as", new.public_id, url=sight.link_to(new), is_code=True)


# Attempts and calls


def _attempt_rows(account: JobAccount, sight: Sight, now: datetime) -> Iterator[AttemptRow]:
    workers = WorkerLease.objects.in_bulk([each.attempt.worker_id for each in account.attempts])
    for each in account.attempts:
        attempt = each.attempt
        # A worker that is gone has no name any more, only its id.
        worker = str(workers.get(attempt.worker_id) or f"{str(attempt.worker_id)[:13]}…")
        yield AttemptRow(
            number=attempt.number,
            badge=_attempt_badge(attempt),
            started=moment(attempt.started_at),
            duration=duration((attempt.ended_at or now) - attempt.started_at),
            worker=worker,
            error=error_text(attempt.error_code, attempt.error_message),
            calls=tuple(_call_row(call, sight) for call in each.calls),
        )


def _attempt_badge(attempt: Attempt) -> Badge:
    if not attempt.outcome:
        return Badge("Running", "primary")
    outcome = AttemptOutcome(attempt.outcome)
    return Badge(outcome.label, ATTEMPT_COLORS.get(outcome, ""))


def _call_row(call: UsageEvent, sight: Sight) -> CallRow:
    outcome = Outcome(call.outcome)
    return CallRow(
        number=call.call,
        provider=call.provider,
        upstream_model=call.upstream_model,
        badge=Badge(outcome.label, CALL_COLORS.get(outcome, "")),
        status="" if call.http_status is None else str(call.http_status),
        error=error_text(call.error_kind, call.error_code),
        tokens_in=f"{call.input_tokens:,}",
        cached=f"{call.cached_input_tokens:,}" if call.cached_input_tokens else "",
        tokens_out=f"{call.output_tokens:,}",
        cost=_usd(call),
        duration=NOTHING if call.duration_ms is None else duration(timedelta(milliseconds=call.duration_ms)),
        marks=tuple(_marks(call)),
        url=sight.link_to(call),
    )


def _marks(call: UsageEvent) -> Iterator[Badge]:
    if call.billable:
        yield Badge("Billed", "success")
    if call.estimated:
        yield Badge("Estimated", "warning")


def _usd(call: UsageEvent) -> str:
    if not call.price_version and (call.input_tokens or call.output_tokens):
        return "no price"
    return f"${to_usd(call.cost_pico_usd)}"


def _usage(account: JobAccount) -> Iterator[Fact]:
    calls = [call for each in account.attempts for call in each.calls]
    if not calls:
        return
    unpriced = any(not call.price_version and call.outcome == Outcome.OK for call in calls)
    yield Fact("Input tokens", f"{sum(call.input_tokens for call in calls):,}")
    yield Fact("of these cached", f"{sum(call.cached_input_tokens for call in calls):,}")
    yield Fact("Output tokens", f"{sum(call.output_tokens for call in calls):,}")
    yield Fact("of these reasoning", f"{sum(call.reasoning_tokens for call in calls):,}")
    yield Fact("Billed to the site", f"${to_usd(sum(call.cost_pico_usd for call in calls if call.billable))}")
    whole = to_usd(sum(call.cost_pico_usd for call in calls))
    yield Fact("All calls together", f"${whole}" + (", some without a price" if unpriced else ""))
