"""The id that every request gets, for its answer, its log lines and what it stores."""

from django.http import HttpRequest

from core.ids import new_uuid, to_public

META_KEY = "nightdesk.request_id"


def assign_request_id(request: HttpRequest) -> str:
    """Give the request its id, and return it."""
    request_id: str = request.META.setdefault(META_KEY, to_public("req", new_uuid()))
    return request_id


def request_id_of(request: HttpRequest) -> str:
    """Return the id that the request was given."""
    return str(request.META.get(META_KEY, ""))
