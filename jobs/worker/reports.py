"""What the worker processes report of themselves at each heartbeat."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models.functions import Now

from jobs.models import WorkerLease
from tenants.models import Site


@dataclass(frozen=True, slots=True)
class RetryBudgetReport:
    """A retry budget's last minute in one worker process."""

    worker: str
    #: `site` or `provider`.
    scope: str
    #: A site's slug, or a provider's name.
    name: str
    first_tries: int
    retries: int
    #: Retries that were put off.
    refused: int


def live_retry_budgets() -> list[RetryBudgetReport]:
    """Return the retry budgets of all live workers that were asked for a retry, the most refused first."""
    return retry_budgets_of(WorkerLease.objects.filter(expires_at__gt=Now()))


def retry_budgets_of(leases: Iterable[WorkerLease]) -> list[RetryBudgetReport]:
    """Return the retry budgets that these workers reported, the most refused first."""
    reported = [(str(lease), each) for lease in leases for each in _reported_budgets(lease)]
    slugs = _slugs(each["name"] for _, each in reported if each.get("scope") == "site")
    found = [_to_report(worker, each, slugs) for worker, each in reported]
    return sorted(found, key=lambda each: (-each.refused, -each.retries, each.worker, each.scope, each.name))


def count_deferred_retries(budgets: Sequence[RetryBudgetReport]) -> int:
    """Return how many retries were put off for a site's or a provider's sake, none counted twice.

    A retry that neither budget has room for is refused by both, so the larger of the two sums is what is certain.
    """
    return max(
        sum(each.refused for each in budgets if each.scope == "site"),
        sum(each.refused for each in budgets if each.scope == "provider"),
    )


def slots_of(lease: WorkerLease) -> int | None:
    """Return how many jobs the worker takes at once; None before its first heartbeat."""
    slots = lease.report.get("slots")
    return slots if isinstance(slots, int) else None


def _reported_budgets(lease: WorkerLease) -> list[Mapping[str, Any]]:
    return list(lease.report.get("retry_budgets") or ())


def _slugs(ids: Iterable[str]) -> dict[str, str]:
    wanted = {UUID(each) for each in ids}
    if not wanted:
        return {}
    return {str(site_id): slug for site_id, slug in Site.objects.filter(id__in=wanted).values_list("id", "slug")}


def _to_report(worker: str, reported: Mapping[str, Any], slugs: Mapping[str, str]) -> RetryBudgetReport:
    name = slugs.get(reported["name"], reported["name"])
    return RetryBudgetReport(
        worker, reported["scope"], name, reported["first_tries"], reported["retries"], reported["refused"]
    )
