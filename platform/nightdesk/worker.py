"""The worker process: beside Celery, an event loop in a thread runs job engine, courier and usage drainer."""

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
from inference.circuit_breaker import RedisCircuitBreaker
from jobs.tasks import bell as jobs_bell
from jobs.worker.engine import JobEngine
from metering.drainer import UsageDrainer
from nightdesk.gc_tuning import tune_gc
from webhooks.courier import Courier
from webhooks.tasks import bell as webhooks_bell

log = structlog.get_logger(__name__)

#: How often Celery's loop checks whether a signal requested a stop. A signal does not wake a loop that waits for a
#: broker, and for RabbitMQ it waits up to 10 s.
STOP_POLL_SECONDS = 0.5

#: How long a graceful shutdown may take after draining, to release jobs and to close connections. Then the process
#: exits, whatever hangs; jobs that it could not release are requeued when its lease expires.
SHUTDOWN_MARGIN_SECONDS = 10.0

#: EX_SOFTWARE of sysexits.h.
EXIT_CODE = 70

#: Pools whose tasks run in the process of the engine, so that they can ring its doorbell.
SUPPORTED_POOLS = ("celery.concurrency.thread", "celery.concurrency.solo")


class DoorbellConsumer(Consumer):  # type: ignore[misc] # Celery ships no types
    """Celery's consumer without the features that a doorbell does not need.

    Gossip between workers and queues for delayed messages (28 on RabbitMQ) would cost messages, and permissions to
    declare them.
    """

    class Blueprint(Consumer.Blueprint):  # type: ignore[misc]
        default_steps = tuple(
            step for step in Consumer.Blueprint.default_steps if not step.endswith(":DelayedDelivery")
        )

    def __init__(self, *arguments: Any, **options: Any) -> None:
        disabled = {"without_gossip": True, "without_mingle": True, "without_heartbeat": True}
        super().__init__(*arguments, **options | disabled)


class WorkerRuntimeStep(bootsteps.StartStopStep):  # type: ignore[misc] # Celery ships no types
    """Starts the worker runtime with the Celery worker, and drains it when Celery stops."""

    requires = {"celery.worker.components:Pool"}

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self.runtime: WorkerRuntime | None = None

    def start(self, worker: Any) -> None:
        if worker.pool_cls.__module__ not in SUPPORTED_POOLS:
            raise ImproperlyConfigured("Run the Nightdesk worker with --pool=threads.")
        worker.timer.call_repeatedly(STOP_POLL_SECONDS, _poll_stop_flag)
        crash.arm(settings.CRASH_AT)
        tune_gc()
        self.runtime = WorkerRuntime()
        self.runtime.start()

    def stop(self, _: Any) -> None:
        kill_after(settings.JOB_DRAIN_SECONDS + SHUTDOWN_MARGIN_SECONDS)
        if self.runtime is not None:
            self.runtime.stop()


def kill_after(seconds: float, end: Callable[[int], Any] = os._exit) -> None:
    """Exit this process after this time if it still runs: the hard limit of a graceful shutdown."""

    def run() -> None:
        log.critical("shutdown_timeout")
        end(EXIT_CODE)

    timer = threading.Timer(seconds, run)
    timer.daemon = True
    timer.start()


def _poll_stop_flag() -> None:
    """Do nothing: the timer itself makes Celery's loop check the flag."""


class WorkerRuntime:
    """The event loop's thread. Receives the doorbells while it runs."""

    def __init__(self) -> None:
        self._engine_ready = threading.Event()
        self._engine: JobEngine | None = None
        self._is_stopping = False
        self._thread = threading.Thread(target=self._main, name="worker-runtime")

    def start(self) -> None:
        self._thread.start()
        self._engine_ready.wait()

    def stop(self) -> None:
        """Drain and wait until done. Jobs first, because finishing them creates deliveries."""
        self._is_stopping = True
        if self._engine is not None:
            self._engine.stop()
        self._thread.join()

    def _main(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._run())
        except Exception:
            log.exception("worker_loop_crashed")
        finally:
            self._engine_ready.set()
            if not self._is_stopping:
                # Celery would stay up without doing anything; the process supervisor restarts a complete worker.
                log.critical("worker_exiting_after_crash")
                os._exit(EXIT_CODE)

    async def _run(self) -> None:
        breakers = RedisCircuitBreaker(settings.REDIS_URL)
        self._engine, courier, drainer = JobEngine(breaker=breakers), Courier(), UsageDrainer()
        courier_task = asyncio.create_task(courier.run())
        engine_task = asyncio.create_task(self._engine.run())
        drainer_task = asyncio.create_task(drainer.run())
        # All of them record their event loop before anything can wake or stop them.
        await asyncio.sleep(0)
        jobs_bell.set_listener(self._engine.wake)
        webhooks_bell.set_listener(courier.wake)
        self._engine_ready.set()
        try:
            await engine_task
        finally:
            jobs_bell.set_listener(None)
            courier.stop()
            drainer.stop()
            await asyncio.gather(courier_task, drainer_task)
            await breakers.close()
            await redis.close_clients()
            webhooks_bell.set_listener(None)
