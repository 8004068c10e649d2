"""Hold back a site, a queue or a batch."""

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from core.display import moment
from jobs.errors import BatchEnded
from jobs.pauses import LONGEST_REASON, Paused, Scope, pause
from nightdesk.management.scope import add_scope, read_scope, to_option, to_shown, to_words
from tenants.audit import COMMAND_LINE


class Command(BaseCommand):
    help = "Begin no more jobs of a site, a queue or a batch. What runs goes on; what is posted waits."

    def add_arguments(self, parser: CommandParser) -> None:
        add_scope(parser)
        parser.add_argument("--reason", default="", help="why, for who finds it paused")

    def handle(self, *args: Any, **options: Any) -> None:
        scope, reason = read_scope(options), options["reason"]
        if len(reason) > LONGEST_REASON:
            raise CommandError(f"A reason has at most {LONGEST_REASON} characters; this one has {len(reason)}.")
        try:
            paused = pause(scope, COMMAND_LINE, reason)
        except BatchEnded as error:
            raise CommandError(str(error)) from error
        self.stdout.write(_json(scope, paused) if options["json"] else _sentence(scope, paused))


def _json(scope: Scope, paused: Paused) -> str:
    row = paused.pause
    facts = {"since": row.created_at.isoformat(), "by": row.actor, "reason": row.reason, "paused_now": paused.is_new}
    return json.dumps({**to_shown(scope), **facts})


def _sentence(scope: Scope, paused: Paused) -> str:
    row = paused.pause
    if paused.is_new:
        said = f"Paused the {to_words(scope)}: what runs goes on, nothing more is begun."
    else:
        why = f" ({row.reason})" if row.reason else ""
        said = f"The {to_words(scope)} is paused since {moment(row.created_at)}, by {row.actor}{why}."
    return f"{said}\nLet it go on: manage.py resume {to_option(scope)}"
