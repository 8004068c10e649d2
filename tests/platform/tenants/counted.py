"""Threads that do what real ones do, and say what they were asked."""

import asyncio
from collections.abc import Callable
from typing import Any

from django.db import OperationalError

from core.database_threads import DatabaseThreadPool


class Counted(DatabaseThreadPool):
    """Threads that count what they are asked, may wait before they do it, and may find Postgres away."""

    def __init__(self) -> None:
        super().__init__("live-proof", 2)
        self.asked: list[str] = []
        self.open = asyncio.Event()
        self.open.set()
        self.is_away = False

    async def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.asked.append(function.__name__)
        await self.open.wait()
        if self.is_away:
            raise OperationalError
        return await super().run(function, *args, **kwargs)
