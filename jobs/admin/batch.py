"""Admin pages of batches: list, progress and actions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from core import clock
from core.admin_ui import theme
from core.admin_ui.model_admin import NO_VALUE, BoundedChangeList, PeriodFilter, can_view
from jobs.admin.batch_actions import (
    BatchAction,
    BatchActionResult,
    cancel_batch,
    pause_batch,
    resume_batch,
    retry_batch,
)
from jobs.admin.batch_page import cancel_consequences, read_batch_page
from jobs.admin.batch_progress import read_progress
from jobs.admin.columns import age_column
from jobs.admin.detail_page import PageAdmin, PageList, page_url
from jobs.admin.presentation import BATCH_COLORS, short_usd
from jobs.admin.search import BATCH_SEARCH_HELP, batches_matching
from jobs.batches.progress_bar import draw_progress_bar
from jobs.batches.read import BatchView, parse_batch_id, views_of
from jobs.models import Batch, BatchState, Pause
from jobs.pauses import PAUSABLE, is_paused_by_operator, paused_batch_ids
from metering.models import UsageEvent
from tenants.staff import actor_of

CANCELABLE = (BatchState.VALIDATING, BatchState.IN_PROGRESS)


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """Progress of a batch on the list."""

    view: BatchView
    #: None of its requests is started: it is paused itself, or its site, or the batch queue.
    is_on_hold: bool


class BatchChangeList(PageList):
    """The list of batches, with the progress of all batches of a page read together."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        batches = list(self.result_list)
        waiting = paused_batch_ids(batches)
        for view in views_of(batches):
            setattr(view.batch, "status", BatchStatus(view, view.batch.id in waiting))  # noqa: B010 (for the columns)
        self.result_list = batches


