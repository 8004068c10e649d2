"""The courier: the part of a worker process that carries deliveries out, many at once on the event loop."""

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from uuid import UUID

import httpx
import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError

from core import clock
from core.crash import CrashPoint, crash_point
from core.grouping import Grouped
from core.guarded_http import Interrupted, guarded_client
from core.ids import to_public
from core.threads import DatabaseThreads
from tenants.models import Site
from webhooks.claim import Claimed, claim_due
from webhooks.judge import Canceled, GaveUp, Outcome, RetryIn, judge
from webhooks.models import Delivery, Event
from webhooks.reach import webhook_reach
from webhooks.send import Exchange, prepare, send
from webhooks.settle import Settlement, give_back, settle_all

log = structlog.get_logger(__name__)

#: How long a courier sleeps when nobody rings.
POLL_SECONDS = 1.0
#: How long it leaves a database alone that does not answer: at first, and at most.
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 5.0
#: What a lease has beyond the attempt's deadline: time to write down what came of it.
MARGIN_SECONDS = 15.0
#: A worker is gone 30 s after it is told to stop, and its jobs come first; a slow receiver is asked again by another.
WIND_DOWN_SECONDS = 5.0
DATABASE_THREADS = 4
#: So many attempts are written down in one transaction at most.
LARGEST_GROUP = 100


