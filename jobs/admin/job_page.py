"""The page of a job, read in a number of queries that does not depend on its attempts and calls."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from core.admin_ui.model_admin import NO_VALUE
from core.humanize import format_age, format_duration, format_moment
from jobs.admin.history import AuditRow, EventRow, audit_rows, deliveries_of, event_rows
from jobs.admin.presentation import STATE_COLORS, Badge, Fact, Visibility, due_text, error_text
from jobs.admin.timeline import Timeline, draw_timeline
from jobs.admin.waiting import explain_waiting
from jobs.models import TERMINAL_STATES, Attempt, AttemptOutcome, Job, JobState, WorkerLease
from jobs.priorities import priority_name
from jobs.read import AttemptHistory, JobHistory, history_of
from jobs.worker.outcomes import PROVIDERS_IN_COOLDOWN, RETRY_BUDGET_EXHAUSTED
from metering.cost import format_usd
from metering.models import UsageEvent, UsageOutcome
from webhooks.models import Delivery, DeliveryState, Event

ATTEMPT_COLORS = {
    AttemptOutcome.OK: "success",
    AttemptOutcome.ERROR: "danger",
    AttemptOutcome.LOST: "warning",
    AttemptOutcome.RELEASED: "info",
}
CALL_COLORS = {
    UsageOutcome.OPEN: "primary",
    UsageOutcome.OK: "success",
    UsageOutcome.ERROR: "danger",
    UsageOutcome.TIMEOUT: "warning",
    UsageOutcome.LOST: "warning",
}


@dataclass(frozen=True, slots=True)
class JobStep:
    """One step of a job's life cycle. `kind` is `done`, `now`, `bad` or `ahead`."""

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
    #: Input tokens from the provider's cache; empty if there are none.
    cached: str
    tokens_out: str
    cost: str
    duration: str
    flags: tuple[Badge, ...]
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
    #: None for a single job, or if the user may not view batches.
    batch_url: str | None
    badge: Badge
    error: str
    #: What a queued job waits for; empty in other states.
    waits_for: str
    steps: tuple[JobStep, ...]
    tiles: tuple[Fact, ...]
    facts: tuple[Fact, ...]
    metadata: str
    timeline: Timeline
    attempts: tuple[AttemptRow, ...]
    usage: tuple[Fact, ...]
    events: tuple[EventRow, ...]
    #: Shown if there are no events.
    no_events_text: str
    audit: tuple[AuditRow, ...]
    visibility: Visibility


def read_job_page(job: Job, visibility: Visibility, now: datetime) -> JobPage:
    """Read the page. The prompt and the answer are not read."""
    history = history_of(job) if visibility.usage else _without_calls(job)
    deliveries = deliveries_of(job.id) if visibility.webhooks else {}
    return JobPage(
        public_id=job.public_id,
        batch_url=visibility.link_to(job.batch) if job.batch else None,
        badge=Badge(JobState(job.state).label, STATE_COLORS.get(JobState(job.state), "")),
        error="" if _is_deferred(job) else error_text(job.error_code, job.error_message),
        waits_for=explain_waiting(job, now) if job.state == JobState.QUEUED else "",
        steps=tuple(_steps(job, history, deliveries, visibility, now)),
        tiles=tuple(_tiles(job, history, visibility, now)),
        facts=tuple(_facts(job, visibility, now)),
        metadata=json.dumps(job.metadata, indent=2, ensure_ascii=False) if job.metadata else "",
        timeline=draw_timeline(job, history.attempts, now),
        attempts=tuple(_attempt_rows(history, visibility, now)),
        usage=tuple(_usage(history)) if visibility.usage else (),
        events=tuple(event_rows(deliveries, visibility, now)),
        no_events_text="The batch sends the webhooks." if job.batch_id else "No webhooks yet.",
        audit=tuple(audit_rows(job.public_id)) if visibility.audit else (),
        visibility=visibility,
    )


def _is_deferred(job: Job) -> bool:
    """Whether its error code says what it waits for, not what failed."""
    return job.state == JobState.QUEUED and job.error_code in (RETRY_BUDGET_EXHAUSTED, PROVIDERS_IN_COOLDOWN)


