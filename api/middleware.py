"""What surrounds every request: its id, its log lines, and the answers that no view gives."""

import re
import time
from collections.abc import Callable

import structlog
from django.core.exceptions import DisallowedHost
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse

from api.body_limit import is_cut_off, limit_of
from api.error_answers import is_api, to_response
from api.errors import TooLarge, problem_of
from api.reading import unread
from api.request_ids import give_id

log = structlog.get_logger(__name__)

CLIENT_ID_FORM = re.compile(r"[\x20-\x7e]{1,128}")


class RequestScope:
    """Give the request an id, bind it to every log line, and put it on every answer."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        started = time.perf_counter()
        request_id = give_id(request)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        response = _refuse(request) or self.get_response(request)
        response["X-Request-ID"] = request_id
        if is_api(request.path):
            # What a site asked for is its own: no proxy keeps it for the next who asks.
            response.headers.setdefault("Cache-Control", "no-store")
        client_id = request.headers.get("X-Client-Request-ID", "")
        if CLIENT_ID_FORM.fullmatch(client_id):
            response["X-Client-Request-ID"] = client_id
        if response.status_code >= 400:
            _log(request, response, started)
            # Or else Django's handler writes a line of its own about every such answer.
            response._has_been_logged = True  # type: ignore[attr-defined]
        return response

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Answer 503 where a view outside DRF (the admin) finds no database; leave everything else to Django."""
        if isinstance(error, OperationalError | InterfaceError):
            return to_response(problem_of(error), request)
        return None


def _refuse(request: HttpRequest) -> HttpResponse | None:
    """Refuse what no view should see; None for all others."""
    try:
        request.get_host()
    except DisallowedHost as error:
        return to_response(problem_of(error), request)
    if is_cut_off(request):
        limit = limit_of(request.method or "", request.path)
        return to_response(problem_of(TooLarge(f"The body is larger than {limit:,} bytes.")), request)
    if why := unread(request):
        return to_response(problem_of(why), request)
    return None


def _log(request: HttpRequest, response: HttpResponse, started: float) -> None:
    write = log.error if response.status_code >= 500 else log.warning
    write(
        "request_refused" if response.status_code < 500 else "request_failed",
        method=request.method,
        # Never the query: it may hold what a person wrote.
        path=request.path[:200],
        status=response.status_code,
        ms=round((time.perf_counter() - started) * 1000, 1),
    )
