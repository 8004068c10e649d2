"""Admin pages whose content comes from Redis instead of database rows, and that refresh themselves while open.

A page has three addresses: the page, the part of it that refreshes, and an action on one of its rows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias, TypeVar

import redis
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from core import clock
from core.redis import RedisUnavailable, blocking_client

T = TypeVar("T")

#: Returns the template context of a page at this time.
ReadContext: TypeAlias = Callable[[HttpRequest, datetime], Mapping[str, Any]]
#: Acts on the row with this id and reports the result as a message. Raises `RedisUnavailable`.
RowAction: TypeAlias = Callable[[HttpRequest, redis.Redis, str], None]


@dataclass(frozen=True, slots=True)
class LivePage:
    """One page. Its content is the template `desk/<name>.html`."""

    name: str
    title: str
    #: Symbol in the menu.
    icon: str
    view_permission: str
    act_permission: str
    read: ReadContext
    #: The action's name in its address, e.g. `close`.
    verb: str
    act: RowAction

    @property
    def url(self) -> str:
        return reverse(f"admin:desk_{self.name}")

    def may_view(self, request: HttpRequest) -> bool:
        return request.user.has_perm(self.view_permission)

    def may_act(self, request: HttpRequest) -> bool:
        return self.may_view(request) and request.user.has_perm(self.act_permission)

    def urls(self, site: admin.AdminSite) -> list[URLPattern]:
        return [
            path(f"{self.name}/", site.admin_view(self.show), name=f"desk_{self.name}"),
            path(f"{self.name}/live/", site.admin_view(self.show_live), name=f"desk_{self.name}_live"),
            path(f"{self.name}/{self.verb}/", site.admin_view(self.act_on_row), name=f"desk_{self.name}_{self.verb}"),
        ]

    def show(self, request: HttpRequest) -> HttpResponse:
        """Render the whole page."""
        _require(self.may_view(request))
        request.current_app = admin.site.name
        context = {**admin.site.each_context(request), "title": self.title, **self._context(request)}
        return TemplateResponse(request, "desk/live_page.html", context)

    def show_live(self, request: HttpRequest) -> HttpResponse:
        """Render the part that refreshes."""
        _require(self.may_view(request))
        return TemplateResponse(request, "desk/live_part.html", self._context(request))

    def act_on_row(self, request: HttpRequest) -> HttpResponse:
        """Act on the row that is named in the form, and go back to the page."""
        _require(self.may_act(request))
        # After a sign-in the browser returns here by GET, which must change nothing.
        if request.method == "POST":
            try:
                with blocking_client(settings.REDIS_URL) as server:
                    self.act(request, server, request.POST.get("id", ""))
            except RedisUnavailable:
                messages.error(request, f"Could not {self.verb} it: Redis is unavailable.")
        return HttpResponseRedirect(self.url)

    def _context(self, request: HttpRequest) -> dict[str, Any]:
        now = clock.now()
        return {
            **self.read(request, now),
            "content_template": f"desk/{self.name}.html",
            "live_url": f"{self.url}live/",
            "can_act": self.may_act(request),
            "as_of": f"{now:%H:%M:%S} UTC",
        }


def from_redis(read: Callable[[redis.Redis], T]) -> T | None:
    """Return what `read` finds in Redis; None while Redis is unavailable."""
    try:
        with blocking_client(settings.REDIS_URL) as server:
            return read(server)
    except RedisUnavailable:
        return None


def _require(allowed: bool) -> None:
    if not allowed:
        raise PermissionDenied
