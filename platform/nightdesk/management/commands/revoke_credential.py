"""`manage.py revoke_credential`: revoke a signing secret or API key within a second."""

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from tenants.cached_lookups import find_credential_row
from tenants.credentials import revoke


class Command(BaseCommand):
    help = "Revoke a signing secret or API key; every process rejects it within a second."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("credential", help="the credential's id (key_…), as the admin shows it")
        parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")

    def handle(self, *args: Any, **options: Any) -> None:
        credential = find_credential_row(options["credential"])
        if credential is None:
            raise CommandError(f"There is no credential {options['credential']!r}. Pass its id (key_…).")
        changed = revoke(credential)
        if options["json"]:
            self.stdout.write(json.dumps({"credential_id": credential.public_id, "revoked_now": changed}))
        else:
            self.stdout.write(
                f"{credential.public_id} is revoked." if changed else f"{credential.public_id} was already revoked."
            )
