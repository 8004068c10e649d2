"""`manage.py create_site`: create a site with its first signing secret and API key, and show them once."""

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from tenants.access import normalize_origin
from tenants.credentials import NewSite, create_site
from tenants.errors import ProvisioningError

CARD = """\
Site       {site_name}
id         {site_id}
slug       {site_slug}
secret     {site_secret}
API key    {api_key}

The secret and the key are not shown again. Replace them with `manage.py rotate_credential`."""


class Command(BaseCommand):
    help = "Create a site with a signing secret and an API key. Both are shown once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="name of the site, e.g. 'Corner Bakery'")
        parser.add_argument("--slug", help="short name of the site in tokens; derived from the name by default")
        parser.add_argument(
            "--origin",
            action="append",
            default=[],
            help="origin (https://…) allowed for browser requests (CORS); may be repeated",
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")

    def handle(self, *args: Any, **options: Any) -> None:
        origins = [_to_origin(text) for text in options["origin"]]
        try:
            created = create_site(options["name"], options["slug"], origins)
        except ProvisioningError as error:
            raise CommandError(str(error)) from error
        shown = to_json(created)
        self.stdout.write(json.dumps(shown) if options["json"] else CARD.format(**shown))


def _to_origin(text: str) -> str:
    if not (origin := normalize_origin(text)):
        raise CommandError(f"Not an origin such as https://example.com: {text[:60]!r}")
    return origin


def to_json(created: NewSite) -> dict[str, str]:
    """Return the site and its credentials for scripts."""
    return {
        "site_id": created.site.public_id,
        "site_slug": created.site.slug,
        "site_name": created.site.name,
        "site_secret": created.signing_secret.secret,
        "site_secret_id": created.signing_secret.credential.public_id,
        "api_key": created.api_key.secret,
        "api_key_id": created.api_key.credential.public_id,
    }
