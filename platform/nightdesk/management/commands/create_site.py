"""Make a site with its first signing secret and API key, and show them once."""

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

The secret and the key are shown this once. Replace them with `manage.py rotate_credential`."""


class Command(BaseCommand):
    help = "Make a site with a signing secret and an API key, which are shown once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="the site's name, e.g. 'Corner Bakery'")
        parser.add_argument("--slug", help="the site's short name in tokens; made from the name if absent")
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
            made = create_site(options["name"], options["slug"], origins)
        except ProvisioningError as error:
            raise CommandError(str(error)) from error
        shown = to_json(made)
        self.stdout.write(json.dumps(shown) if options["json"] else CARD.format(**shown))


def _to_origin(text: str) -> str:
    if not (origin := normalize_origin(text)):
        raise CommandError(f"Not an origin like https://example.com: {text[:60]!r}")
    return origin


def to_json(made: NewSite) -> dict[str, str]:
    """Name what is shown, as scripts read it."""
    return {
        "site_id": made.site.public_id,
        "site_slug": made.site.slug,
        "site_name": made.site.name,
        "site_secret": made.signing_secret.secret,
        "site_secret_id": made.signing_secret.credential.public_id,
        "api_key": made.api_key.secret,
        "api_key_id": made.api_key.credential.public_id,
    }
