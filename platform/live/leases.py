"""Renews the leases of running requests, so that a killed process holds reservations and keys only for a short time.

It also deletes orphaned open calls: records of a first call that Redis opened with an admission whose reply never
arrived. No request runs for them. Left there, they would be closed as lost calls when this process has ended, although
no call was made.
"""

import asyncio
from contextlib import suppress

import structlog
from django.conf import settings
from redis.asyncio import Redis

from core.redis import RedisUnavailable
from core.tasks import cancel_and_wait
from tenants.rate_limiting.admission import delete_open_calls, open_request_ids, renew
from tenants.rate_limiting.types import AdmissionRequest, RequestLease, to_lease

log = structlog.get_logger(__name__)

#: How often a lease is renewed during its time to live.
RENEWALS_PER_LEASE = 3


class RequestLeases:
    """The leases of one process."""

    def __init__(self, client: Redis, process_id: str) -> None:
        self._redis = client
        self._process_id = process_id
        self._held: dict[str, RequestLease] = {}
        #: Open calls that no request held at the last look. The reply to the admission may have been on its way.
        self._orphan_candidates: set[str] = set()
        #: Ended requests whose usage could not be recorded. The open call is the only record, so it stays.
        self._unrecorded: set[str] = set()
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._renew_forever(), name="live-leases")

    async def stop(self) -> None:
        """Renew nothing more. No admission is in flight now, so an open call that no request holds is orphaned."""
        await cancel_and_wait(self._task)
        with suppress(RedisUnavailable):
            await self._delete_orphaned_calls(immediately=True)

    def add(self, admission: AdmissionRequest) -> None:
        self._held[admission.request_id] = to_lease(admission)
        self._is_empty.clear()

    def release(self, request_id: str, *, is_recorded: bool = True) -> None:
        """Renew a request's lease no more. If its usage is not recorded, its open call stays, to be closed as lost."""
        self._held.pop(request_id, None)
        if not is_recorded:
            self._unrecorded.add(request_id)
        if not self._held:
            self._is_empty.set()

    async def wait_until_empty(self, seconds: float) -> None:
        """Wait until no request runs, at most this long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._is_empty.wait()

    async def _renew_forever(self) -> None:
        while True:
            await asyncio.sleep(settings.LIVE_LEASE_SECONDS / RENEWALS_PER_LEASE)
            held = list(self._held.values())
            try:
                await renew(self._redis, held, settings.LIVE_LEASE_SECONDS)
                await self._delete_orphaned_calls()
            except RedisUnavailable as error:
                log.warning("lease_renewal_failed", error=str(error), requests=len(held))

    async def _delete_orphaned_calls(self, *, immediately: bool = False) -> None:
        """Delete open calls that no request holds: those that were found twice in a row, or `immediately` all."""
        request_ids = await open_request_ids(self._redis, self._process_id)
        unheld = request_ids - self._held.keys() - self._unrecorded
        await delete_open_calls(
            self._redis, self._process_id, unheld if immediately else unheld & self._orphan_candidates
        )
        self._orphan_candidates = unheld
