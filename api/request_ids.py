"""Request ids: generated per request; in the response, on log lines, and stored with jobs and usage events."""

from django.http import HttpRequest

from core.ids import new_uuid, to_public

META_KEY = "nightdesk.request_id"


def assign_request_id(request: HttpRequest) -> str:
    """Return the request's id, which is generated at the first call."""
    request_id: str = request.META.setdefault(META_KEY, to_public("req", new_uuid()))
    return request_id


def request_id_of(request: HttpRequest) -> str:
    """Return the id that was assigned to the request; empty if there is none."""
    return str(request.META.get(META_KEY, ""))
