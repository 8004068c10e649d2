"""The audit log: which actor did what to which subject."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tenants.models import AuditEntry, Site


@dataclass(frozen=True, slots=True)
class Actor:
    """A user of the admin with an address, or a command."""

    name: str
    address: str | None = None


#: An operator at a shell of the machine.
COMMAND_LINE = Actor("command line")


def audit(
    actor: Actor, action: str, subject: str, site: Site | None = None, details: Mapping[str, Any] | None = None
) -> None:
    """Write one entry, in the transaction of the action, so that both are committed or neither. Never pass a secret."""
    AuditEntry.objects.create(
        actor=actor.name[:150],
        action=action,
        subject=subject[:100],
        site=site,
        details=dict(details or {}),
        address=actor.address,
    )
