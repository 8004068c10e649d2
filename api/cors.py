"""Answers to browsers on pages of other origins, on the resources (the live path writes its own)."""

from collections.abc import Callable

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.utils.cache import patch_vary_headers

from api.authentication import known_sender
from api.error_answers import API_PREFIXES, to_response
from api.errors import problem_of
from tenants import directory
from tenants.limits import read_origin
from tenants.origins import Headers, Preflight, allowed_origin, answer_headers, preflight_answer


class CrossOrigin:
    """Answer preflights, and say on every other answer whose pages may read it.

    It stands around all that could answer, so that a page can also read why it was refused.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        # Elsewhere there is nothing for other pages; and /healthz is answered where nobody may ask Postgres.
        if not request.path.startswith(API_PREFIXES):
            return self.get_response(request)
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            return _answer_preflight(request)
        response = self.get_response(request)
        _write(response, answer_headers(_reader_of(request)))
        return response


def _answer_preflight(request: HttpRequest) -> HttpResponse:
    asked = Preflight(
        request.headers.get("Origin"),
        request.headers.get("Access-Control-Request-Method"),
        request.headers.get("Access-Control-Request-Headers", ""),
    )
    try:
        is_known = directory.knows_origin(read_origin(asked.origin or ""))
    except (OperationalError, InterfaceError) as error:
        return to_response(problem_of(error), request)
    status, headers = preflight_answer(asked, is_known=is_known)
    response = HttpResponse(status=status)
    del response["Content-Type"]
    _write(response, headers)
    return response


def _reader_of(request: HttpRequest) -> str | None:
    """Return the origin whose pages may read the answer: one of the site's; of any site's where nobody is proven."""
    origin = request.headers.get("Origin")
    if origin is None:
        return None
    identity = known_sender(request)
    if identity is not None:
        return allowed_origin(origin, identity.site, identity.origin)
    try:
        return origin if directory.knows_origin(read_origin(origin)) else None
    except (OperationalError, InterfaceError):
        return None


def _write(response: HttpResponse, headers: Headers) -> None:
    for name, value in headers:
        if name == b"vary":
            patch_vary_headers(response, value.decode().split(", "))
        else:
            response[name.decode()] = value.decode("latin-1")
