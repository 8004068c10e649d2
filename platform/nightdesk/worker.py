"""What a worker process runs beside Celery: one event loop in a thread, with job engine, courier and drainer."""

import asyncio
import os
import threading
from collections.abc import Callable
from typing import Any

import structlog
import uvloop
from celery import bootsteps
from celery.worker.consumer import Consumer
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from core import crash, redis
from inference.breaker import Breakers
from jobs.engine import Engine
from jobs.tasks import bell as jobs_bell
from metering.drainer import Drainer
from nightdesk.interpreter import settle_in
from webhooks.courier import Courier
from webhooks.tasks import bell as webhooks_bell

log = structlog.get_logger(__name__)

#: How often Celery's loop looks whether it was told to stop. A loop that waits for a broker is not woken by a signal,
#: and for RabbitMQ it waits up to 10 s.
GLANCE_SECONDS = 0.5

#: What a stop may take beyond the draining, to give back jobs and to say goodbye to Postgres and the broker. By then a
#: worker is gone, whatever hangs: what it could not give back comes back with its lease.
GOODBYE_SECONDS = 10.0

#: EX_SOFTWARE of sysexits.h.
EXIT_CODE = 70

#: Pools whose tasks run in the process that has the engine: there the doorbell can be heard.
POOLS = ("celery.concurrency.thread", "celery.concurrency.solo")


class Listener(Consumer):  # type: ignore[misc] # Celery ships no types
    """Celery's consumer without what a doorbell has no use for.

    Workers that tell each other of themselves, and queues for delayed messages (28 on RabbitMQ), would cost messages,
    and rights to declare them.
    """

    class Blueprint(Consumer.Blueprint):  # type: ignore[misc]
        default_steps = tuple(
            step for step in Consumer.Blueprint.default_steps if not step.endswith(":DelayedDelivery")
        )

    def __init__(self, *arguments: Any, **options: Any) -> None:
        alone = {"without_gossip": True, "without_mingle": True, "without_heartbeat": True}
        super().__init__(*arguments, **options | alone)


class DeskStep(bootsteps.StartStopStep):  # type: ignore[misc] # Celery ships no types
    """Starts the desk with the Celery worker, and drains it with it."""

    requires = {"celery.worker.components:Pool"}

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self.desk: Desk | None = None

    def start(self, worker: Any) -> None:
        if worker.pool_cls.__module__ not in POOLS:
            raise ImproperlyConfigured("Run the Nightdesk worker with --pool=threads.")
        worker.timer.call_repeatedly(GLANCE_SECONDS, _glance)
        crash.arm(settings.CRASH_AT)
        settle_in()
        self.desk = Desk()
        self.desk.start()

    def stop(self, _: Any) -> None:
        end_in(settings.JOB_DRAIN_SECONDS + GOODBYE_SECONDS)
        if self.desk is not None:
            self.desk.stop()


def end_in(seconds: float, end: Callable[[int], Any] = os._exit) -> None:
    """End this process after so long, if it still runs then."""

    def run() -> None:
        log.critical("stop_overdue")
        end(EXIT_CODE)

    timer = threading.Timer(seconds, run)
    timer.daemon = True
    timer.start()


def _glance() -> None:
    """Let the loop turn."""


class Desk:
    """The loop's thread. The doorbells ring here while it runs."""

    def __init__(self) -> None:
        self._engine_ready = threading.Event()
        self._engine: Engine | None = None
        self._is_stopping = False
        self._thread = threading.Thread(target=self._main, name="desk")

    def start(self) -> None:
        self._thread.start()
        self._engine_ready.wait()

    def stop(self) -> None:
        """Drain, and wait for the end: the jobs first, for their ends make deliveries."""
        self._is_stopping = True
        if self._engine is not None:
            self._engine.stop()
        self._thread.join()

    def _main(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._run())
        except Exception:
            log.exception("desk_broke")
        finally:
            self._engine_ready.set()
            if not self._is_stopping:
                # Celery would stay up as a shell that does nothing; who supervises us starts a whole worker.
                log.critical("desk_gone")
                os._exit(EXIT_CODE)

    async def _run(self) -> None:
        breakers = Breakers(settings.REDIS_URL)
        self._engine, courier, drainer = Engine(breaker=breakers), Courier(), Drainer()
        delivering = asyncio.create_task(courier.run())
        working = asyncio.create_task(self._engine.run())
        draining = asyncio.create_task(drainer.run())
        # Both note their loop before anything can wake or stop them.
        await asyncio.sleep(0)
        jobs_bell.listen(self._engine.wake)
        webhooks_bell.listen(courier.wake)
        self._engine_ready.set()
        try:
            await working
        finally:
            jobs_bell.listen(None)
            courier.stop()
            drainer.stop()
            await asyncio.gather(delivering, draining)
            await breakers.close()
            await redis.close_clients()
            webhooks_bell.listen(None)
