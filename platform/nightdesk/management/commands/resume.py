"""Let a paused site, queue or batch go on."""

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from jobs.pauses import resume
from nightdesk.management.scope import add_scope, read_scope, to_shown, to_words
from tenants.audit import COMMAND_LINE


class Command(BaseCommand):
    help = "Let a paused site, queue or batch go on."

    def add_arguments(self, parser: CommandParser) -> None:
        add_scope(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        scope = read_scope(options)
        resumed = resume(scope, COMMAND_LINE)
        if options["json"]:
            self.stdout.write(json.dumps({**to_shown(scope), "resumed_now": resumed}))
        elif resumed:
            self.stdout.write(f"The {to_words(scope)} goes on.")
        else:
            self.stdout.write(f"The {to_words(scope)} was not paused.")
