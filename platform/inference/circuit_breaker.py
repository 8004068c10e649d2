"""Leaves a provider's key alone that is in trouble, until it has had time to recover: one mind over all processes.

closed ──▶ so many failures within a window, and at least half of all calls; or one that says it all ──▶ open
open ──▶ it has rested: Retry-After, or a time that doubles ──▶ half-open: one call at a time, over all processes
half-open ──▶ it answers ──▶ closed          half-open ──▶ it fails ──▶ open

Each process reads the state of all keys twice a second while it makes calls, so that a call to a key that is well
costs no round trip. Keys that are well are not in there at all. While Redis is away every call is let through.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import redis
import structlog
from django.conf import settings

from core.ids import new_uuid
from core.redis import LuaScript, RedisUnavailable, client, translate_redis_errors
from inference.breaker_state import (
    MAX_RETRY_AFTER_SECONDS,
    BreakerEntry,
    BreakerState,
    BreakerStatus,
    BreakerVerdict,
    breaker_id_for,
    breaker_ids,
    classify_result,
    decode_entry,
    prune_counts,
    to_refusal,
    to_status,
    to_statuses,
)
from inference.routing import Target
from providers.errors import ProviderError, ProviderKeyRejected, ProviderOverloaded, ProviderRateLimited

log = structlog.get_logger(__name__)

BREAKERS_KEY = b"nd:breakers"
SCRIPT = LuaScript((Path(__file__).parent / "circuit_breaker.lua").read_text())

REFRESH_SECONDS = 0.5
#: A process that made no call for so long stops looking.
IDLE_SECONDS = 60.0
#: A probe is renewed at each look; one of a killed process lapses after this.
PROBE_LEASE_SECONDS = 5.0
MAX_COOLDOWN_SECONDS = 300.0
#: A key that was refused is seldom mended within seconds.
INVALID_KEY_COOLDOWN_SECONDS = 60.0


class CircuitBreaker(Protocol):
    """What a request asks before each call, and tells after it."""

    async def allows(self, target: Target) -> bool:
        """May the target be asked? Who may, reports what came of it, or releases."""
        ...

    async def report(self, target: Target, error: ProviderError | None) -> None:
        """Take in that a target answers, or failed."""
        ...

    def release(self, target: Target) -> None:
        """Take in that a call was not made, or ended without a word about its target."""
        ...

    def refusal(self, target: Target) -> ProviderError:
        """Return why the target may not be asked, as the error that asking it would be."""
        ...


class NoCircuitBreaker:
    """Every target may be asked."""

    async def allows(self, target: Target) -> bool:
        return True

    async def report(self, target: Target, error: ProviderError | None) -> None: ...

    def release(self, target: Target) -> None: ...

    def refusal(self, target: Target) -> ProviderError:
        return ProviderOverloaded(f"Provider {target.provider.name} is temporarily disabled.")


NO_CIRCUIT_BREAKER = NoCircuitBreaker()


class RedisCircuitBreaker:
    """The breakers as one process sees them. For one event loop; `close` it there."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._process = new_uuid().hex
        #: What was seen at the last look, and when: by our clock, and by Redis's.
        self._entries: dict[str, BreakerEntry] = {}
        self._refreshed_at, self._refreshed_redis_ms = 0.0, 0.0
        #: What this process is trying out.
        self._probing: set[str] = set()
        #: Answers of keys in trouble that Redis has not been told of.
        self._unreported_answers: Counter[str] = Counter()
        self._loaded = asyncio.Event()
        self._refresh_task: asyncio.Task[None] | None = None
        self._background_tasks: set[asyncio.Task[None]] = set()
        self._used_at = 0.0
        self._is_redis_unavailable = False

    async def allows(self, target: Target) -> bool:
        await self._ensure_fresh()
        blocking = self._blocking(target)
        if not blocking:
            return True
        if any(status.state is BreakerState.OPEN or status.id in self._probing for status in blocking):
            return False
        return await self._probe(target)

    async def report(self, target: Target, error: ProviderError | None) -> None:
        match classify_result(error):
            case BreakerVerdict.IGNORE:
                self.release(target)
            case BreakerVerdict.SUCCESS:
                await self._on_success(target)
            case verdict:
                assert error is not None
                await self._on_failure(target, error, trips=verdict is BreakerVerdict.TRIP)

    def release(self, target: Target) -> None:
        ids = self._probing.intersection(breaker_ids(target))
        if ids:
            self._probing -= ids
            task = asyncio.get_running_loop().create_task(self._send("release", *ids))
            self._background_tasks.add(task)
            task.add_done_callback(self._background_tasks.discard)

    def refusal(self, target: Target) -> ProviderError:
        blocking = self._blocking(target)
        if not blocking:
            return NO_CIRCUIT_BREAKER.refusal(target)
        return to_refusal(max(blocking, key=lambda status: status.cooldown_seconds))

    async def statuses(self) -> list[BreakerStatus]:
        """Return what this process knows of keys in trouble."""
        await self._ensure_fresh()
        return to_statuses(self._entries, self._now_ms())

    async def close(self) -> None:
        """Stop looking. What this process is trying out, others may then try."""
        if self._probing:
            await self._send("release", *self._probing)
        tasks = [task for task in (self._refresh_task, *self._background_tasks) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._refresh_task = None

    # What is known

    def _blocking(self, target: Target) -> list[BreakerStatus]:
        if not self._entries:
            return []
        entries = [(id_, entry) for id_ in breaker_ids(target) if (entry := self._entries.get(id_)) and entry.opened_at]
        return [to_status(id_, entry, self._now_ms()) for id_, entry in entries]

    def _now_ms(self) -> float:
        """Return the time by Redis's clock."""
        return self._refreshed_redis_ms + (time.monotonic() - self._refreshed_at) * 1000

    async def _ensure_fresh(self) -> None:
        """See to it that what is known is fresh. Waits only for the first look."""
        self._used_at = time.monotonic()
        if self._refresh_task is None:
            self._loaded.clear()
            self._refresh_task = asyncio.get_running_loop().create_task(self._refresh_loop(), name="breakers")
        if not self._loaded.is_set():
            await self._loaded.wait()

    async def _refresh_loop(self) -> None:
        try:
            while time.monotonic() - self._used_at < IDLE_SECONDS:
                await self._refresh()
                self._loaded.set()
                await asyncio.sleep(REFRESH_SECONDS)
        finally:
            self._refresh_task = None
            self._loaded.set()

    async def _refresh(self) -> None:
        answers, self._unreported_answers = self._unreported_answers, Counter()
        probing = set(self._probing)
        counted = [each for id_, count in answers.items() for each in (id_, count)]
        try:
            reply = await self._run("look", _window_ms(), len(probing), *probing, *counted)
        except RedisUnavailable as error:
            if not self._is_redis_unavailable:
                log.warning("circuit_breaker_redis_unavailable", error=str(error))
            self._is_redis_unavailable = True
            self._entries, self._probing = {}, set()
        else:
            self._is_redis_unavailable = False
            self._entries = {}
            self._update_entries(reply)
            # Of those alone that were granted before this look.
            self._probing -= probing - self._held_probes()

    def _update_entries(self, reply: Sequence[Any]) -> None:
        self._refreshed_redis_ms, self._refreshed_at = float(reply[0]), time.monotonic()
        for id_, text in zip(reply[1::2], reply[2::2], strict=True):
            if text:
                self._entries[id_.decode()] = decode_entry(text)
            else:
                self._entries.pop(id_.decode(), None)

    def _held_probes(self) -> set[str]:
        """Name what Redis says that this process is trying out."""
        return {id_ for id_, entry in self._entries.items() if entry.prober == self._process}

    # What is told

    async def _probe(self, target: Target) -> bool:
        ids = [status.id for status in self._blocking(target)]
        try:
            granted, *reply = await self._run("probe", int(PROBE_LEASE_SECONDS * 1000), *ids)
        except RedisUnavailable:
            return True
        self._update_entries(reply)
        if granted:
            self._probing |= self._held_probes().intersection(ids)
        return bool(granted)

    async def _on_success(self, target: Target) -> None:
        if not self._entries:
            return
        ids = breaker_ids(target)
        for id_ in ids:
            if id_ in self._entries:
                self._unreported_answers[id_] += 1
        probing = self._probing.intersection(ids)
        if probing:
            self._probing -= probing
            await self._send("answered", *probing)
            log.info("circuit_breaker_closed", provider=target.provider.name, model=target.upstream_model)

    async def _on_failure(self, target: Target, error: ProviderError, *, trips: bool) -> None:
        if self._is_redis_unavailable:
            return
        was_open = bool(self._blocking(target))
        failed_id = breaker_id_for(target, error)
        probing = self._probing.intersection(breaker_ids(target))
        self._probing -= probing
        with suppress(RedisUnavailable):
            self._update_entries(
                await self._run("failed", *self._failure_arguments(target, failed_id, error, trips=trips))
            )
        if others := probing - {failed_id}:
            # A key whose model is over its rate answers; of a model whose key is in trouble nothing is known.
            await self._send("answered" if isinstance(error, ProviderRateLimited) else "release", *others)
        if not was_open and (blocking := self._blocking(target)):
            self._log_opened(target, error, blocking[-1])

    def _failure_arguments(
        self, target: Target, failed_id: str, error: ProviderError, *, trips: bool
    ) -> tuple[Any, ...]:
        retry_after = error.retry_after_seconds
        cooldown = (
            INVALID_KEY_COOLDOWN_SECONDS
            if isinstance(error, ProviderKeyRejected)
            else settings.BREAKER_COOLDOWN_SECONDS
        )
        return (
            _window_ms(),
            failed_id,
            target.provider.name,
            target.upstream_model if failed_id == breaker_ids(target)[1] else "",
            error.kind,
            (error.code or "")[:100],
            self._unreported_answers.pop(failed_id, 0),
            0 if trips else settings.BREAKER_FAILURES,
            int(cooldown * 1000),
            int(MAX_COOLDOWN_SECONDS * 1000),
            -1 if retry_after is None else int(min(max(retry_after, 0.0), MAX_RETRY_AFTER_SECONDS) * 1000),
        )

    def _log_opened(self, target: Target, error: ProviderError, status: BreakerStatus) -> None:
        log.warning(
            "circuit_breaker_opened",
            provider=target.provider.name,
            model=status.model,
            kind=error.kind,
            failures=status.failures,
            cooldown_seconds=round(status.cooldown_seconds, 1),
        )

    async def _send(self, operation: str, *ids: str) -> None:
        with suppress(RedisUnavailable):
            self._update_entries(await self._run(operation, *ids))

    async def _run(self, operation: str, *arguments: Any) -> list[Any]:
        reply: list[Any] = await SCRIPT.run(client(self._url), [BREAKERS_KEY], [operation, self._process, *arguments])
        return reply


def read_statuses(server: "redis.Redis") -> list[BreakerStatus]:
    """Read from Redis which keys are in trouble; for code that runs in no event loop. Raises `RedisUnavailable`."""
    with translate_redis_errors():
        found: dict[bytes, bytes] = server.hgetall(BREAKERS_KEY)  # type: ignore[assignment] # typed for async, too
        seconds, micros = server.time()
    now_ms = seconds * 1000 + micros / 1000
    # Where nobody makes calls, nobody tidies up.
    entries = {id_.decode(): prune_counts(decode_entry(text), now_ms - _window_ms()) for id_, text in found.items()}
    return to_statuses({id_: each for id_, each in entries.items() if each.opened_at or each.counts}, now_ms)


def close_breaker(server: "redis.Redis", id_: str) -> bool:
    """Let calls through again, whatever was noted; every process sees it at its next look.

    False where nothing was noted any more. Raises `RedisUnavailable`.
    """
    with translate_redis_errors():
        return bool(server.hdel(BREAKERS_KEY, id_))


def _window_ms() -> int:
    return int(settings.BREAKER_WINDOW_SECONDS * 1000)
