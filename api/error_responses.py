"""Error responses of Django and DRF.

All have one body: `{"error": {"type", "code", "message", "param", "request_id"}}`. A rejected batch also has `errors`,
a list of everything that is wrong.
"""

import sys
from collections.abc import Mapping
from typing import Any

import structlog
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.views import defaults
from rest_framework import exceptions as drf

from api.errors import ApiProblem, to_problem
from api.request_ids import request_id_of

log = structlog.get_logger(__name__)

API_PREFIXES = ("/v1/", "/api/")
API_PATHS = ("/v1", "/api", "/healthz", "/readyz")


def to_response(problem: ApiProblem, request: HttpRequest) -> HttpResponse:
    """Return the response: JSON for API paths, plain text for pages that people open."""
    response = _json(problem, request) if is_api(request.path) else _text(problem)
    response.status_code = problem.status
    for name, value in problem.headers.items():
        response[name] = value
    return response


def is_api(path: str) -> bool:
    """Say whether errors at this path are JSON."""
    return path in API_PATHS or path.startswith(API_PREFIXES)


def _json(problem: ApiProblem, request: HttpRequest) -> HttpResponse:
    return JsonResponse(_body(problem, request), json_dumps_params={"ensure_ascii": False})


def _body(problem: ApiProblem, request: HttpRequest) -> dict[str, Any]:
    error = {
        "type": problem.type,
        "code": problem.code,
        "message": problem.message,
        "param": problem.param,
        "request_id": request_id_of(request),
    }
    return {"error": {**error, "errors": [issue.to_wire() for issue in problem.errors]} if problem.errors else error}


def _text(problem: ApiProblem) -> HttpResponse:
    return HttpResponse(f"{problem.message}\n", content_type="text/plain; charset=utf-8")


# Hooks of Django and DRF


def handle_exception(error: Exception, context: Mapping[str, Any]) -> HttpResponse:
    """Return the response for an exception in a view (DRF's EXCEPTION_HANDLER). It handles every exception."""
    problem = to_problem(error)
    if problem.is_server_error:
        log.error("unhandled_exception", error=type(error).__name__, exc_info=error)
    request = context["request"]
    response = to_response(problem, request._request)
    if isinstance(error, drf.MethodNotAllowed):
        response["Allow"] = ", ".join(context["view"].allowed_methods)
    return response


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Django's handler400."""
    return (
        to_response(to_problem(exception), request)
        if is_api(request.path)
        else defaults.bad_request(request, exception)
    )


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Django's handler403."""
    if is_api(request.path):
        return to_response(to_problem(exception), request)
    return defaults.permission_denied(request, exception)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Django's handler404."""
    if is_api(request.path):
        return to_response(to_problem(exception), request)
    return defaults.page_not_found(request, exception)


def server_error(request: HttpRequest) -> HttpResponseBase:
    """Django's handler500, which runs in the `except` block of the error."""
    problem = to_problem(sys.exc_info()[1] or Exception())
    if is_api(request.path) or not problem.is_unexpected:
        return to_response(problem, request)
    return defaults.server_error(request)
