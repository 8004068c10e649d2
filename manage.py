#!/usr/bin/env python3
"""Run a management command, with `platform/` on the path (behind the standard library)."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent / "platform"))

from django.core.management import execute_from_command_line  # noqa: E402 (the path comes first)

from nightdesk import env  # noqa: E402

if __name__ == "__main__":
    env.use_settings("nightdesk.settings")
    execute_from_command_line(sys.argv)
