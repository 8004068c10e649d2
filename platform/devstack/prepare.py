"""Prepares a desk's database: checks the settings, migrates the tables, seeds the demo site.

    python -m devstack.prepare [--receiver-url URL]     prints the demo site as one JSON object

Safe to repeat. One process does all three, because loading Django takes longer than they do.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

import django
from django.core.management import call_command

from nightdesk import env
from nightdesk.checks import check_settings

env.use_settings("nightdesk.settings")
django.setup()

# After the setup, because it imports models.
from devstack.demo_site import seed  # noqa: E402


def main(arguments: Sequence[str]) -> int:
    receiver_url = _parse(arguments).receiver_url
    if problems := [message for message in check_settings() if message.is_serious()]:
        print(*problems, sep="\n", file=sys.stderr)
        return 1
    call_command("migrate", interactive=False, stdout=sys.stderr)
    print(json.dumps(asdict(seed(receiver_url))))
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="devstack.prepare")
    parser.add_argument("--receiver-url", help="where the demo site's webhooks go")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
