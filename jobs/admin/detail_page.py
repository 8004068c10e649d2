"""Base of admin pages that show a row instead of a form. Their URLs contain public ids."""

from collections.abc import Callable
from typing import Any, TypeVar

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from core.admin_ui.model_admin import BoundedChangeList, ReadOnlyAdmin, can_view, change_page_url
from jobs.admin.presentation import Visibility
from jobs.models import Batch, Job
from metering.models import UsageEvent

M = TypeVar("M", bound=Model)

CHANGE_URLS = {Job: "admin:jobs_job_change", Batch: "admin:jobs_batch_change"}


def page_url(row: Job | Batch) -> str:
    """Return the URL of the row's page."""
    return reverse(CHANGE_URLS[type(row)], args=(row.public_id,))


class PageList(BoundedChangeList):
    def url_for_result(self, result: Model) -> str:
        return page_url(result) if isinstance(result, Job | Batch) else super().url_for_result(result)


class PageAdmin(ReadOnlyAdmin[M]):
    """The page itself is read-only; a POST to a URL below it runs an action."""

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[BoundedChangeList]:
        return PageList

    def extra_views(self) -> dict[str, Callable[..., HttpResponse]]:
        """Return the views below a row's page, by the last part of their URL."""
        return {}

    def get_urls(self) -> list[URLPattern]:
        base = f"{self.opts.app_label}_{self.opts.model_name}"
        own = [
            path(f"<str:public_id>/{name}/", self.admin_site.admin_view(view), name=f"{base}_{name}")
            for name, view in self.extra_views().items()
        ]
        return [*own, *super().get_urls()]

    def visibility(self, request: HttpRequest) -> Visibility:
        """Return what this user may view."""
        return Visibility(
            usage=can_view(self.admin_site, request, UsageEvent),
            webhooks=request.user.has_perms(["webhooks.view_event", "webhooks.view_delivery"]),
            audit=request.user.has_perm("tenants.view_auditentry"),
            link_to=lambda row: self._link_to(request, row),
            jobs=can_view(self.admin_site, request, Job),
        )

    def render(self, request: HttpRequest, name: str, title: str, context: dict[str, Any]) -> TemplateResponse:
        request.current_app = self.admin_site.name
        common = {**self.admin_site.each_context(request), "opts": self.opts, "title": title}
        return TemplateResponse(
            request, f"admin/{self.opts.app_label}/{self.opts.model_name}/{name}.html", {**common, **context}
        )

    def redirect_missing(self, request: HttpRequest) -> HttpResponse:
        self.message_user(request, f"This {self.opts.verbose_name} does not exist.", messages.WARNING)
        return HttpResponseRedirect(reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist"))

    def require_permission(self, request: HttpRequest, allowed: bool = True) -> None:
        """Raise `PermissionDenied` unless the user may view these rows and `allowed` is true."""
        if not (allowed and self.has_view_permission(request)):
            raise PermissionDenied

    def _link_to(self, request: HttpRequest, row: Model) -> str | None:
        if isinstance(row, Job | Batch):
            return page_url(row) if can_view(self.admin_site, request, type(row)) else None
        return change_page_url(self.admin_site, request, row)
