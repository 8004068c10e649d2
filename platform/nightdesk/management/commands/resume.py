"""`manage.py resume`: resume a paused site, queue or batch."""

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from jobs.pauses import resume
from nightdesk.management.pause_target import add_scope, read_scope, scope_label, scope_to_json
from tenants.audit import COMMAND_LINE


class Command(BaseCommand):
    help = "Resume a paused site, queue or batch."

    def add_arguments(self, parser: CommandParser) -> None:
        add_scope(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        scope = read_scope(options)
        resumed = resume(scope, COMMAND_LINE)
        if options["json"]:
            self.stdout.write(json.dumps({**scope_to_json(scope), "resumed_now": resumed}))
        elif resumed:
            self.stdout.write(f"Resumed the {scope_label(scope)}.")
        else:
            self.stdout.write(f"The {scope_label(scope)} was not paused.")
