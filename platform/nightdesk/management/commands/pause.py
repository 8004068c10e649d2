"""`manage.py pause`: pause a site, a queue or a batch."""

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from core.humanize import format_moment
from jobs.errors import BatchEnded
from jobs.pauses import MAX_REASON_LENGTH, PauseResult, PauseScope, pause
from nightdesk.management.pause_target import add_scope, read_scope, scope_label, scope_to_json, scope_to_option
from tenants.audit import COMMAND_LINE


class Command(BaseCommand):
    help = "Pause a site, a queue or a batch: its queued and new jobs wait, running jobs finish."

    def add_arguments(self, parser: CommandParser) -> None:
        add_scope(parser)
        parser.add_argument("--reason", default="", help="reason, shown to other operators")

    def handle(self, *args: Any, **options: Any) -> None:
        scope, reason = read_scope(options), options["reason"]
        if len(reason) > MAX_REASON_LENGTH:
            raise CommandError(f"The reason has {len(reason)} characters; at most {MAX_REASON_LENGTH} are allowed.")
        try:
            paused = pause(scope, COMMAND_LINE, reason)
        except BatchEnded as error:
            raise CommandError(str(error)) from error
        self.stdout.write(_json(scope, paused) if options["json"] else _sentence(scope, paused))


def _json(scope: PauseScope, paused: PauseResult) -> str:
    row = paused.pause
    facts = {"since": row.created_at.isoformat(), "by": row.actor, "reason": row.reason, "paused_now": paused.is_new}
    return json.dumps({**scope_to_json(scope), **facts})


def _sentence(scope: PauseScope, paused: PauseResult) -> str:
    row = paused.pause
    if paused.is_new:
        text = f"Paused the {scope_label(scope)}: running jobs finish, no more are started."
    else:
        why = f" ({row.reason})" if row.reason else ""
        text = f"The {scope_label(scope)} has been paused since {format_moment(row.created_at)}, by {row.actor}{why}."
    return f"{text}\nTo resume: manage.py resume {scope_to_option(scope)}"
