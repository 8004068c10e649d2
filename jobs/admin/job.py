"""Admin pages of jobs: list, page and actions. Prompts and answers are shown only on request, which is audited."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from django.contrib import admin, messages
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from core import clock
from core.admin_ui import theme
from core.admin_ui.model_admin import NO_VALUE, can_view
from core.crypto import CryptoError
from jobs.admin import filters
from jobs.admin.columns import age_column
from jobs.admin.detail_page import PageAdmin, page_url
from jobs.admin.job_actions import JobActionResult, audit_reveal, cancel_jobs, retry_jobs
from jobs.admin.job_page import read_job_page
from jobs.admin.presentation import STATE_COLORS
from jobs.admin.search import JOB_SEARCH_HELP, jobs_matching, parse_job_id
from jobs.errors import JobError
from jobs.models import ENCRYPTED_FIELDS, Job, JobState
from jobs.payload import load_body
from jobs.read import result_of
from jobs.retry import RETRYABLE
from metering.cost import format_usd
from metering.models import UsageEvent
from tenants.audit import Actor
from tenants.staff import actor_of

#: Actions run one by one within a request; more jobs would take too long.
MAX_SELECTED = 100


@admin.register(Job)
class JobAdmin(PageAdmin[Job]):
    list_display = (
        "job",
        "shown_state",
        "shown_site",
        "shown_model",
        "shown_age",
        "shown_attempts",
        "cost",
        "shown_error",
    )
    list_filter = (
        ("state", theme.ChoicesFilter),
        ("site", theme.RelatedFilter),
        ("kind", theme.ChoiceFilter),
        filters.ModelFilter,
        filters.BatchFilter,
        filters.CustomIdFilter,
        filters.ErrorCodeFilter,
        filters.QueueFilter,
        filters.ProviderNameFilter,
        ("created_at", filters.CreatedFilter),
    )
    list_select_related = ("site",)
    # Any other order would read the whole table.
    sortable_by = ("job",)
    search_fields = ("idempotency_key",)
    search_help_text = JOB_SEARCH_HELP
    actions = ("cancel_selected", "retry_selected")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Job]:
        billed = UsageEvent.objects.filter(job_id=OuterRef("id"), billable=True).exclude(price_version="")
        return (
            super()
            .get_queryset(request)
            .defer(*ENCRYPTED_FIELDS)
            .annotate(billed=Subquery(billed.values("cost_pico_usd")))
        )

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Job], search_term: str
    ) -> tuple[QuerySet[Job], bool]:
        word = search_term.strip()
        return (queryset.filter(jobs_matching(word)) if word else queryset), False

    def get_list_display(self, request: HttpRequest) -> Any:
        sees_cost = can_view(self.admin_site, request, UsageEvent)
        return [name for name in self.list_display if name != "cost" or sees_cost]

    # The columns

    @admin.display(description="Job", ordering="id")
    def job(self, job: Job) -> SafeString:
        shown = format_html('<span class="nd-id">{}</span>', job.public_id)
        if not job.batch_id:
            return shown
        return format_html(
            '{}<br><span class="nd-faint nd-cut" title="{}">{}</span>', shown, job.custom_id, job.custom_id
        )

    @theme.badge_column("State", STATE_COLORS)
    def shown_state(self, job: Job) -> tuple[str, str]:
        return job.state, job.get_state_display()

    @admin.display(description="Site")
    def shown_site(self, job: Job) -> SafeString:
        return format_html('<span class="nd-cut" title="{}">{}</span>', job.site.name, job.site.slug)

    @admin.display(description="Model")
    def shown_model(self, job: Job) -> SafeString:
        return format_html('<span class="nd-cut">{}</span><br><span class="nd-faint">{}</span>', job.model, job.kind)

    @admin.display(description="Age")
    def shown_age(self, job: Job) -> SafeString:
        return age_column(job.created_at, clock.now())

    @admin.display(description="Attempts")
    def shown_attempts(self, job: Job) -> str:
        return f"{job.attempt}/{job.max_attempts}"

    @admin.display(description="Cost (USD)")
    def cost(self, job: Job) -> str:
        billed: int | None = getattr(job, "billed", None)
        return NO_VALUE if billed is None else format_usd(billed)

    @admin.display(description="Error")
    def shown_error(self, job: Job) -> SafeString:
        text = job.error_code or NO_VALUE
        return format_html('<span class="nd-cut" title="{}">{}</span>', text, text)

    # Permissions and actions

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("jobs.cancel_job")

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("jobs.retry_job")

    def has_reveal_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("jobs.view_payload")

    @admin.action(description="Cancel", permissions=["cancel"])
    def cancel_selected(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        self._act_on_selected(request, queryset, cancel_jobs)

    @admin.action(description="Retry", permissions=["retry"])
    def retry_selected(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        self._act_on_selected(request, queryset, retry_jobs)

    def _act_on_selected(self, request: HttpRequest, queryset: QuerySet[Job], act: "JobAction") -> None:
        jobs = list(queryset.select_related("site")[: MAX_SELECTED + 1])
        if len(jobs) > MAX_SELECTED:
            self.message_user(request, f"Nothing was done. Select at most {MAX_SELECTED} jobs.", messages.ERROR)
            return
        self._report(request, act(jobs, actor_of(request)))

    def _report(self, request: HttpRequest, results: Iterable[JobActionResult]) -> None:
        """Show the result of each job; jobs with the same result share a message."""
        by_result: dict[tuple[str, bool], list[JobActionResult]] = defaultdict(list)
        for result in results:
            by_result[result.text, result.done].append(result)
        for (text, done), of_result in by_result.items():
            jobs = format_html_join(", ", "{}", ((_link(each),) for each in of_result))
            self.message_user(
                request,
                format_html("{}: {}.", text.removesuffix("."), jobs),
                messages.SUCCESS if done else messages.WARNING,
            )

    # The page of one job

    def extra_views(self) -> dict[str, Callable[..., HttpResponse]]:
        return {"cancel": self.cancel_view, "retry": self.retry_view, "reveal": self.reveal_view}

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show the page. It has no form, so a POST changes nothing."""
        self.require_permission(request)
        job = self._find_job(object_id)
        if job is None:
            return self.redirect_missing(request)
        context = {
            "page": read_job_page(job, self.visibility(request), clock.now()),
            "job": job,
            "can_cancel": job.state in (JobState.QUEUED, JobState.RUNNING) and self.has_cancel_permission(request),
            "can_retry": job.state in RETRYABLE and self.has_retry_permission(request),
            "can_reveal": self.has_reveal_permission(request),
        }
        return self.render(request, "page", job.public_id, {**context, **(extra_context or {})})

    def cancel_view(self, request: HttpRequest, public_id: str) -> HttpResponse:
        self.require_permission(request, self.has_cancel_permission(request))
        return self._act(request, public_id, cancel_jobs)

    def retry_view(self, request: HttpRequest, public_id: str) -> HttpResponse:
        self.require_permission(request, self.has_retry_permission(request))
        return self._act(request, public_id, retry_jobs)

    def reveal_view(self, request: HttpRequest, public_id: str) -> HttpResponse:
        """Show the prompt and the answer on POST, and write to the audit log who read them."""
        self.require_permission(request, self.has_reveal_permission(request))
        job = self._find_job(public_id)
        if job is None:
            return self.redirect_missing(request)
        if request.method != "POST":
            return HttpResponseRedirect(page_url(job))
        audit_reveal(job, actor_of(request))
        parts = (
            ("Prompt", f"{job.get_kind_display()}, as the site sent it", *_read_json(lambda: load_body(job))),
            ("Answer", "", *_read_json(lambda: result_of(job))),
        )
        context = {"job": job, "back": page_url(job), "parts": parts}
        # Browsers do not store it: all admin views respond with Cache-Control: no-store.
        return self.render(request, "reveal", f"Prompt and answer of {job.public_id}", context)

    def _act(self, request: HttpRequest, public_id: str, act: "JobAction") -> HttpResponse:
        job = self._find_job(public_id)
        if job is None:
            return self.redirect_missing(request)
        # After a sign-in the browser returns here by GET, which must change nothing.
        if request.method == "POST":
            self._report(request, act([job], actor_of(request)))
        return HttpResponseRedirect(page_url(job))

    def _find_job(self, object_id: str) -> Job | None:
        job_id = parse_job_id(object_id)
        if job_id is None:
            return None
        jobs = Job.objects.select_related("site", "retry_of", "batch")
        return (
            jobs.defer(*ENCRYPTED_FIELDS, *(f"retry_of__{name}" for name in ENCRYPTED_FIELDS)).filter(id=job_id).first()
        )


JobAction = Callable[[Sequence[Job], Actor], list[JobActionResult]]


def _link(result: JobActionResult) -> SafeString | str:
    if result.new is None:
        return result.job.public_id
    link = '{} as <a class="nd-link" href="{}">{}</a>'
    return format_html(link, result.job.public_id, page_url(result.new), result.new.public_id)


def _read_json(read: Callable[[], Any]) -> tuple[str, str]:
    """Return indented JSON (empty if there is none), and the error if it cannot be read."""
    try:
        value = read()
    except (CryptoError, JobError, msgspec.DecodeError) as error:
        return "", " ".join(str(each) for each in (error, error.__cause__) if each)
    if value is None:
        return "", ""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode(), ""
