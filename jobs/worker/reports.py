"""Reads the reports that workers store at each heartbeat: slots and retry budgets."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models.functions import Now

from jobs.models import WorkerLease
from tenants.models import Site


@dataclass(frozen=True, slots=True)
class RetryBudgetReport:
    """The last minute of a retry budget in one worker process."""

    worker: str
    #: `site` or `provider`.
    scope: str
    #: A site's slug, or a provider's name.
    name: str
    first_tries: int
    retries: int
    #: Retries that were deferred.
    refused: int


def live_retry_budgets() -> list[RetryBudgetReport]:
    """Return the retry budgets of all live workers in which retries were requested, most deferred first."""
    return retry_budgets_of(WorkerLease.objects.filter(expires_at__gt=Now()))


def retry_budgets_of(leases: Iterable[WorkerLease]) -> list[RetryBudgetReport]:
    """Return the retry budgets that these workers reported, most deferred first."""
    reported = [(str(lease), budget) for lease in leases for budget in _reported_budgets(lease)]
    slugs = _slugs(budget["name"] for _, budget in reported if budget.get("scope") == "site")
    reports = [_to_report(worker, budget, slugs) for worker, budget in reported]
    return sorted(reports, key=lambda each: (-each.refused, -each.retries, each.worker, each.scope, each.name))


def count_deferred_retries(budgets: Sequence[RetryBudgetReport]) -> int:
    """Return how many retries were deferred by the budgets of sites and providers; at least, and none counted twice.

    A retry that exceeds both budgets counts in both, so only the larger of the two sums is certain.
    """
    return max(
        sum(each.refused for each in budgets if each.scope == "site"),
        sum(each.refused for each in budgets if each.scope == "provider"),
    )


def slots_of(lease: WorkerLease) -> int | None:
    """Return how many jobs the worker runs concurrently; None before its first heartbeat."""
    slots = lease.report.get("slots")
    return slots if isinstance(slots, int) else None


def _reported_budgets(lease: WorkerLease) -> list[Mapping[str, Any]]:
    return list(lease.report.get("retry_budgets") or ())


def _slugs(ids: Iterable[str]) -> dict[str, str]:
    site_ids = {UUID(text) for text in ids}
    if not site_ids:
        return {}
    return {str(site_id): slug for site_id, slug in Site.objects.filter(id__in=site_ids).values_list("id", "slug")}


def _to_report(worker: str, reported: Mapping[str, Any], slugs: Mapping[str, str]) -> RetryBudgetReport:
    name = slugs.get(reported["name"], reported["name"])
    return RetryBudgetReport(
        worker, reported["scope"], name, reported["first_tries"], reported["retries"], reported["refused"]
    )
