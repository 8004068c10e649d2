"""Prolongs what running requests hold in the admission, so that a killed process holds nothing for long."""

import asyncio

import structlog
from django.conf import settings
from redis.asyncio import Redis

from core.redis import RedisAway
from tenants.admission.admission import renew
from tenants.admission.asks import Ask, Lease, lease_of

log = structlog.get_logger(__name__)

#: A lease is renewed so many times before it ends.
RENEWALS = 3


class Leases:
    """Those of one process."""

    def __init__(self, server: Redis) -> None:
        self._server = server
        self._held: dict[str, Lease] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep(), name="live-leases")

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def add(self, ask: Ask) -> None:
        self._held[ask.request_id] = lease_of(ask)

    def drop(self, request_id: str) -> None:
        self._held.pop(request_id, None)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(settings.LIVE_LEASE_SECONDS / RENEWALS)
            if held := list(self._held.values()):
                try:
                    await renew(self._server, held, settings.LIVE_LEASE_SECONDS)
                except RedisAway as error:
                    log.warning("leases_not_renewed", error=str(error), requests=len(held))
