"""Which providers fail lately."""

from datetime import UTC, datetime

from metering import accounts
from metering.models import Outcome
from metering.overview import ProviderHealth, provider_health
from providers.types import Usage
from tenants.models import Site
from tests.platform.metering.entries import account


def test_an_answer_that_was_given_again_is_no_provider_s(site: Site) -> None:
    accounts.write(
        [
            account(site, 1),
            account(site, 2, outcome=Outcome.ERROR, error_kind="overloaded"),
            account(site, 3, provider=accounts.CACHE, upstream_model="", usage=Usage()),
        ]
    )

    assert provider_health(datetime(2026, 1, 1, tzinfo=UTC)) == [ProviderHealth("openai", 2, 1, ("overloaded",))]
