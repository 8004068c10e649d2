"""Pages of a list: newest first, and the id of the last one asked for is the cursor."""

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
    """Some rows, and whether there are more behind them."""

    rows: Sequence[Any]
    has_more: bool

    def to_wire(self, serializer: type[BaseSerializer[Any]], views: Sequence[Any] | None = None) -> dict[str, Any]:
        """Write the page; `views` stand for the rows where the serializer wants more than a row."""
        return {
            "object": "list",
            "data": serializer(self.rows if views is None else views, many=True).data,
            "first_id": self.rows[0].public_id if self.rows else None,
            "last_id": self.rows[-1].public_id if self.rows else None,
            "has_more": self.has_more,
        }


def paginate(fetch: Callable[[int], Sequence[HasPublicId]], limit: int) -> Page:
    """Fetch one row more than asked for: if it is there, there is another page."""
    rows = fetch(limit + 1)
    return Page(rows[:limit], has_more=len(rows) > limit)


def page_schema(name: str, row: type[Serializer[Any]]) -> Serializer[Any]:
    """Describe a page of such rows, for the OpenAPI document."""
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
    """Return the rows older than the one that `after` names."""
    return rows.order_by("-id") if after is None else rows.filter(id__lt=read_public_id(prefix, after)).order_by("-id")


def read_public_id(prefix: str, public_id: str) -> UUID:
    """Return the id behind a public one. Raises `ResourceNotFound`, as for one that names nothing."""
    try:
        return from_public(prefix, public_id)
    except InvalidId:
        raise ResourceNotFound("There is no such resource.") from None