def _without_calls(job: Job) -> JobHistory:
    attempts = Attempt.objects.filter(job=job).order_by("number")
    return JobHistory(tuple(AttemptHistory(attempt, ()) for attempt in attempts), None)


# The head of the page


def _steps(
    job: Job, history: JobHistory, deliveries: dict[Event, list[Delivery]], visibility: Visibility, now: datetime
) -> Iterator[JobStep]:
    """Yield the steps of the job: accepted, started, ended, webhook delivered."""
    ended = job.state in TERMINAL_STATES
    yield JobStep("Accepted", f"{job.created_at:%H:%M:%S} UTC", "done")
    if history.attempts:
        first = history.attempts[0].attempt
        waited = format_duration(max(first.started_at - job.created_at, timedelta(0)))
        yield JobStep("Started", f"after {waited}", "now" if job.state == JobState.RUNNING else "done")
    else:
        yield JobStep("Started", "never" if ended else "waiting for a worker", "ahead" if ended else "now")
    if job.finished_at is None:
        waits = bool(history.attempts) and job.state == JobState.QUEUED
        yield JobStep("Ended", f"next attempt {due_text(job.available_at, now)}" if waits else "", "ahead")
    else:
        kind = "bad" if job.state in (JobState.FAILED, JobState.EXPIRED) else "done"
        yield JobStep(JobState(job.state).label, f"{job.finished_at:%H:%M:%S} UTC", kind)
    if visibility.webhooks and not job.batch_id:
        yield _webhook_step([delivery for each in deliveries.values() for delivery in each], ended=ended)


def _webhook_step(deliveries: Sequence[Delivery], *, ended: bool) -> JobStep:
    states = {delivery.state for delivery in deliveries}
    if not states:
        return JobStep("Webhook", "no endpoint" if ended else "", "ahead")
    if DeliveryState.EXHAUSTED in states:
        return JobStep("Webhook failed", "no endpoint accepted it", "bad")
    if DeliveryState.PENDING in states:
        return JobStep("Webhook pending", "delivery in progress", "now")
    if states == {DeliveryState.CANCELED}:
        return JobStep("Webhook canceled", "delivery canceled", "ahead")
    return JobStep("Webhook delivered", "", "done")


def _tiles(job: Job, history: JobHistory, visibility: Visibility, now: datetime) -> Iterator[Fact]:
    took = (job.finished_at or now) - job.created_at
    yield Fact("Took" if job.finished_at else "So far", format_duration(took), "From acceptance to the end")
    yield Fact("Failed attempts", f"{job.error_count} of {job.max_attempts}", f"{job.attempt} attempts in total")
    if not visibility.usage:
        return
    calls = [call for each in history.attempts for call in each.calls]
    billed = history.billed
    yield Fact("Calls", str(len(calls)), "To all providers, over all attempts")
    yield Fact("Tokens", _tokens(billed) if billed else NO_VALUE, "Input and output of the billed call")
    yield Fact("Billed", _usd(billed) if billed else NO_VALUE, "The call whose answer the site received")


def _tokens(call: UsageEvent) -> str:
    return f"{call.input_tokens:,} → {call.output_tokens:,}"


def _facts(job: Job, visibility: Visibility, now: datetime) -> Iterator[Fact]:
    yield Fact("Site", job.site.name, f"{job.site.slug}, {job.site.public_id}", visibility.link_to(job.site))
    if job.batch:
        yield Fact("Batch", job.batch.public_id, "", visibility.link_to(job.batch), is_code=True)
        yield Fact("custom_id", job.custom_id, is_code=True)
    yield Fact("Kind", job.get_kind_display())
    yield Fact("Model", job.model, is_code=True)
    yield Fact("Created", format_moment(job.created_at), f"{format_age(job.created_at, now)} ago")
    if job.state == JobState.QUEUED and job.available_at > now:
        yield Fact("Next attempt", format_moment(job.available_at), f"in {format_age(now, job.available_at)}")
    if job.expires_at:
        yield Fact("Expires if still queued", format_moment(job.expires_at))
    if job.deadline_at:
        yield Fact("Deadline of the attempt", format_moment(job.deadline_at))
    if job.cancel_requested_at:
        yield Fact("Cancel requested", format_moment(job.cancel_requested_at))
    if job.finished_at:
        yield Fact("Finished", format_moment(job.finished_at), f"{format_age(job.finished_at, now)} ago")
    if job.erased_at:
        yield Fact(
            "Prompt and answer", f"erased {format_moment(job.erased_at)}", "At the end of the site's retention period"
        )
    yield Fact("Queue", f"{job.queue}, {priority_name(job.priority)} priority")
    if job.provider:
        yield Fact("First provider", job.provider, "The job counts against its limit of concurrent jobs")
    if job.crash_count:
        yield Fact("Workers lost", str(job.crash_count), "Worker processes that died while they ran this job")
    if job.idempotency_key is not None:
        yield Fact("Idempotency key", job.idempotency_key, is_code=True)
    if job.request_id:
        yield Fact("Request ID", job.request_id, is_code=True)
    if job.retry_of:
        yield Fact("Retry of", job.retry_of.public_id, url=visibility.link_to(job.retry_of), is_code=True)
    for new in job.retries.only("id").order_by("id"):
        yield Fact("Retried as", new.public_id, url=visibility.link_to(new), is_code=True)


