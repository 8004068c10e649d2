"""The admin site: its home page, and a guard at its door."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import path

from core.admin_ui import theme
from nightdesk.admin import breakers, live_streams

View = TypeVar("View", bound=Callable[..., HttpResponseBase])


class NightdeskAdminSite(theme.ThemedSite):
    index_template = "desk/home.html"
    index_title = "Overview"

    def get_urls(self) -> list[Any]:
        pages = (*breakers.VIEWS, *live_streams.VIEWS)
        return [
            *(path(address, self.admin_view(view), name=name) for address, view, name in pages),
            *super().get_urls(),
        ]

    def admin_view(self, view: View, cacheable: bool = False) -> View:
        return super().admin_view(self._guarded(view), cacheable)

    def _guarded(self, view: View) -> View:
        """Answer with pages what the project would answer with the API's errors, or with a 500."""

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
                return self._refuse(request, 404, "Page not found", "This page does not exist, or no longer.")

        return cast(View, guarded)

    def _refuse(self, request: HttpRequest, status: int, title: str, text: str) -> HttpResponseBase:
        context = {**self.each_context(request), "title": title, "text": text}
        return TemplateResponse(request, "desk/refused.html", context, status=status)


def _has_nul(request: HttpRequest) -> bool:
    """Whether the query holds a NUL: Postgres has no such text, and Django would answer 500."""
    return any("\0" in text for name, values in request.GET.lists() for text in (name, *map(str, values)))
