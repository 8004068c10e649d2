"""Recent cost by site, and recent failures by provider, over all sites."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Count, Sum

from metering.models import UsageEvent, UsageOutcome
from metering.usage_records import CACHE_PROVIDER

FAILED_OUTCOMES = (UsageOutcome.ERROR, UsageOutcome.TIMEOUT, UsageOutcome.LOST)


@dataclass(frozen=True, slots=True)
class ProviderHealth:
    provider: str
    calls: int
    failed: int
    #: Classes of error, the most frequent first.
    errors: tuple[str, ...]


def cost_by_site(site_ids: Collection[UUID], since: datetime) -> Mapping[UUID, int]:
    """Return the cost of each site's calls since a moment, in pico-USD, billed or not."""
    calls = UsageEvent.objects.filter(site__in=site_ids, started_at__gte=since)
    summed = calls.order_by().values("site_id").annotate(cost=Sum("cost_pico_usd"))
    return {row["site_id"]: row["cost"] for row in summed}


def provider_health(since: datetime) -> list[ProviderHealth]:
    """Return the providers called since a moment, the one with the highest failure rate first."""
    calls = (
        UsageEvent.objects.filter(started_at__gte=since)
        .exclude(outcome=UsageOutcome.OPEN)
        .exclude(provider=CACHE_PROVIDER)
    )
    counted = calls.order_by().values("provider", "outcome", "error_kind").annotate(count=Count("id"))
    made: Counter[str] = Counter()
    errors: dict[str, Counter[str]] = defaultdict(Counter)
    for row in counted:
        made[row["provider"]] += row["count"]
        if row["outcome"] in FAILED_OUTCOMES:
            errors[row["provider"]][row["error_kind"] or row["outcome"]] += row["count"]
    found = [
        ProviderHealth(name, calls, errors[name].total(), tuple(kind for kind, _ in errors[name].most_common(3)))
        for name, calls in made.items()
    ]
    return sorted(found, key=lambda each: (-each.failed / each.calls, each.provider))
