"""Cursor pagination: newest first; the cursor is the public id of the last row of the previous page."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from uuid import UUID

from django.db.models import QuerySet
from drf_spectacular.utils import inline_serializer
from rest_framework.serializers import BaseSerializer, BooleanField, CharField, Serializer

from api.errors import ResourceNotFound
from api.serializers.strict import ConstantField
from core.ids import InvalidId, from_public


class HasPublicId(Protocol):
    @property
    def public_id(self) -> str: ...


R = TypeVar("R", bound=HasPublicId)


@dataclass(frozen=True, slots=True)
class Page:
    """The rows of one page, and whether another page follows."""

    rows: Sequence[Any]
    has_more: bool

    def to_wire(self, serializer: type[BaseSerializer[Any]], views: Sequence[Any] | None = None) -> dict[str, Any]:
        """Return the JSON object of the page. `views` replace the rows if the serializer needs more than a row."""
        return {
            "object": "list",
            "data": serializer(self.rows if views is None else views, many=True).data,
            "first_id": self.rows[0].public_id if self.rows else None,
            "last_id": self.rows[-1].public_id if self.rows else None,
            "has_more": self.has_more,
        }


def paginate(fetch: Callable[[int], Sequence[HasPublicId]], limit: int) -> Page:
    """Return a page of up to `limit` rows. One row more is fetched, to know whether another page follows."""
    rows = fetch(limit + 1)
    return Page(rows[:limit], has_more=len(rows) > limit)


def page_schema(name: str, row: type[Serializer[Any]]) -> Serializer[Any]:
    """Describe a page of these rows for the OpenAPI document."""
    return inline_serializer(
        name,
        {
            "object": ConstantField("list"),
            "data": row(many=True),
            "first_id": CharField(allow_null=True),
            "last_id": CharField(allow_null=True),
            "has_more": BooleanField(),
        },
    )


def rows_after(rows: QuerySet[Any], prefix: str, after: str | None) -> QuerySet[Any]:
    """Return the rows that are older than the one with the public id `after`, newest first."""
    return rows.order_by("-id") if after is None else rows.filter(id__lt=read_public_id(prefix, after)).order_by("-id")


def read_public_id(prefix: str, public_id: str) -> UUID:
    """Return the UUID of a public id. Raises `ResourceNotFound` for a malformed one, as for an unknown one."""
    try:
        return from_public(prefix, public_id)
    except InvalidId:
        raise ResourceNotFound("There is no such resource of this site.") from None
