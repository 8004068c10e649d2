"""Middleware for every request: request id, log context, and rejections that happen before any view."""

import re
import time
from collections.abc import Callable

import structlog
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponse

from api.error_responses import is_api, to_response
from api.errors import BodyTooLarge, to_problem
from api.request_body.reader import unread_reason
from api.request_body.size_limit import body_limit_for, exceeds_body_limit
from api.request_ids import assign_request_id
from core.database_threads import DATABASE_UNAVAILABLE

log = structlog.get_logger(__name__)

CLIENT_ID_PATTERN = re.compile(r"[\x20-\x7e]{1,128}")


class RequestContextMiddleware:
    """Assigns a request id, binds it to all log lines of the request, and adds it to the response."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        started = time.perf_counter()
        request_id = assign_request_id(request)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        response = _reject_early(request) or self.get_response(request)
        response["X-Request-ID"] = request_id
        if is_api(request.path):
            # Responses belong to one site: a shared cache must not serve them to another.
            response.headers.setdefault("Cache-Control", "no-store")
        client_id = request.headers.get("X-Client-Request-ID", "")
        if CLIENT_ID_PATTERN.fullmatch(client_id):
            response["X-Client-Request-ID"] = client_id
        if response.status_code >= 400:
            _log_error(request, response, started)
            # Prevents a second log line by Django's handler.
            response._has_been_logged = True  # type: ignore[attr-defined]
        return response

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Return 503 if a view outside DRF (the admin) cannot reach Postgres; leave other errors to Django."""
        if isinstance(error, DATABASE_UNAVAILABLE):
            return to_response(to_problem(error), request)
        return None


def _reject_early(request: HttpRequest) -> HttpResponse | None:
    """Return an error for requests that must not reach a view; None for all others."""
    try:
        request.get_host()
    except DisallowedHost as error:
        return to_response(to_problem(error), request)
    if exceeds_body_limit(request):
        limit = body_limit_for(request.method or "", request.path)
        return to_response(
            to_problem(BodyTooLarge(f"The body is larger than {limit:,} bytes, the limit of this path.")), request
        )
    if reason := unread_reason(request):
        return to_response(to_problem(reason), request)
    return None


def _log_error(request: HttpRequest, response: HttpResponse, started: float) -> None:
    log_response = log.error if response.status_code >= 500 else log.warning
    log_response(
        "request_rejected" if response.status_code < 500 else "request_failed",
        method=request.method,
        # Without the query, which may contain personal data.
        path=request.path[:200],
        status=response.status_code,
        ms=round((time.perf_counter() - started) * 1000, 1),
    )
