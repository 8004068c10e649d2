"""The id that every request gets, for its answer, its log lines and what it stores."""

from django.http import HttpRequest

from core.ids import new_uuid, to_public

PLACE = "nightdesk.request_id"


def give_id(request: HttpRequest) -> str:
    """Give the request its id, and return it."""
    request_id: str = request.META.setdefault(PLACE, to_public("req", new_uuid()))
    return request_id


def id_of(request: HttpRequest) -> str:
    """Return the id that the request was given."""
    return str(request.META.get(PLACE, ""))
