"""Reports of recent failures by provider."""

from datetime import UTC, datetime

from metering import usage_records
from metering.models import UsageOutcome
from metering.reports import ProviderHealth, provider_health
from providers.types import Usage
from tenants.models import Site
from tests.platform.metering.entries import usage_record


def test_cache_hits_are_not_counted_as_calls_of_a_provider(site: Site) -> None:
    usage_records.write(
        [
            usage_record(site, 1),
            usage_record(site, 2, outcome=UsageOutcome.ERROR, error_kind="overloaded"),
            usage_record(site, 3, provider=usage_records.CACHE_PROVIDER, upstream_model="", usage=Usage()),
        ]
    )

    assert provider_health(datetime(2026, 1, 1, tzinfo=UTC)) == [ProviderHealth("openai", 2, 1, ("overloaded",))]
