"""The overview page of the admin. Each part is shown only to users who may view its rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.contrib import admin
from django.db.models import Count, Min
from django.http import HttpRequest
from django.urls import reverse

from core import clock
from core.admin_ui.model_admin import can_view
from core.humanize import format_age
from jobs import overview
from jobs.batches.progress_bar import ProgressBar, draw_progress_bar
from jobs.models import Batch, Job, Pause, WorkerLease
from jobs.overview import ActiveBatch, BusySite, HourlyJobs, QueueStatus
from jobs.pauses import active_pauses, describe_pause
from jobs.periods import first_id_at
from jobs.worker.leases import live_workers
from jobs.worker.reports import count_deferred_retries, live_retry_budgets
from metering.cost import format_usd, format_usd_short
from metering.models import UsageEvent
from metering.reports import ProviderHealth, cost_by_site, provider_health
from webhooks.models import Delivery, DeliveryState

RECENT = timedelta(hours=1)
#: Failed deliveries are counted this far back: a delivery is retried for days before it fails.
FAILED_WITHIN = timedelta(days=7)
MAX_PAUSES = 5


@dataclass(frozen=True, slots=True)
class Tile:
    name: str
    value: str
    note: str
    url: str
    is_bad: bool = False


@dataclass(frozen=True, slots=True)
class HourColumn:
    """One hour of the chart; heights in percent of the busiest hour."""

    name: str
    title: str
    ok: float
    bad: float
    other: float


@dataclass(frozen=True, slots=True)
class SiteRow:
    name: str
    url: str
    jobs: str
    #: Successful jobs, in percent of those that succeeded, failed or expired; None if there are none.
    success: float | None
    cost: str
    exact_cost: str


@dataclass(frozen=True, slots=True)
class ProviderRow:
    name: str
    calls: str
    failed: str
    errors: str
    is_bad: bool


@dataclass(frozen=True, slots=True)
class BatchRow:
    name: str
    url: str
    site: str
    state: str
    #: None while the input file is read.
    bar: ProgressBar | None
    age: str


def add_home_context(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Add the context of the overview page. Each part is read only if the user may view its rows."""
    now = clock.now()
    sees_jobs, sees_usage, sees_workers, sees_deliveries, sees_batches, sees_pauses = (
        can_view(admin.site, request, model) for model in (Job, UsageEvent, WorkerLease, Delivery, Batch, Pause)
    )
    tiles: list[Tile] = []
    if sees_jobs:
        tiles += _job_tiles(now)
        context["columns"] = _columns(overview.jobs_by_hour(now))
        context["sites"] = _site_rows(overview.busiest_sites(now - timedelta(days=1)), now, sees_usage)
    if sees_workers:
        tiles += _worker_tiles()
    if sees_batches:
        context["batches"] = [_batch_row(each, now) for each in overview.active_batches()]
    if sees_pauses:
        context["pauses"] = [describe_pause(pause, now) for pause in active_pauses()[:MAX_PAUSES]]
    if sees_deliveries:
        tiles += _delivery_tiles(now)
    if sees_usage:
        context["providers"] = [_provider_row(each) for each in provider_health(now - RECENT)]
    return {**context, "tiles": tiles, "sees_jobs": sees_jobs, "sees_usage": sees_usage}


def _job_tiles(now: datetime) -> list[Tile]:
    status = overview.queue_status()
    note = _queue_note(status, now)
    jobs = reverse("admin:jobs_job_changelist")
    return [
        Tile("Queued", f"{status.queued:,}", note, f"{jobs}?state__exact=queued"),
        Tile("Running", f"{status.running:,}", "being processed", f"{jobs}?state__exact=running"),
    ]


def _queue_note(status: QueueStatus, now: datetime) -> str:
    if not status.queued:
        return "queue is empty"
    if status.due_since is None or status.due_since >= now:
        return "none is due yet"
    return f"oldest has waited {format_age(status.due_since, now)}"


def _worker_tiles() -> list[Tile]:
    live = len(live_workers())
    note = "taking jobs" if live else "no worker is running, so jobs wait"
    workers = reverse("admin:jobs_workerlease_changelist")
    tiles = [Tile("Live workers", str(live), note, workers, is_bad=not live)]
    if deferred := count_deferred_retries(live_retry_budgets()):
        tiles.append(Tile("Deferred retries", f"{deferred:,}", "in the last minute", workers, is_bad=True))
    return tiles


def _batch_row(each: ActiveBatch, now: datetime) -> BatchRow:
    batch = each.batch
    return BatchRow(
        name=batch.public_id,
        url=reverse("admin:jobs_batch_change", args=(batch.public_id,)),
        site=batch.site.name,
        state="Paused" if each.is_on_hold else batch.get_state_display(),
        bar=draw_progress_bar(each.counts) if each.counts.total else None,
        age=format_age(batch.created_at, now),
    )


def _delivery_tiles(now: datetime) -> list[Tile]:
    pending = Delivery.objects.filter(state=DeliveryState.PENDING).aggregate(count=Count("id"), due=Min("due_at"))
    late = pending["due"] is not None and pending["due"] < now
    note = f"oldest is {format_age(pending['due'], now)} overdue" if late else "none overdue"
    failed = Delivery.objects.filter(id__gte=first_id_at(now - FAILED_WITHIN), state=DeliveryState.EXHAUSTED).count()
    return [
        Tile("Pending deliveries", f"{pending['count']:,}", note, _deliveries("pending")),
        Tile("Failed deliveries", f"{failed:,}", "last 7 days", _deliveries("exhausted"), is_bad=failed > 0),
    ]


def _deliveries(state: str) -> str:
    return f"{reverse('admin:webhooks_delivery_changelist')}?state__exact={state}"


def _columns(hours: Sequence[HourlyJobs]) -> list[HourColumn]:
    highest = max(1, *(hour.total for hour in hours))
    return [
        HourColumn(
            name=f"{hour.begins_at:%H}" if number % 4 == 0 else "",
            title=f"{hour.begins_at:%H:%M}: {hour.total:,} jobs, {hour.succeeded:,} succeeded, {hour.bad:,} failed",
            ok=hour.succeeded * 100 / highest,
            bad=hour.bad * 100 / highest,
            other=hour.other * 100 / highest,
        )
        for number, hour in enumerate(hours)
    ]


def _site_rows(sites: Sequence[BusySite], now: datetime, sees_usage: bool) -> list[SiteRow]:
    ids = [site.site_id for site in sites]
    costs = cost_by_site(ids, now - timedelta(days=1)) if sees_usage and ids else {}
    jobs = reverse("admin:jobs_job_changelist")
    return [
        SiteRow(
            name=site.name,
            url=f"{jobs}?site__id__exact={site.site_id}",
            jobs=f"{site.jobs:,}",
            success=site.succeeded * 100 / (site.succeeded + site.bad) if site.succeeded + site.bad else None,
            cost=f"${format_usd_short(costs.get(site.site_id, 0))}",
            exact_cost=f"${format_usd(costs.get(site.site_id, 0))}",
        )
        for site in sites
    ]


def _provider_row(health: ProviderHealth) -> ProviderRow:
    return ProviderRow(
        name=health.provider,
        calls=f"{health.calls:,}",
        failed=f"{health.failed:,} ({health.failed * 100 / health.calls:.0f} %)" if health.failed else "0",
        errors=", ".join(health.errors),
        is_bad=health.failed * 2 > health.calls,
    )
