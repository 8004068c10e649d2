"""Prepares a campaign's database: tables, sites with keys and endpoints, a route for every upstream behaviour.

python -m tests.chaos.seed RECEIVER_URL     prints the sites as one JSON list
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict

import django
from django.conf import settings
from django.core.management import call_command

from nightdesk import env

env.use_settings("nightdesk.settings")
django.setup()

from inference.models import ProviderAccount, Route, RouteTarget  # noqa: E402 (the models need the setup)
from tenants.credentials import create_site  # noqa: E402
from tests.chaos import plan  # noqa: E402
from tests.chaos.desk import SeededSite  # noqa: E402
from webhooks.endpoints import create_endpoint  # noqa: E402


def main(receiver_url: str) -> int:
    call_command("migrate", interactive=False, stdout=sys.stderr)
    _seed_routes(_seed_providers())
    print(json.dumps([asdict(_seed_site(number, receiver_url)) for number in range(plan.SITES)]))
    return 0


def _seed_site(number: int, receiver_url: str) -> SeededSite:
    made = create_site(f"Chaos {number}")
    if number == plan.CAPPED_SITE:
        made.site.max_running_jobs = plan.SITE_CAP
        made.site.save(update_fields=["max_running_jobs"])
    _, secret = create_endpoint(made.site, receiver_url)
    return SeededSite(str(made.site.id), made.api_key.secret, secret)


def _seed_providers() -> Mapping[str, ProviderAccount]:
    url, key = settings.SIMULATOR_URL, b"sk-simulator"
    openai = ProviderAccount(name="sim-openai", dialect="openai", base_url=f"{url}/v1", price_list="openai")
    anthropic = ProviderAccount(name="sim-anthropic", dialect="anthropic", base_url=url, price_list="anthropic")
    for provider in (openai, anthropic):
        provider.api_key = key
        provider.save()
    return {provider.name: provider for provider in (openai, anthropic)}


def _seed_routes(providers: Mapping[str, ProviderAccount]) -> None:
    for kind in plan.KINDS:
        for temper in plan.Temper:
            route = Route.objects.create(model=plan.model_of(kind, temper))
            for position, (provider, model) in enumerate(plan.upstreams(kind, temper), 1):
                RouteTarget.objects.create(
                    route=route, provider=providers[provider], upstream_model=model, position=position
                )


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
