"""Many worker processes that die at their crash point: one process loads everything and forks them.

    python -m tests.chaos.doomed RECRUITS.json

Prints a line of JSON for each that has exited. Healthy workers start when the others are dead, and keep running.
"""

import asyncio
import json
import os
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import django
import uvloop
from django.conf import settings

from nightdesk import env

env.use_settings("nightdesk.settings")
django.setup()

from core import crash  # noqa: E402 (the models need the setup)
from core.crash import read_crash_at  # noqa: E402
from jobs.tasks import bell as jobs_bell  # noqa: E402
from jobs.worker.engine import JobEngine  # noqa: E402
from tests.chaos.recruits import Recruit  # noqa: E402
from webhooks.courier import Courier  # noqa: E402
from webhooks.tasks import bell as webhooks_bell  # noqa: E402

#: Number of processes that share one Postgres.
CONNECTIONS = 3
#: More would starve each other of processor time and lose their leases.
AT_ONCE = 8


def main() -> int:
    recruits = [Recruit(**found) for found in json.loads(Path(sys.argv[1]).read_text())]
    _live([recruit for recruit in recruits if recruit.crash_at])
    _live([recruit for recruit in recruits if not recruit.crash_at])
    return 0


def _live(waiting: list[Recruit]) -> None:
    """Fork them a few at a time, and report each that exits, until all have."""
    children: dict[int, Recruit] = {}
    while waiting or children:
        while waiting and _has_room(waiting[0], children.values()):
            recruit = waiting.pop(0)
            children[_fork(recruit)] = recruit
        pid, status = os.wait()
        end = {"name": children.pop(pid).name, "code": os.waitstatus_to_exitcode(status)}
        print(json.dumps(end), flush=True)


def _has_room(recruit: Recruit, others: Collection[Recruit]) -> bool:
    if recruit.is_alone or any(other.is_alone for other in others):
        return not others
    return len(others) < AT_ONCE


def _fork(recruit: Recruit) -> int:
    if pid := os.fork():
        return pid
    # Its log must not come between the lines of its parent.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    settings.JOB_QUEUES = list(recruit.queues)
    options: Any = settings.DATABASES["default"]["OPTIONS"]
    options["pool"]["max_size"] = CONNECTIONS
    crash.arm(read_crash_at(recruit.crash_at))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_work(recruit))
    os._exit(0)


async def _work(recruit: Recruit) -> None:
    engine = JobEngine()
    working = asyncio.create_task(engine.run())
    await asyncio.sleep(0)
    jobs_bell.set_listener(engine.wake)
    if recruit.deliveries:
        courier = Courier(slots=recruit.deliveries)
        delivering = asyncio.create_task(courier.run())
        await asyncio.sleep(0)
        webhooks_bell.set_listener(courier.wake)
        await asyncio.gather(working, delivering)
    else:
        webhooks_bell.set_listener(lambda: None)
        await working


if __name__ == "__main__":
    raise SystemExit(main())
