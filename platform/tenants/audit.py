"""The audit log: who did what to whom."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tenants.models import AuditEntry, Site


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: a user of the admin with an address, or a command."""

    name: str
    address: str | None = None


#: Whoever sits at the shell of the machine.
COMMAND_LINE = Actor("command line")


def audit(
    actor: Actor, action: str, subject: str, site: Site | None = None, details: Mapping[str, Any] | None = None
) -> None:
    """Write one entry. Call it in the transaction of the act: both are kept, or neither. Never pass a secret."""
    AuditEntry.objects.create(
        actor=actor.name[:150],
        action=action,
        subject=subject[:100],
        site=site,
        details=dict(details or {}),
        address=actor.address,
    )
