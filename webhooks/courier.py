"""The courier: the part of a worker process that delivers webhooks, many concurrently on the event loop.

claim (lease) ──▶ prepare (decrypt, sign) ──▶ send ──▶ judge ──▶ settle (fenced, in group commits)

Delivery is at least once: a courier that dies leaves its leases to expire, and another courier sends again.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from uuid import UUID

import httpx
import structlog
from django.conf import settings

from core import clock
from core.crash import CrashPoint, crash_point
from core.database_threads import DATABASE_UNAVAILABLE, DatabaseThreadPool
from core.group_commit import GroupCommitter
from core.ids import to_public
from core.ssrf_guard import ConnectionInterrupted, guarded_client
from core.supervised_loop import LoopSupervisor
from core.tasks import cancel_and_wait
from tenants.models import Site
from webhooks.claim import ClaimedDelivery, claim_due
from webhooks.judge import DeliveryCanceled, DeliveryExhausted, DeliveryOutcome, RetryDelivery, judge
from webhooks.models import Delivery, Event
from webhooks.network_policy import webhook_network_policy
from webhooks.send import DeliveryExchange, prepare, send
from webhooks.settle import DeliverySettlement, release, settle_all, state_after

log = structlog.get_logger(__name__)

#: Interval between claims while the doorbell does not ring.
POLL_SECONDS = 1.0
#: Backoff while the database is unavailable: the first wait, and the longest.
INITIAL_BACKOFF_SECONDS = 1.0
MAX_BACKOFF_SECONDS = 5.0
#: Lease time beyond the attempt's deadline, to record the outcome.
LEASE_MARGIN_SECONDS = 15.0
#: Graceful shutdown: how long attempts in flight may take to finish. A worker exits within 30 s, and its jobs need most
#: of that; another courier repeats what is released.
DRAIN_SECONDS = 5.0
DATABASE_THREADS = 4
#: Attempts that are recorded in one transaction, at most.
MAX_GROUP_SIZE = 100


class Courier:
    """Claims due deliveries while it has free slots, sends them, and records the outcomes.

    An instance serves one `run`, which closes its HTTP client and its threads at the end.
    """

    def __init__(
        self,
        *,
        client: httpx.AsyncClient | None = None,
        threads: DatabaseThreadPool | None = None,
        slots: int | None = None,
        timeout_seconds: float | None = None,
        poll_seconds: float = POLL_SECONDS,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self._client = client or guarded_client(webhook_network_policy())
        self._threads = threads or DatabaseThreadPool("courier", DATABASE_THREADS)
        self._settling = GroupCommitter(
            self._settle_group, max_group_size=MAX_GROUP_SIZE, group_errors=DATABASE_UNAVAILABLE
        )
        self._slots = slots or settings.WEBHOOK_SLOTS
        self._timeout_seconds = timeout_seconds or settings.WEBHOOK_TIMEOUT_SECONDS
        self._lease = timedelta(seconds=self._timeout_seconds + LEASE_MARGIN_SECONDS)
        self._poll_seconds = poll_seconds
        self._rng = rng
        self._in_flight: dict[asyncio.Task[None], ClaimedDelivery] = {}
        self._may_be_more = False
        self._woken = asyncio.Event()
        self._is_stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._supervisor = LoopSupervisor(
            unavailable_event="webhook_worker_database_unavailable",
            recovered_event="webhook_worker_database_recovered",
            outage_errors=DATABASE_UNAVAILABLE,
            backoff_seconds=(INITIAL_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS),
        )

    def wake(self) -> None:
        """Claim due deliveries now. May be called from any thread, at any time."""
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # the loop has been closed since
                loop.call_soon_threadsafe(self._woken.set)

    def stop(self) -> None:
        """Stop claiming, and let `run` return. May be called from any thread, at any time."""
        self._is_stopping = True
        self.wake()

    async def run(self) -> None:
        """Deliver until `stop` is called; then finish the attempts in flight, or release them."""
        self._loop = asyncio.get_running_loop()
        try:
            while not self._is_stopping:
                self._woken.clear()
                await self._claim()
                await self._wait()
        finally:
            await self._drain()

    async def _claim(self) -> None:
        """Claim a delivery for each free slot and start the attempts."""
        free = self._slots - len(self._in_flight)
        self._may_be_more = free == 0
        if free == 0:
            return
        claims = await self._supervisor.run(partial(self._threads.run, claim_due, free, self._lease))
        if claims is None:
            return
        self._may_be_more = len(claims) == free
        for claimed in claims:
            task = asyncio.create_task(self._deliver(claimed))
            self._in_flight[task] = claimed
            task.add_done_callback(self._free_slot)

    def _free_slot(self, task: asyncio.Task[None]) -> None:
        del self._in_flight[task]
        if self._may_be_more:
            self._woken.set()

    async def _wait(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._supervisor.pause_seconds(self._poll_seconds)):
                await self._woken.wait()

    # One delivery

    async def _deliver(self, claimed: ClaimedDelivery) -> None:
        with structlog.contextvars.bound_contextvars(
            site=to_public(Site.ID_PREFIX, claimed.site_id),
            event_id=to_public(Event.ID_PREFIX, claimed.event_id),
            delivery=_public_id(claimed.delivery_id),
        ):
            outcome, exchange = await self._attempt(claimed)
            _log_outcome(claimed, outcome, exchange)
            await self._settle(claimed, outcome, exchange)

    async def _attempt(self, claimed: ClaimedDelivery) -> tuple[DeliveryOutcome, DeliveryExchange | None]:
        if not claimed.is_enabled:
            return DeliveryCanceled("The endpoint was disabled."), None
        try:
            prepared = prepare(claimed, clock.unix_seconds())
            crash_point(CrashPoint.BEFORE_WEBHOOK)
            exchange = await send(prepared, self._client, self._timeout_seconds)
            crash_point(CrashPoint.AFTER_WEBHOOK)
        except Exception:  # the outermost handler of this delivery: others must not be affected
            log.exception("delivery_crashed")
            exchange = DeliveryExchange(
                ConnectionInterrupted("Internal error while sending this attempt; see the worker log."), 0
            )
        return self._judge(claimed, exchange), exchange

    def _judge(self, claimed: ClaimedDelivery, exchange: DeliveryExchange) -> DeliveryOutcome:
        try:
            return judge(exchange.response, attempt=claimed.attempt, now=clock.now(), random=self._rng)
        except Exception:
            # Without an outcome it would be sent again forever, ignoring the schedule, and leave no attempt in the log.
            log.exception("delivery_outcome_unknown")
            return DeliveryExhausted("Internal error while evaluating the response; see the worker log.")

    async def _settle(
        self, claimed: ClaimedDelivery, outcome: DeliveryOutcome, exchange: DeliveryExchange | None
    ) -> None:
        """Record the outcome; while the database is unavailable, retry until the lease expires."""
        loop = asyncio.get_running_loop()
        # The lease started before the attempt, so this deadline may be too late; the fence then rejects the write.
        deadline = loop.time() + self._lease.total_seconds()
        while True:
            try:
                await self._settling.submit(DeliverySettlement(claimed, outcome, exchange))
            except Exception as error:
                self._supervisor.on_failure(error)
                if loop.time() > deadline:
                    log.error("delivery_not_recorded", error=type(error).__name__)
                    return
                await asyncio.sleep(self._supervisor.pause_seconds(self._poll_seconds))
            else:
                return

    async def _settle_group(self, settlements: Sequence[DeliverySettlement]) -> Sequence[bool]:
        return await self._threads.run(settle_all, settlements)

    # Shutdown

    async def _drain(self) -> None:
        """Wait up to DRAIN_SECONDS for attempts in flight, then release the remaining ones."""
        if self._in_flight:
            await asyncio.wait(self._in_flight, timeout=min(self._timeout_seconds, DRAIN_SECONDS))
        late = dict(self._in_flight)
        await cancel_and_wait(*late)
        if late:
            await self._release(list(late.values()))
        await self._client.aclose()
        await asyncio.to_thread(self._threads.close)

    async def _release(self, claims: list[ClaimedDelivery]) -> None:
        try:
            await self._threads.run(release, claims)
        except Exception as error:
            is_outage = isinstance(error, DATABASE_UNAVAILABLE)
            log.warning(
                "deliveries_not_released",
                count=len(claims),
                error=type(error).__name__,
                exc_info=None if is_outage else error,
            )
        else:
            log.info("deliveries_released", count=len(claims))


def _public_id(delivery_id: UUID) -> str:
    return to_public(Delivery.ID_PREFIX, delivery_id)


def _log_outcome(claimed: ClaimedDelivery, outcome: DeliveryOutcome, exchange: DeliveryExchange | None) -> None:
    state, _, _ = state_after(outcome)
    facts: dict[str, object] = {"attempt": claimed.attempt, "outcome": str(state)}
    if exchange is not None:
        facts |= {"status": getattr(exchange.response, "status", None), "ms": exchange.duration_ms}
    if reason := getattr(outcome, "reason", ""):
        facts["reason"] = reason
    if isinstance(outcome, RetryDelivery):
        facts["retry_seconds"] = round(outcome.delay.total_seconds())
    log.info("delivery_attempted", **facts)
