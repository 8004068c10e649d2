"""Prolongs what running requests hold in the admission, so that a killed process holds nothing for long.

And lets go of accounts that were opened for requests which nobody runs: Redis let them in, and its answer never came.
Left alone they would be closed as lost calls once this process has ended, and nobody made these calls.
"""

import asyncio
from contextlib import suppress

import structlog
from django.conf import settings
from redis.asyncio import Redis

from core.redis import RedisAway
from tenants.admission.admission import forget_open, open_requests, renew
from tenants.admission.asks import Ask, Lease, lease_of

log = structlog.get_logger(__name__)

#: A lease is renewed so many times before it ends.
RENEWALS = 3


class Leases:
    """Those of one process."""

    def __init__(self, server: Redis, process: str) -> None:
        self._server = server
        self._process = process
        self._held: dict[str, Lease] = {}
        #: Open accounts of no request that was held at the last look. It may have been on its way to us.
        self._unheld: set[str] = set()
        #: Whose accounts reached nobody: that they are open is all that is known of their calls.
        self._unaccounted: set[str] = set()
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep(), name="live-leases")

    async def stop(self) -> None:
        """Prolong nothing any more. Nothing is on its way to us, so what is not held never will be."""
        if self._task is not None:
            self._task.cancel()
        with suppress(RedisAway):
            await self._forget_unheld(at_once=True)

    def add(self, ask: Ask) -> None:
        self._held[ask.request_id] = lease_of(ask)
        self._is_empty.clear()

    def drop(self, request_id: str, *, is_accounted: bool = True) -> None:
        """Hold it no longer. One whose account is nowhere yet stays open, and is closed as lost."""
        self._held.pop(request_id, None)
        if not is_accounted:
            self._unaccounted.add(request_id)
        if not self._held:
            self._is_empty.set()

    @property
    def held(self) -> int:
        """How many requests run."""
        return len(self._held)

    async def wait_until_empty(self, seconds: float) -> None:
        """Wait until nothing runs any more, but no longer than this."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._is_empty.wait()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(settings.LIVE_LEASE_SECONDS / RENEWALS)
            held = list(self._held.values())
            try:
                await renew(self._server, held, settings.LIVE_LEASE_SECONDS)
                await self._forget_unheld()
            except RedisAway as error:
                log.warning("leases_not_renewed", error=str(error), requests=len(held))

    async def _forget_unheld(self, *, at_once: bool = False) -> None:
        found = await open_requests(self._server, self._process)
        unheld = found - self._held.keys() - self._unaccounted
        await forget_open(self._server, self._process, unheld if at_once else unheld & self._unheld)
        self._unheld = unheld
