"""`manage.py seed_demo`: make the demo site of the local stack."""

from dataclasses import asdict
from typing import Any

import msgspec
from django.core.management.base import BaseCommand, CommandParser

from devstack.demo_site import seed


class Command(BaseCommand):
    help = "Make the demo site, its credentials, an administrator and the simulator's routes. Harmless to repeat."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--receiver-url", help="where the demo site's webhooks go")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *_: Any, receiver_url: str | None, json: bool, **__: Any) -> None:
        demo = asdict(seed(receiver_url))
        if json:
            self.stdout.write(msgspec.json.encode(demo).decode())
            return
        for name, value in demo.items():
            self.stdout.write(f"{name:15} {value}")
