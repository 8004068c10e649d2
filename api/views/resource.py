"""Base class of all resources: authentication, scopes, and JSON only."""

from collections.abc import Iterable, Mapping
from typing import ClassVar

from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.permissions import BasePermission
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.views import APIView

from api.authentication import identity_of
from tenants.access import TokenScope, check_scope


class HasScope(BasePermission):
    """Requires the scope that the view declares for the method."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        scope = getattr(view, "scopes", {}).get(request.method)
        if scope is not None:
            check_scope(identity_of(request), scope)
        return True


class JSONOnly(BaseContentNegotiation):
    """Always respond in JSON, whatever the header Accept says, so that no error turns into a 406."""

    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> BaseParser:
        # There is one parser, which raises 415 itself.
        return next(iter(parsers))

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        renderer = next(iter(renderers))
        return renderer, renderer.media_type or ""


class Resource(APIView):
    """A view for authenticated sites. `scopes` has the required scope of each method."""

    permission_classes = [HasScope]
    content_negotiation_class = JSONOnly
    # Without OPTIONS, to which DRF would respond with its own description of the view.
    http_method_names = ["get", "post", "put", "patch", "delete", "head"]
    scopes: ClassVar[Mapping[str, TokenScope]] = {}
