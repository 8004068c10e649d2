"""The bridge from an event loop to blocking database code: a small thread pool."""

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from django.db import InterfaceError, OperationalError, close_old_connections, reset_queries

P = ParamSpec("P")
R = TypeVar("R")

#: What Django raises while Postgres is unavailable, its disk is full, or the connection broke. Retryable.
DATABASE_UNAVAILABLE = (OperationalError, InterfaceError)


class DatabaseThreadPool:
    """A few threads for blocking database work; each call gets a healthy connection and returns it to the pool."""

    def __init__(self, name: str, size: int) -> None:
        self._pool = ThreadPoolExecutor(size, thread_name_prefix=name)

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function in a thread of the pool, with the caller's log context, and return what it returns."""
        work = partial(contextvars.copy_context().run, run_with_connection, partial(function, *args, **kwargs))
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def close(self) -> None:
        """Wait for the calls in progress, and end the threads."""
        self._pool.shutdown(wait=True)


def run_with_connection(work: Callable[[], R]) -> R:
    """Do blocking work with a healthy connection to Postgres, and return it to the pool."""
    # With DEBUG on, Django records every statement until the next request begins; in these threads none ever does.
    reset_queries()
    close_old_connections()
    try:
        return work()
    finally:
        close_old_connections()
