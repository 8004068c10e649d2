"""CORS of the REST API and its error responses. (The live path sets its own headers.)"""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.utils.cache import patch_vary_headers

from api.authentication import authenticated_identity
from api.cors import CorsHeaders, PreflightRequest, cors_headers, preflight_response
from api.error_responses import API_PREFIXES, to_response
from api.errors import to_problem
from core.database_threads import DATABASE_UNAVAILABLE
from tenants import cached_lookups
from tenants.access import echoed_origin, normalize_origin


class CorsMiddleware:
    """Responds to preflight requests and adds CORS headers to every other response.

    It wraps everything that can respond, so that a page can read error responses too.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        # Other paths are not for cross-origin pages, and /healthz runs on the event loop, where Postgres is off limits.
        if not request.path.startswith(API_PREFIXES):
            return self.get_response(request)
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            return _answer_preflight(request)
        response = self.get_response(request)
        _set_headers(response, cors_headers(_allowed_reader(request)))
        return response


def _answer_preflight(request: HttpRequest) -> HttpResponse:
    preflight = PreflightRequest(
        request.headers.get("Origin"),
        request.headers.get("Access-Control-Request-Method"),
        request.headers.get("Access-Control-Request-Headers", ""),
    )
    try:
        is_known = cached_lookups.is_known_origin(normalize_origin(preflight.origin or ""))
    except DATABASE_UNAVAILABLE as error:
        return to_response(to_problem(error), request)
    status, headers = preflight_response(preflight, is_known=is_known)
    response = HttpResponse(status=status)
    del response["Content-Type"]
    _set_headers(response, headers)
    return response


def _allowed_reader(request: HttpRequest) -> str | None:
    """Return the origin whose pages may read the response; None if there is none.

    It must be an origin of the authenticated site, or of any site if the request is not authenticated.
    """
    origin = request.headers.get("Origin")
    if origin is None:
        return None
    identity = authenticated_identity(request)
    if identity is not None:
        return echoed_origin(origin, identity.site, identity.origin)
    try:
        return origin if cached_lookups.is_known_origin(normalize_origin(origin)) else None
    except DATABASE_UNAVAILABLE:
        return None


def _set_headers(response: HttpResponse, headers: CorsHeaders) -> None:
    for name, value in headers:
        if name == b"vary":
            patch_vary_headers(response, value.decode().split(", "))
        else:
            response[name.decode()] = value.decode("latin-1")
