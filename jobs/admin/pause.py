"""Admin page of pauses: lists them, and lets operators pause and resume."""

from typing import Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.admin.widgets import RelatedFieldWidgetWrapper
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from core import clock
from core.admin_ui import theme
from core.admin_ui.model_admin import NO_VALUE, BoundedModelAdmin
from jobs.admin.batch_progress import members_url
from jobs.admin.columns import age_column
from jobs.admin.pause_form import PauseForm
from jobs.models import Batch, JobState, Pause
from jobs.pauses import pause, resume, scope_of
from tenants.models import Site
from tenants.staff import actor_of


@admin.register(Pause)
class PauseAdmin(BoundedModelAdmin[Pause]):
    """A pause is created and ended, never edited."""

    form = PauseForm
    list_display = ("kind", "target", "shown_since", "actor_name", "shown_reason", "affected_jobs")
    list_display_links = None
    list_select_related = ("site", "batch__site")
    sortable_by = ()
    search_fields = ("site__slug", "site__name", "actor", "reason")
    search_help_text = "site, actor or reason"
    autocomplete_fields = ("site",)
    actions = ("resume_selected",)

    def get_fields(self, request: HttpRequest, obj: Pause | None = None) -> Any:
        if obj is None:
            return ("site", "queue", "batch_id", "reason")
        return ("kind", "target", "shown_since", "actor_name", "reason")

    def get_readonly_fields(self, request: HttpRequest, obj: Pause | None = None) -> Any:
        return () if obj is None else self.get_fields(request, obj)

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Offer a plain choice of sites, without the buttons to add or change one."""
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if field is not None and isinstance(field.widget, RelatedFieldWidgetWrapper):
            field.widget = field.widget.widget
        return field

    def has_change_permission(self, request: HttpRequest, obj: Pause | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Pause | None = None) -> bool:
        # The action ends it: it writes to the audit log and wakes the workers.
        return False

    def has_resume_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("jobs.delete_pause")

    def save_model(self, request: HttpRequest, obj: Pause, form: Any, change: bool) -> None:
        created = pause(form.scope, actor_of(request), form.cleaned_data["reason"]).pause
        # Django's message and history entry must refer to the row that was created.
        obj.pk, obj.site, obj.queue, obj.batch = created.pk, created.site, created.queue, created.batch
        obj._state.adding = False

    @admin.action(description="Resume", permissions=["resume"])
    def resume_selected(self, request: HttpRequest, queryset: QuerySet[Pause]) -> None:
        actor = actor_of(request)
        resumed = sum(resume(scope_of(row), actor) for row in queryset.select_related("site", "batch__site"))
        self.message_user(request, f"Resumed {resumed}.", messages.SUCCESS if resumed else messages.WARNING)

    # The columns

    @theme.badge_column("Kind", {"site": "info", "queue": "danger", "batch": "primary"})
    def kind(self, row: Pause) -> tuple[str, str]:
        kind = "site" if row.site_id else "batch" if row.batch_id else "queue"
        return kind, kind.title()

    @admin.display(description="Target")
    def target(self, row: Pause) -> SafeString:
        match scope_of(row):
            case Site() as site:
                return format_html('{} <span class="nd-faint">{}</span>', site.name, site.slug)
            case Batch() as batch:
                url = reverse("admin:jobs_batch_change", args=(batch.public_id,))
                shown = '<a class="nd-link nd-id" href="{}">{}</a> <span class="nd-faint">of {}</span>'
                return format_html(shown, url, batch.public_id, batch.site.slug)
            case queue:
                return format_html('<span class="nd-code">{}</span>', queue.value)

    @admin.display(description="Since", ordering="created_at")
    def shown_since(self, row: Pause) -> SafeString:
        return age_column(row.created_at, clock.now())

    @admin.display(description="Paused by")
    def actor_name(self, row: Pause) -> str:
        return row.actor or NO_VALUE

    @admin.display(description="Reason")
    def shown_reason(self, row: Pause) -> str:
        return row.reason or NO_VALUE

    @admin.display(description="Affects")
    def affected_jobs(self, row: Pause) -> SafeString:
        return format_html('<a class="nd-link" href="{}">queued jobs</a>', _affected_jobs_url(row))


def _affected_jobs_url(row: Pause) -> str:
    if row.batch:
        return members_url(row.batch, state__exact=JobState.QUEUED)
    covered = {"site__id__exact": row.site_id} if row.site_id else {"queue": row.queue}
    return f"{reverse('admin:jobs_job_changelist')}?{urlencode({**covered, 'state__exact': JobState.QUEUED})}"
