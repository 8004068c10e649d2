#!/usr/bin/env python3
"""Run a management command. While `make run` is up in this checkout, it talks to that desk."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
# Behind the standard library, whose own `platform` must win.
sys.path.append(str(ROOT / "platform"))

from django.core.management import execute_from_command_line  # noqa: E402 (the path comes first)

from core.database_threads import DATABASE_UNAVAILABLE  # noqa: E402
from nightdesk import env  # noqa: E402

if __name__ == "__main__":
    env.adopt_local_stack(ROOT / ".nightdesk" / "environment.json")
    env.use_settings("nightdesk.settings")
    try:
        execute_from_command_line(sys.argv)
    except DATABASE_UNAVAILABLE as error:
        sys.exit(f"The database does not answer ({error}). Start `make run` in this folder, or set DATABASE_URL.")