@admin.register(Batch)
class BatchAdmin(PageAdmin[Batch]):
    list_display = ("batch", "shown_state", "shown_site", "shown_model", "progress", "cost", "shown_age")
    list_filter = (
        ("state", theme.ChoicesFilter),
        ("site", theme.RelatedFilter),
        ("kind", theme.ChoiceFilter),
        ("created_at", PeriodFilter),
    )
    list_select_related = ("site",)
    list_per_page = 25
    sortable_by = ("batch",)
    search_fields = ("idempotency_key",)
    search_help_text = BATCH_SEARCH_HELP

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[BoundedChangeList]:
        return BatchChangeList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Batch], search_term: str
    ) -> tuple[QuerySet[Batch], bool]:
        word = search_term.strip()
        return (queryset.filter(batches_matching(word)) if word else queryset), False

    def get_list_display(self, request: HttpRequest) -> Any:
        sees_cost = can_view(self.admin_site, request, UsageEvent)
        return [name for name in self.list_display if name != "cost" or sees_cost]

    # The columns

    @admin.display(description="Batch", ordering="id")
    def batch(self, batch: Batch) -> SafeString:
        return format_html('<span class="nd-id">{}</span>', batch.public_id)

    @theme.badge_column("State", {**BATCH_COLORS, "paused": "warning"})
    def shown_state(self, batch: Batch) -> tuple[str, str]:
        if _status_of(batch).is_on_hold:
            return "paused", "Paused"
        return batch.state, batch.get_state_display()

    @admin.display(description="Site")
    def shown_site(self, batch: Batch) -> SafeString:
        return format_html('<span class="nd-cut" title="{}">{}</span>', batch.site.name, batch.site.slug)

    @admin.display(description="Model")
    def shown_model(self, batch: Batch) -> SafeString:
        shown = '<span class="nd-cut">{}</span><br><span class="nd-faint">{}</span>'
        return format_html(shown, batch.model or NO_VALUE, batch.get_kind_display())

    @admin.display(description="Progress")
    def progress(self, batch: Batch) -> SafeString:
        counts = _status_of(batch).view.counts
        context = {"bar": draw_progress_bar(counts) if counts.total else None, "batch": batch}
        return render_to_string("admin/jobs/batch/progress_column.html", context)

    @admin.display(description="Cost")
    def cost(self, batch: Batch) -> str:
        return short_usd(_status_of(batch).view.usage.cost_pico_usd)

    @admin.display(description="Age")
    def shown_age(self, batch: Batch) -> SafeString:
        return age_column(batch.created_at, clock.now())

    # Permissions

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("jobs.cancel_batch")

    def has_pause_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("jobs.pause_batch")

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("jobs.retry_batch")

    # The page of one batch

    def extra_views(self) -> dict[str, Callable[..., HttpResponse]]:
        return {
            "progress": self.progress_view,
            "pause": self.pause_view,
            "resume": self.resume_view,
            "cancel": self.cancel_view,
            "retry": self.retry_view,
        }

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show the page. It has no form, so a POST changes nothing."""
        self.require_permission(request)
        batch = _find(object_id)
        if batch is None:
            return self.redirect_missing(request)
        page = read_batch_page(batch, self.visibility(request), clock.now())
        context = {"page": page, "live": page.live, "batch": batch, **self._available_actions(request, batch)}
        return self.render(request, "page", batch.public_id, {**context, **(extra_context or {})})

    def progress_view(self, request: HttpRequest, public_id: str) -> HttpResponse:
        """Show the part of the page that refreshes."""
        self.require_permission(request)
        batch = _find(public_id)
        if batch is None:
            return self.redirect_missing(request)
        live = read_progress(batch, self.visibility(request), clock.now())
        return TemplateResponse(request, "admin/jobs/batch/live.html", {"live": live})

    def pause_view(self, request: HttpRequest, public_id: str) -> HttpResponse:
        self.require_permission(request, self.has_pause_permission(request))
        return self._act(request, public_id, pause_batch)

    def resume_view(self, request: HttpRequest, public_id: str) -> HttpResponse:
        self.require_permission(request, self.has_pause_permission(request))
        return self._act(request, public_id, resume_batch)

    def retry_view(self, request: HttpRequest, public_id: str) -> HttpResponse:
        self.require_permission(request, self.has_retry_permission(request))
        return self._act(request, public_id, retry_batch)

    def cancel_view(self, request: HttpRequest, public_id: str) -> HttpResponse:
        """Ask for confirmation; cancel on POST."""
        self.require_permission(request, self.has_cancel_permission(request))
        batch = _find(public_id)
        if request.method == "POST" or batch is None or batch.state not in CANCELABLE:
            return self._act(request, public_id, cancel_batch)
        context = {"batch": batch, "sentences": cancel_consequences(batch), "back": page_url(batch)}
        return self.render(request, "cancel", f"Cancel {batch.public_id}?", context)

    def _available_actions(self, request: HttpRequest, batch: Batch) -> dict[str, bool]:
        """Return which buttons are shown."""
        may_pause = self.has_pause_permission(request)
        is_paused = may_pause and Pause.objects.filter(batch=batch).exists()
        return {
            # Also if the site paused it: the site could resume its own pause, but not the operator's.
            "can_pause": may_pause and batch.state in PAUSABLE and not is_paused_by_operator(batch),
            "can_resume": is_paused,
            "can_cancel": batch.state in CANCELABLE and self.has_cancel_permission(request),
            "can_retry": batch.is_terminal and bool(batch.failed) and self.has_retry_permission(request),
        }

    def _act(self, request: HttpRequest, public_id: str, act: BatchAction) -> HttpResponse:
        batch = _find(public_id)
        if batch is None:
            return self.redirect_missing(request)
        # After a sign-in the browser returns here by GET, which must change nothing.
        if request.method == "POST":
            self._report(request, act(batch, actor_of(request)))
        return HttpResponseRedirect(page_url(batch))

    def _report(self, request: HttpRequest, result: BatchActionResult) -> None:
        text: SafeString | str = f"{result.text.removesuffix('.')}."
        if result.new is not None:
            link = '{} as <a class="nd-link" href="{}">{}</a>.'
            text = format_html(link, result.text, page_url(result.new), result.new.public_id)
        self.message_user(request, text, messages.SUCCESS if result.done else messages.WARNING)


def _status_of(batch: Batch) -> BatchStatus:
    status: BatchStatus = getattr(batch, "status")  # noqa: B009 (set by the list)
    return status


def _find(object_id: str) -> Batch | None:
    batch_id = parse_batch_id(object_id)
    if batch_id is None:
        return None
    related = ("site", "input_file", "output_file", "error_file", "retry_of")
    return Batch.objects.select_related(*related).filter(id=batch_id).first()
