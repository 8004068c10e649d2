"""What all resources have in common."""

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
    """A view names the scope that each of its methods needs."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        scope = getattr(view, "scopes", {}).get(request.method)
        if scope is not None:
            check_scope(identity_of(request), scope)
        return True


class JSONOnly(BaseContentNegotiation):
    """Answer in JSON whatever was asked for: a client that wants HTML is told what is wrong, and not 406."""

    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> BaseParser:
        # There is one, and it says 415 in its own words.
        return next(iter(parsers))

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        renderer = next(iter(renderers))
        return renderer, renderer.media_type or ""


class Resource(APIView):
    """A view of a proven site. `scopes` names what each method needs."""

    permission_classes = [HasScope]
    content_negotiation_class = JSONOnly
    # Without OPTIONS, which would describe the view in DRF's own words.
    http_method_names = ["get", "post", "put", "patch", "delete", "head"]
    scopes: ClassVar[Mapping[str, TokenScope]] = {}
