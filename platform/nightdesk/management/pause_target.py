"""The target of the commands `pause` and `resume`: a site, a queue or a batch."""

from typing import Any

from django.core.management.base import CommandError, CommandParser

from jobs.batches.read import find_batch_of_any_site
from jobs.models import Batch
from jobs.pauses import PauseScope, QueueName
from tenants.cached_lookups import find_site_row
from tenants.models import Site

QUEUES = " or ".join(QueueName)


def add_scope(parser: CommandParser) -> None:
    scope = parser.add_mutually_exclusive_group(required=True)
    scope.add_argument("--site", metavar="SLUG", help="a site: its slug or id (site_…)")
    scope.add_argument("--queue", metavar="NAME", help=f"a queue: {QUEUES}")
    scope.add_argument("--batch", metavar="ID", help="a batch: its id (batch_…)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def read_scope(options: dict[str, Any]) -> PauseScope:
    """Return the target. Raises `CommandError` if it does not exist."""
    if options["site"] is not None:
        return _read_site(options["site"])
    if options["batch"] is not None:
        return _read_batch(options["batch"])
    try:
        return QueueName(options["queue"])
    except ValueError:
        raise CommandError(f"There is no queue {options['queue']!r}. Pass {QUEUES}.") from None


def scope_label(scope: PauseScope) -> str:
    """Return the target in words: `site bakery`."""
    return " ".join(_kind_and_name(scope))


def scope_to_json(scope: PauseScope) -> dict[str, str]:
    """Return the target for scripts."""
    kind, name = _kind_and_name(scope)
    return {"scope": kind, "name": name}


def scope_to_option(scope: PauseScope) -> str:
    """Return the command-line option for the target."""
    kind, name = _kind_and_name(scope)
    return f"--{kind} {name}"


def _kind_and_name(scope: PauseScope) -> tuple[str, str]:
    match scope:
        case Site():
            return "site", scope.slug
        case Batch():
            return "batch", scope.public_id
        case _:
            return "queue", scope.value


def _read_site(name: str) -> Site:
    site = find_site_row(name)
    if site is None:
        raise CommandError(f"There is no site {name!r}. Pass its slug or its id (site_…).")
    return site


def _read_batch(public_id: str) -> Batch:
    batch = find_batch_of_any_site(public_id)
    if batch is None:
        raise CommandError(f"There is no batch {public_id!r}. Pass its id (batch_…).")
    return batch
