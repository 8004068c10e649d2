"""Admin page of worker processes."""

from datetime import datetime, timedelta
from typing import Any

from django.contrib import admin
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse
from django.utils.safestring import SafeString

from core.admin_ui import theme
from core.admin_ui.model_admin import ReadOnlyAdmin
from core.humanize import format_age
from jobs.admin.columns import age_column
from jobs.models import Job, JobState, WorkerLease
from jobs.worker.leases import LEASE_SECONDS
from jobs.worker.reports import live_retry_budgets, slots_of


@admin.register(WorkerLease)
class WorkerAdmin(ReadOnlyAdmin[WorkerLease]):
    """Worker processes. A killed process stays listed as expired for about a minute."""

    list_display = (
        "host",
        "pid",
        "shown_state",
        "running_jobs",
        "version",
        "shown_start",
        "shown_heartbeat",
        "worker_id",
    )
    list_display_links = None
    list_after_template = "admin/jobs/workerlease/budgets.html"
    ordering = ("-started_at",)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the retry budgets of the workers below the list."""
        return super().changelist_view(request, {**(extra_context or {}), "budgets": live_retry_budgets()})

    def get_queryset(self, request: HttpRequest) -> QuerySet[WorkerLease]:
        running = Job.objects.filter(state=JobState.RUNNING, worker_id=OuterRef("worker_id"))
        counted = running.order_by().values("worker_id").annotate(count=Count("id")).values("count")
        return super().get_queryset(request).annotate(jobs=Subquery(counted), now=Now())

    @theme.badge_column("State", {"live": "success", "draining": "warning", "expired": "danger"})
    def shown_state(self, lease: WorkerLease) -> tuple[str, str]:
        if lease.expires_at <= _now(lease):
            return "expired", "Expired"
        return ("draining", "Draining") if lease.draining else ("live", "Live")

    @admin.display(description="Running jobs")
    def running_jobs(self, lease: WorkerLease) -> str:
        jobs, slots = getattr(lease, "jobs", None) or 0, slots_of(lease)
        return f"{jobs}" if slots is None else f"{jobs} of {slots}"

    @admin.display(description="Up for")
    def shown_start(self, lease: WorkerLease) -> SafeString:
        return age_column(lease.started_at, _now(lease))

    @admin.display(description="Last heartbeat")
    def shown_heartbeat(self, lease: WorkerLease) -> str:
        return f"{format_age(lease.expires_at - timedelta(seconds=LEASE_SECONDS), _now(lease))} ago"


def _now(lease: WorkerLease) -> datetime:
    """Return the time of the database at the query: leases expire by its clock, not by ours."""
    now: datetime = getattr(lease, "now")  # noqa: B009 (annotated by the list's query)
    return now
