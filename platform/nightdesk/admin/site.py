"""The admin site: its overview page, its live pages, and error pages in place of the API's errors."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse

from core.admin_ui import theme
from core.admin_ui.model_admin import NO_VALUE
from nightdesk.admin import breakers, live_streams

View = TypeVar("View", bound=Callable[..., HttpResponseBase])


class NightdeskAdminSite(theme.ThemedSite):
    index_template = "desk/home.html"
    index_title = "Overview"
    empty_value_display = NO_VALUE

    def get_urls(self) -> list[Any]:
        return [*breakers.PAGE.urls(self), *live_streams.PAGE.urls(self), *super().get_urls()]

    def admin_view(self, view: View, cacheable: bool = False) -> View:
        return super().admin_view(self._with_error_pages(view), cacheable)

    def _with_error_pages(self, view: View) -> View:
        """Respond with HTML pages where the project would respond with an API error, or with a 500."""

        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if _has_nul(request):
                messages.error(request, "The address contained an invalid (NUL) character.")
                return HttpResponseRedirect(request.path)
            try:
                return view(request, *args, **kwargs)
            except PermissionDenied:
                return self._refuse(request, 403, "Permission denied", "Ask an administrator for access.")
            except Http404:
                return self._refuse(request, 404, "Page not found", "It does not exist, or it was deleted.")

        return cast(View, guarded)

    def _refuse(self, request: HttpRequest, status: int, title: str, text: str) -> HttpResponseBase:
        context = {**self.each_context(request), "title": title, "text": text}
        return TemplateResponse(request, "desk/refused.html", context, status=status)


def _has_nul(request: HttpRequest) -> bool:
    """Whether the query contains a NUL: Postgres cannot store it, and Django would respond with 500."""
    return any("\0" in text for name, values in request.GET.lists() for text in (name, *map(str, values)))
