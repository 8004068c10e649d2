"""Prolongs what running requests hold in the admission, so that a killed process holds nothing for long.

And lets go of accounts that were opened for requests which nobody runs: Redis let them in, and its answer never came.
Left alone they would be closed as lost calls once this process has ended, and nobody made these calls.
"""

import asyncio
from contextlib import suppress

import structlog
from django.conf import settings
from redis.asyncio import Redis

from core.redis import RedisUnavailable
from tenants.rate_limiting.admission import delete_open_calls, open_request_ids, renew
from tenants.rate_limiting.types import AdmissionRequest, RequestLease, to_lease

log = structlog.get_logger(__name__)

#: A lease is renewed so many times before it ends.
RENEWALS_PER_LEASE = 3


class RequestLeases:
    """Those of one process."""

    def __init__(self, server: Redis, process: str) -> None:
        self._server = server
        self._process = process
        self._held: dict[str, RequestLease] = {}
        #: Open accounts of no request that was held at the last look. It may have been on its way to us.
        self._orphan_candidates: set[str] = set()
        #: Whose accounts reached nobody: that they are open is all that is known of their calls.
        self._unrecorded: set[str] = set()
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._renew_forever(), name="live-leases")

    async def stop(self) -> None:
        """Prolong nothing any more. Nothing is on its way to us, so what is not held never will be."""
        if self._task is not None:
            self._task.cancel()
        with suppress(RedisUnavailable):
            await self._discard_orphaned_calls(immediately=True)

    def add(self, ask: AdmissionRequest) -> None:
        self._held[ask.request_id] = to_lease(ask)
        self._is_empty.clear()

    def release(self, request_id: str, *, is_recorded: bool = True) -> None:
        """Hold it no longer. One whose account is nowhere yet stays open, and is closed as lost."""
        self._held.pop(request_id, None)
        if not is_recorded:
            self._unrecorded.add(request_id)
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

    async def _renew_forever(self) -> None:
        while True:
            await asyncio.sleep(settings.LIVE_LEASE_SECONDS / RENEWALS_PER_LEASE)
            held = list(self._held.values())
            try:
                await renew(self._server, held, settings.LIVE_LEASE_SECONDS)
                await self._discard_orphaned_calls()
            except RedisUnavailable as error:
                log.warning("lease_renewal_failed", error=str(error), requests=len(held))

    async def _discard_orphaned_calls(self, *, immediately: bool = False) -> None:
        found = await open_request_ids(self._server, self._process)
        unheld = found - self._held.keys() - self._unrecorded
        await delete_open_calls(
            self._server, self._process, unheld if immediately else unheld & self._orphan_candidates
        )
        self._orphan_candidates = unheld
