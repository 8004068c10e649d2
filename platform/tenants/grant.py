"""The restrictions of a credential on one request: one value, from authentication to the stored row."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from django.db import models


@dataclass(frozen=True, slots=True)
class Grant:
    """The restrictions of a credential on one inference request. The default restricts nothing."""

    #: The one model it may be used for; None: every model of the site.
    only_model: str | None = None
    #: The most output tokens that one request may request, over all its answers; None: no limit.
    max_tokens: int | None = None
    #: Whether it may use service tiers that cost more than the standard tier.
    allows_premium_tiers: bool = True
    #: Restrictions that a newer version stored and this one does not know. Nothing is permitted under them.
    unknown: tuple[tuple[str, Any], ...] = ()


UNRESTRICTED = Grant()
KNOWN = frozenset(field.name for field in fields(Grant)) - {"unknown"}


class GrantField(models.JSONField):
    """Stores a `Grant` as JSON. It fails closed: `access.check_grant` allows nothing under an unknown restriction."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("default", Grant)
        super().__init__(*args, **kwargs)

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Grant | None:
        stored = super().from_db_value(value, expression, connection)
        # NULL comes from an outer join that matches no row.
        return None if stored is None else _from_json(stored)

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        return super().get_db_prep_value(to_json(value) if isinstance(value, Grant) else value, connection, prepared)

    def to_python(self, value: Any) -> Any:
        return value if isinstance(value, Grant) else _from_json(value)


def to_json(grant: Grant) -> dict[str, Any]:
    """Return only the restrictions in effect: an unrestricted credential is `{}`."""
    restrictions = {name: each for name, each in asdict(grant).items() if each != getattr(UNRESTRICTED, name)}
    unknown = restrictions.pop("unknown", ())
    return {**restrictions, **dict(unknown)}


def _from_json(stored: Mapping[str, Any]) -> Grant:
    known = {name: value for name, value in stored.items() if name in KNOWN}
    return Grant(**known, unknown=tuple((name, value) for name, value in stored.items() if name not in KNOWN))
