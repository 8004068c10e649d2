"""A `DatabaseThreadPool` that records its calls, can hold them back, and can be without Postgres."""

import asyncio
from collections.abc import Callable
from typing import Any

from django.db import OperationalError

from core.database_threads import DatabaseThreadPool


class CountingThreads(DatabaseThreadPool):
    def __init__(self) -> None:
        super().__init__("counting", 2)
        #: The names of the functions that were run.
        self.calls: list[str] = []
        #: Calls wait until it is set.
        self.open = asyncio.Event()
        self.open.set()
        self.is_unavailable = False

    async def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.calls.append(function.__name__)
        await self.open.wait()
        if self.is_unavailable:
            raise OperationalError
        return await super().run(function, *args, **kwargs)
