"""The restrictions of a credential on one request: one value, from authentication to the stored row."""

from dataclasses import asdict, dataclass
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


UNRESTRICTED = Grant()


class GrantField(models.JSONField):
    """Stores a `Grant` as JSON. It fails closed: an unknown restriction raises `TypeError` when it is read."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("default", Grant)
        super().__init__(*args, **kwargs)

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Grant | None:
        stored = super().from_db_value(value, expression, connection)
        # NULL comes from an outer join that matches no row.
        return None if stored is None else Grant(**stored)

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        return super().get_db_prep_value(_to_json(value), connection, prepared)

    def to_python(self, value: Any) -> Any:
        return value if isinstance(value, Grant) else Grant(**value)


def _to_json(value: Any) -> Any:
    """Return only the restrictions in effect, so that an unrestricted credential is stored as `{}`."""
    if not isinstance(value, Grant):
        return value
    return {name: each for name, each in asdict(value).items() if each != getattr(UNRESTRICTED, name)}