# Attempts and calls


def _attempt_rows(history: JobHistory, visibility: Visibility, now: datetime) -> Iterator[AttemptRow]:
    workers = WorkerLease.objects.in_bulk([each.attempt.worker_id for each in history.attempts])
    for each in history.attempts:
        attempt = each.attempt
        # A worker whose lease was deleted has no name, only its id.
        worker = str(workers.get(attempt.worker_id) or f"{str(attempt.worker_id)[:13]}…")
        yield AttemptRow(
            number=attempt.number,
            badge=_attempt_badge(attempt),
            started=format_moment(attempt.started_at),
            duration=format_duration((attempt.ended_at or now) - attempt.started_at),
            worker=worker,
            error=error_text(attempt.error_code, attempt.error_message),
            calls=tuple(_call_row(call, visibility) for call in each.calls),
        )


def _attempt_badge(attempt: Attempt) -> Badge:
    if not attempt.outcome:
        return Badge("Running", "primary")
    outcome = AttemptOutcome(attempt.outcome)
    return Badge(outcome.label, ATTEMPT_COLORS.get(outcome, ""))


def _call_row(call: UsageEvent, visibility: Visibility) -> CallRow:
    outcome = UsageOutcome(call.outcome)
    return CallRow(
        number=call.call,
        provider=call.provider,
        upstream_model=call.upstream_model,
        badge=Badge(outcome.label, CALL_COLORS.get(outcome, "")),
        status="" if call.http_status is None else str(call.http_status),
        error=": ".join(filter(None, (call.error_kind, call.error_code))),
        tokens_in=f"{call.input_tokens:,}",
        cached=f"{call.cached_input_tokens:,}" if call.cached_input_tokens else "",
        tokens_out=f"{call.output_tokens:,}",
        cost=_usd(call),
        duration=NO_VALUE if call.duration_ms is None else format_duration(timedelta(milliseconds=call.duration_ms)),
        flags=tuple(_flags(call)),
        url=visibility.link_to(call),
    )


def _flags(call: UsageEvent) -> Iterator[Badge]:
    if call.billable:
        yield Badge("Billed", "success")
    if call.estimated:
        yield Badge("Estimated", "warning")


def _usd(call: UsageEvent) -> str:
    if not call.price_version and (call.input_tokens or call.output_tokens):
        return "no price"
    return f"${format_usd(call.cost_pico_usd)}"


def _usage(history: JobHistory) -> Iterator[Fact]:
    calls = [call for each in history.attempts for call in each.calls]
    if not calls:
        return
    unpriced = any(not call.price_version and call.outcome == UsageOutcome.OK for call in calls)
    yield Fact("Input tokens", f"{sum(call.input_tokens for call in calls):,}")
    yield Fact("of these cached", f"{sum(call.cached_input_tokens for call in calls):,}")
    yield Fact("Output tokens", f"{sum(call.output_tokens for call in calls):,}")
    yield Fact("of these reasoning", f"{sum(call.reasoning_tokens for call in calls):,}")
    yield Fact("Billed to the site", f"${format_usd(sum(call.cost_pico_usd for call in calls if call.billable))}")
    total = format_usd(sum(call.cost_pico_usd for call in calls))
    yield Fact("All calls", f"${total}" + (", some without a price" if unpriced else ""))
