"""Makes a desk's database ready: settings looked at, tables migrated, the demo site seeded.

    python -m devstack.prepare [--receiver-url URL]     prints the demo site as one JSON object

In one process, for to load Django takes longer than all three.
"""

import sys
from collections.abc import Sequence

import django
from django.core.management import call_command

from nightdesk import env
from nightdesk.checks import check_settings


def main(arguments: Sequence[str]) -> int:
    env.use_settings("nightdesk.settings")
    django.setup()
    if problems := [message for message in check_settings() if message.is_serious()]:
        print(*problems, sep="\n", file=sys.stderr)
        return 1
    call_command("migrate", interactive=False, stdout=sys.stderr)
    call_command("seed_demo", "--json", *arguments)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
