"""`manage.py rotate_credential`: replace a site's signing secret or API key, with an overlap while both work."""

import argparse
import json
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from tenants.cached_lookups import find_site_row
from tenants.credentials import IssuedCredential, rotate
from tenants.errors import ProvisioningError
from tenants.models import CredentialKind

KINDS = {"secret": CredentialKind.SIGNING_SECRET, "key": CredentialKind.API_KEY}


class Command(BaseCommand):
    help = "Issue a new signing secret or API key; the existing ones expire after the overlap."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("site", help="the site's slug or id (site_…)")
        parser.add_argument("kind", choices=sorted(KINDS), help="the kind of credential to replace")
        parser.add_argument(
            "--overlap-hours", type=_hours, default=24.0, help="how long the existing ones stay valid (24)"
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")

    def handle(self, *args: Any, **options: Any) -> None:
        site = find_site_row(options["site"])
        if site is None:
            raise CommandError(f"There is no site {options['site']!r}. Pass its slug or its id (site_…).")
        try:
            issued = rotate(site, KINDS[options["kind"]], timedelta(hours=options["overlap_hours"]))
        except ProvisioningError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(json.dumps(to_json(issued)) if options["json"] else _card(issued, options["overlap_hours"]))


def to_json(issued: IssuedCredential) -> dict[str, str]:
    """Return the credential for scripts."""
    return {
        "site_id": issued.credential.site.public_id,
        "credential_id": issued.credential.public_id,
        "kind": issued.credential.kind,
        "secret": issued.secret,
    }


def _card(issued: IssuedCredential, hours: float) -> str:
    return (
        f"{issued.credential.get_kind_display()} {issued.credential.public_id} (shown only once)\n{issued.secret}\n\n"
        f"The previous ones stay valid for {hours:g} more hours."
    )


def _hours(text: str) -> float:
    hours = float(text)
    if not 0 <= hours <= 24 * 365:
        raise argparse.ArgumentTypeError("must be between 0 and 8760 hours")
    return hours
