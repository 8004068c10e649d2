"""A whole desk for a bench: real processes on free ports, with data that nobody misses."""

import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from nightdesk import env
from nightdesk.local.card import Card
from nightdesk.local.ports import Ports, free_port
from nightdesk.local.postgres_home import leave_no_trace
from nightdesk.local.stack import bring_up, make_plan
from nightdesk.local.supervisor import Supervisor
from nightdesk.local.wishes import Wishes, only_the_systems


@asynccontextmanager
async def running_desk(settings: Mapping[str, str]) -> AsyncIterator[Card]:
    """Bring up a desk with these settings; its data is durable, as in production."""
    with tempfile.TemporaryDirectory(prefix="nightdesk-bench-") as folder, Ports() as ports:
        wishes = Wishes(free_port(), own_servers=False)
        plan = make_plan(Path(folder), wishes, ports)
        supervisor = Supervisor(lambda name, line: None)
        try:
            yield await bring_up(supervisor, plan, {**only_the_systems(env.merged({})), **settings})
        finally:
            await supervisor.stop()
            leave_no_trace(plan.folder / "postgres")
