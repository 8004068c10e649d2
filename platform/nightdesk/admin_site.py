"""The admin site: its home page, and a guard at its door."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from django.contrib import messages
from django.http import HttpRequest, HttpResponseRedirect
from django.http.response import HttpResponseBase

from core import theme

View = TypeVar("View", bound=Callable[..., HttpResponseBase])


class DeskSite(theme.ThemedSite):
    index_template = "desk/home.html"
    index_title = "How the desk fares"

    def admin_view(self, view: View, cacheable: bool = False) -> View:
        return super().admin_view(_without_nul(view), cacheable)


def _without_nul(view: View) -> View:
    """Turn back addresses with a NUL in their query: Postgres has no such text, and Django would answer 500."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if any("\0" in text for name, values in request.GET.lists() for text in (name, *map(str, values))):
            messages.error(request, "The address held a character that nothing can be searched for.")
            return HttpResponseRedirect(request.path)
        return view(request, *args, **kwargs)

    return cast(View, guarded)
