"""Pages of the admin that show what Redis tells, where no rows are: who may see them, and how they are drawn."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.urls import reverse

#: Reads what a page shows.
ReadContext: TypeAlias = Callable[[HttpRequest], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class LivePage:
    """One page. What changes on it by itself is a template of its own, `<name>_live`."""

    name: str
    title: str
    #: Its symbol in the menu.
    icon: str
    #: Who may see it, and who may act on it.
    view_permission: str
    act_permission: str

    @property
    def url(self) -> str:
        return reverse(f"admin:desk_{self.name}")

    def may_view(self, request: HttpRequest) -> bool:
        return request.user.has_perm(self.view_permission)

    def may_act(self, request: HttpRequest) -> bool:
        return self.may_view(request) and request.user.has_perm(self.act_permission)

    def draw(self, request: HttpRequest, read: ReadContext) -> TemplateResponse:
        """Draw the whole page with what is read for it. Raises `PermissionDenied`."""
        request.current_app = admin.site.name
        common = {**admin.site.each_context(request), "title": self.title}
        return self._draw(request, self.name, read, common)

    def draw_live(self, request: HttpRequest, read: ReadContext) -> TemplateResponse:
        """Draw the part that changes by itself. Raises `PermissionDenied`."""
        return self._draw(request, f"{self.name}_live", read, {})

    def require(self, allowed: bool) -> None:
        """Refuse who may not. Raises `PermissionDenied`."""
        if not allowed:
            raise PermissionDenied

    def _draw(
        self, request: HttpRequest, template: str, read: ReadContext, common: Mapping[str, Any]
    ) -> TemplateResponse:
        self.require(self.may_view(request))
        context = {**common, **read(request), "can_act": self.may_act(request)}
        return TemplateResponse(request, f"desk/{template}.html", context)