class Courier:
    """Claims what is due while it has free slots, sends it, and writes down what came of it.

    For one `run`, at the end of which its client and its threads are closed.
    """

    def __init__(
        self,
        *,
        client: httpx.AsyncClient | None = None,
        threads: DatabaseThreads | None = None,
        slots: int | None = None,
        timeout_seconds: float | None = None,
        poll_seconds: float = POLL_SECONDS,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._client = client or guarded_client(webhook_reach())
        self._threads = threads or DatabaseThreads("courier", DATABASE_THREADS)
        self._settling = Grouped(self._settle_group, largest=LARGEST_GROUP, shared=(OperationalError, InterfaceError))
        self._slots = slots or settings.WEBHOOK_SLOTS
        self._timeout_seconds = timeout_seconds or settings.WEBHOOK_TIMEOUT_SECONDS
        self._lease = timedelta(seconds=self._timeout_seconds + MARGIN_SECONDS)
        self._poll_seconds = poll_seconds
        self._chance = chance
        self._under_way: dict[asyncio.Task[None], Claimed] = {}
        self._may_be_more = False
        self._woken = asyncio.Event()
        self._is_stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        #: How long to leave the database alone; None while it answers.
        self._outage_seconds: float | None = None

    def wake(self) -> None:
        """Look for due deliveries now. May be called from any thread, at any time."""
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # the loop has been closed since
                loop.call_soon_threadsafe(self._woken.set)

    def stop(self) -> None:
        """Claim nothing more, and let `run` come to its end. May be called from any thread, at any time."""
        self._is_stopping = True
        self.wake()

    async def run(self) -> None:
        """Deliver until told to stop, then end what is under way or give it back."""
        self._loop = asyncio.get_running_loop()
        try:
            while not self._is_stopping:
                self._woken.clear()
                await self._take()
                await self._pause()
        finally:
            await self._wind_down()

    async def _take(self) -> None:
        """Claim as many as there are free slots for, and set them going."""
        free = self._slots - len(self._under_way)
        self._may_be_more = free == 0
        if free == 0:
            return
        try:
            claims = await self._threads.run(claim_due, free, self._lease)
        except Exception as error:
            self._note_outage(error)
            return
        self._note_recovery()
        self._may_be_more = len(claims) == free
        for claimed in claims:
            task = asyncio.create_task(self._deliver(claimed))
            self._under_way[task] = claimed
            task.add_done_callback(self._free_slot)

    def _free_slot(self, task: asyncio.Task[None]) -> None:
        del self._under_way[task]
        if self._may_be_more:
            self._woken.set()

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._outage_seconds or self._poll_seconds):
                await self._woken.wait()

    # One delivery

    async def _deliver(self, claimed: Claimed) -> None:
        with structlog.contextvars.bound_contextvars(
            site=to_public(Site.ID_PREFIX, claimed.site_id),
            event_id=to_public(Event.ID_PREFIX, claimed.event_id),
            delivery=_public_id(claimed.delivery_id),
        ):
            outcome, exchange = await self._attempt(claimed)
            _log_outcome(claimed, outcome, exchange)
            await self._settle(claimed, outcome, exchange)

    async def _attempt(self, claimed: Claimed) -> tuple[Outcome, Exchange | None]:
        if not claimed.is_enabled:
            return Canceled("The endpoint was disabled."), None
        try:
            prepared = prepare(claimed, clock.unix_seconds())
            crash_point(CrashPoint.BEFORE_WEBHOOK)
            exchange = await send(prepared, self._client, self._timeout_seconds)
            crash_point(CrashPoint.AFTER_WEBHOOK)
        except Exception:  # the outermost of this delivery: it must not take the others along
            log.exception("delivery_broke")
            exchange = Exchange(Interrupted("Nightdesk could not make this attempt; its operator has been told."), 0)
        return self._judge(claimed, exchange), exchange

    def _judge(self, claimed: Claimed, exchange: Exchange) -> Outcome:
        try:
            return judge(exchange.answer, attempt=claimed.attempt, now=clock.now(), random=self._chance)
        except Exception:
            # Unjudged it would be sent again for ever, past the schedule, and leave no line in the delivery log.
            log.exception("delivery_unjudged")
            return GaveUp("Nightdesk could not make sense of the answer; its operator has been told.")

    async def _settle(self, claimed: Claimed, outcome: Outcome, exchange: Exchange | None) -> None:
        """Write it down, and keep trying while the database is away and the lease lasts."""
        loop = asyncio.get_running_loop()
        # The lease began before the attempt did, so this may be too late; the fence then says so.
        give_up_at = loop.time() + self._lease.total_seconds()
        while True:
            try:
                await self._settling.do(Settlement(claimed, outcome, exchange))
            except Exception as error:
                pause_seconds = self._note_outage(error)
                if loop.time() > give_up_at:
                    log.error("delivery_unsettled", error=type(error).__name__)
                    return
                await asyncio.sleep(pause_seconds)
            else:
                return

    async def _settle_group(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
        return await self._threads.run(settle_all, settlements)

    # Bad times

    def _note_outage(self, error: Exception) -> float:
        """Say it once, and return how long to wait; from then on ask less and less often."""
        if self._outage_seconds is None:
            log.error("courier_out", error=type(error).__name__, reason=str(error)[:200])
            self._outage_seconds = FIRST_PAUSE_SECONDS
        else:
            self._outage_seconds = min(self._outage_seconds * 2, LONGEST_PAUSE_SECONDS)
        return self._outage_seconds

    def _note_recovery(self) -> None:
        if self._outage_seconds is not None:
            log.info("courier_back")
        self._outage_seconds = None

    async def _wind_down(self) -> None:
        """Wait a little for what is under way; give the rest back."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=min(self._timeout_seconds, WIND_DOWN_SECONDS))
        late = dict(self._under_way)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        if late:
            await self._give_back(list(late.values()))
        await self._client.aclose()
        await asyncio.to_thread(self._threads.close)

    async def _give_back(self, claims: list[Claimed]) -> None:
        try:
            await self._threads.run(give_back, claims)
        except Exception as error:
            log.warning("deliveries_left_to_their_leases", count=len(claims), error=type(error).__name__)
        else:
            log.info("deliveries_given_back", count=len(claims))


def _public_id(delivery_id: UUID) -> str:
    return to_public(Delivery.ID_PREFIX, delivery_id)


def _log_outcome(claimed: Claimed, outcome: Outcome, exchange: Exchange | None) -> None:
    facts: dict[str, object] = {"attempt": claimed.attempt, "outcome": type(outcome).__name__}
    if exchange is not None:
        facts |= {"status": getattr(exchange.answer, "status", None), "ms": exchange.duration_ms}
    if reason := getattr(outcome, "reason", ""):
        facts["reason"] = reason
    if isinstance(outcome, RetryIn):
        facts["retry_seconds"] = round(outcome.delay.total_seconds())
    log.info("delivery_attempted", **facts)
