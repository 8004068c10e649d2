"""Seeds the demo site, which `make run` and `make demo` use. Idempotent."""

import hashlib
import hmac
from base64 import b64encode

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction

from core.signing import WEBHOOK_SECRET_PREFIX
from devstack.card import SeededSite
from inference.models import ProviderAccount, Route, RouteTarget
from providers.types import Dialect
from tenants.credentials import BASE62, HINT_LENGTH, KEY_PREFIX_LENGTH, KEY_RANDOM_LENGTH, hash_key
from tenants.models import Credential, CredentialKind, Site
from webhooks.models import Endpoint, EndpointSecret

DEMO_SLUG = "demo"
ADMIN_USER = "admin"
SIMULATOR_KEY = "sk-simulator"

#: Routes to the simulator: model name, and its targets in order.
ROUTES = {
    "nightdesk-demo": (("sim-openai", "gpt-4o-mini"), ("sim-anthropic", "claude-haiku-4-5")),
    "nightdesk-demo-embedding": (("sim-openai", "text-embedding-3-small"),),
}


def seed(receiver_url: str | None) -> SeededSite:
    """Create the demo site with its credentials, the simulator's providers and routes, and an administrator.

    The secrets are derived from SECRET_KEY, because stored API keys are hashes and could not be shown again.
    """
    demo = _seed_site(receiver_url)
    # Outside the transaction: hashing a password takes seconds on a busy machine, and Postgres aborts a transaction
    # that is idle for ten.
    _seed_admin(demo)
    return demo


@transaction.atomic
def _seed_site(receiver_url: str | None) -> SeededSite:
    site, _ = Site.objects.get_or_create(slug=DEMO_SLUG, defaults={"name": "Demo site"})
    demo = SeededSite(
        site_id=site.public_id,
        site_slug=site.slug,
        site_secret=f"nd_sig_{_derive('signing secret', 43)}",
        api_key=f"nd_{_derive('key prefix', KEY_PREFIX_LENGTH)}_{_derive('key', KEY_RANDOM_LENGTH)}",
        webhook_secret=WEBHOOK_SECRET_PREFIX + b64encode(_digest("webhook secret")).decode(),
        admin_user=ADMIN_USER,
        admin_password=_derive("admin password", 16),
    )
    _seed_credentials(site, demo)
    if receiver_url:
        _seed_endpoint(site, receiver_url, demo.webhook_secret)
    if settings.SIMULATOR_URL:
        _seed_simulator(settings.SIMULATOR_URL)
    return demo


def _derive(purpose: str, length: int) -> str:
    """Return letters and digits that depend on SECRET_KEY and the purpose only."""
    number = int.from_bytes(_digest(purpose))
    return "".join(BASE62[number // 62**place % 62] for place in range(length))


def _digest(purpose: str) -> bytes:
    return hmac.digest(settings.SECRET_KEY.encode(), f"demo site: {purpose}".encode(), hashlib.sha256)


def _seed_credentials(site: Site, demo: SeededSite) -> None:
    secrets_now = [bytes(c.secret).decode() for c in site.credentials.filter(kind=CredentialKind.SIGNING_SECRET)]
    if demo.site_secret not in secrets_now:
        Credential.objects.create(
            site=site,
            kind=CredentialKind.SIGNING_SECRET,
            secret=demo.site_secret.encode(),
            hint=demo.site_secret[-HINT_LENGTH:],
        )
    Credential.objects.get_or_create(
        key_prefix=demo.api_key.split("_")[1],
        defaults={
            "site": site,
            "kind": CredentialKind.API_KEY,
            "key_hash": hash_key(demo.api_key),
            "hint": demo.api_key[-HINT_LENGTH:],
        },
    )


def _seed_admin(demo: SeededSite) -> None:
    user, _ = User.objects.get_or_create(username=ADMIN_USER, defaults={"is_staff": True, "is_superuser": True})
    if not user.check_password(demo.admin_password):
        user.set_password(demo.admin_password)
        user.save()


def _seed_endpoint(site: Site, url: str, secret: str) -> None:
    """Point the demo endpoint at the receiver, whose port may differ at each start."""
    endpoint, _ = Endpoint.objects.update_or_create(
        site=site, description="Demo receiver", defaults={"url": url, "is_enabled": True, "disabled_reason": ""}
    )
    if secret not in [bytes(row.secret).decode() for row in endpoint.secrets.all()]:
        EndpointSecret.objects.create(endpoint=endpoint, secret=secret.encode())


def _seed_simulator(url: str) -> None:
    providers = {
        "sim-openai": _seed_provider("sim-openai", Dialect.OPENAI, f"{url}/v1", "openai"),
        "sim-anthropic": _seed_provider("sim-anthropic", Dialect.ANTHROPIC, url, "anthropic"),
    }
    for model, targets in ROUTES.items():
        route, _ = Route.objects.get_or_create(model=model)
        for position, (provider, upstream_model) in enumerate(targets, 1):
            RouteTarget.objects.get_or_create(
                route=route,
                provider=providers[provider],
                upstream_model=upstream_model,
                defaults={"position": position},
            )


def _seed_provider(name: str, dialect: Dialect, base_url: str, price_list: str) -> ProviderAccount:
    provider, _ = ProviderAccount.objects.update_or_create(
        name=name,
        defaults={
            "dialect": dialect,
            "base_url": base_url,
            "price_list": price_list,
            "api_key": SIMULATOR_KEY.encode(),
            "key_hint": SIMULATOR_KEY[-4:],
        },
    )
    return provider
