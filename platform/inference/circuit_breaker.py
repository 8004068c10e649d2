"""Distributed circuit breaker, one per provider key and one per model under it; state shared through Redis.

closed ──▶ BREAKER_FAILURES failures within the window, at least half of all calls; or one that trips it ──▶ open
open ──▶ the cooldown passes: Retry-After, or a time that doubles ──▶ half-open: one probe call over all processes
half-open ──▶ the probe succeeds ──▶ closed          half-open ──▶ it fails ──▶ open

Each process reads all entries twice a second while it makes calls, so that a call to a healthy key costs no round trip.
Healthy keys have no entry. While Redis is unavailable every call is allowed.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Protocol

import redis
import structlog
from django.conf import settings
from msgspec import Struct
from msgspec.structs import astuple

from core.ids import new_uuid
from core.lua import lua_indexes
from core.redis import LuaScript, RedisUnavailable, client, translate_redis_errors
from core.tasks import BackgroundTasks, cancel_and_wait
from inference.breaker_state import (
    MAX_RETRY_AFTER_COOLDOWN_SECONDS,
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

BREAKERS_KEY = b"nd:circuit-breakers"


class BreakerArguments(Struct, frozen=True):
    """What every operation of the script begins with."""

    operation: Literal["refresh", "failure", "probe", "success", "release"]
    process: str


class RefreshArguments(BreakerArguments, frozen=True):
    window_ms: int
    probe_count: int


class FailureArguments(BreakerArguments, frozen=True):
    window_ms: int
    id: str
    provider: str
    model: str
    kind: str
    code: str
    #: Of the key, since the last refresh.
    successes: int
    #: 0: this failure trips the breaker.
    failure_threshold: int
    cooldown_ms: int
    max_cooldown_ms: int
    #: -1: the provider named none.
    retry_after_ms: int


class ProbeArguments(BreakerArguments, frozen=True):
    lease_ms: int


SCRIPT = LuaScript(
    lua_indexes(BreakerArguments, "BREAKER_ARGUMENT_COUNT")
    + lua_indexes(RefreshArguments, "REFRESH_ARGUMENT_COUNT")
    + lua_indexes(FailureArguments, "FAILURE_ARGUMENT_COUNT")
    + lua_indexes(ProbeArguments, "PROBE_ARGUMENT_COUNT")
    + (Path(__file__).parent / "circuit_breaker.lua").read_text()
)

REFRESH_SECONDS = 0.5
#: A process that has made no call for this long stops refreshing.
IDLE_SECONDS = 60.0
#: A refresh renews the lease of a probe; that of a killed process expires after this.
PROBE_LEASE_SECONDS = 5.0
MAX_COOLDOWN_SECONDS = 300.0
#: A rejected key is rarely fixed within seconds.
INVALID_KEY_COOLDOWN_SECONDS = 60.0


class CircuitBreaker(Protocol):
    """Decides before each call whether it is allowed, and learns from its result."""

    async def allows(self, target: Target) -> bool:
        """Return whether the target may be called. If so, the caller must then `report` the result, or `release`."""
        ...

    async def report(self, target: Target, error: ProviderError | None) -> None:
        """Record that the target answers (None), or how the call failed."""
        ...

    def release(self, target: Target) -> None:
        """Record that an allowed call was not made, or that its end says nothing about the target."""
        ...

    def refusal(self, target: Target) -> ProviderError:
        """Return the error for a call that is not allowed, like the one that the provider would most likely return."""
        ...


class NoCircuitBreaker:
    """Allows every call."""

    async def allows(self, target: Target) -> bool:
        return True

    async def report(self, target: Target, error: ProviderError | None) -> None: ...

    def release(self, target: Target) -> None: ...

    def refusal(self, target: Target) -> ProviderError:
        return ProviderOverloaded(f"The circuit breaker of provider {target.provider.name} is open.")


NO_CIRCUIT_BREAKER = NoCircuitBreaker()


class RedisCircuitBreaker:
    """One process's view of all breakers. For one event loop; `close` it there."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._process = new_uuid().hex
        #: The entries at the last refresh, and its time by our clock and by Redis's.
        self._entries: dict[str, BreakerEntry] = {}
        self._refreshed_at, self._refreshed_redis_ms = 0.0, 0.0
        #: The ids that this process probes.
        self._probing: set[str] = set()
        #: Successes of keys with an entry, not yet sent to Redis.
        self._unreported_successes: Counter[str] = Counter()
        self._loaded = asyncio.Event()
        self._refresh_task: asyncio.Task[None] | None = None
        self._background_tasks = BackgroundTasks()
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
            self._background_tasks.spawn(self._send("release", *ids), name="breaker-release")

    def refusal(self, target: Target) -> ProviderError:
        blocking = self._blocking(target)
        if not blocking:
            return NO_CIRCUIT_BREAKER.refusal(target)
        return to_refusal(max(blocking, key=lambda status: status.cooldown_seconds))

    async def statuses(self) -> list[BreakerStatus]:
        """Return the breakers that have an entry, as of the last refresh."""
        await self._ensure_fresh()
        return to_statuses(self._entries, self._now_ms())

    async def close(self) -> None:
        """Stop refreshing, and release this process's probes so that others may probe."""
        if self._probing:
            await self._send("release", *self._probing)
        await cancel_and_wait(self._refresh_task)
        self._refresh_task = None
        await self._background_tasks.cancel()

    # Reading

    def _blocking(self, target: Target) -> list[BreakerStatus]:
        if not self._entries:
            return []
        entries = [(id_, entry) for id_ in breaker_ids(target) if (entry := self._entries.get(id_)) and entry.opened_at]
        return [to_status(id_, entry, self._now_ms()) for id_, entry in entries]

    def _now_ms(self) -> float:
        """Return the time by Redis's clock."""
        return self._refreshed_redis_ms + (time.monotonic() - self._refreshed_at) * 1000

    async def _ensure_fresh(self) -> None:
        """Start the refresh loop if it is not running. Waits only for its first refresh."""
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
        successes, self._unreported_successes = self._unreported_successes, Counter()
        probing = set(self._probing)
        success_arguments = [argument for item in successes.items() for argument in item]
        try:
            arguments = RefreshArguments(
                operation="refresh", process=self._process, window_ms=_window_ms(), probe_count=len(probing)
            )
            reply = await self._run(arguments, *probing, *success_arguments)
        except RedisUnavailable as error:
            if not self._is_redis_unavailable:
                log.warning("circuit_breaker_redis_unavailable", error=str(error))
            self._is_redis_unavailable = True
            self._entries, self._probing = {}, set()
        else:
            self._is_redis_unavailable = False
            self._entries = {}
            self._update_entries(reply)
            # Only of those granted before this refresh: a later one cannot be in its reply.
            self._probing -= probing - self._held_probes()

    def _update_entries(self, reply: Sequence[Any]) -> None:
        redis_ms, *ids_and_entries = reply
        self._refreshed_redis_ms, self._refreshed_at = float(redis_ms), time.monotonic()
        for id_, text in zip(ids_and_entries[::2], ids_and_entries[1::2], strict=True):
            if text:
                self._entries[id_.decode()] = decode_entry(text)
            else:
                self._entries.pop(id_.decode(), None)

    def _held_probes(self) -> set[str]:
        """Return the ids that this process probes, according to Redis."""
        return {id_ for id_, entry in self._entries.items() if entry.prober == self._process}

    # Writing

    async def _probe(self, target: Target) -> bool:
        ids = [status.id for status in self._blocking(target)]
        try:
            arguments = ProbeArguments(
                operation="probe", process=self._process, lease_ms=int(PROBE_LEASE_SECONDS * 1000)
            )
            granted, *reply = await self._run(arguments, *ids)
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
                self._unreported_successes[id_] += 1
        probing = self._probing.intersection(ids)
        if probing:
            self._probing -= probing
            await self._send("success", *probing)
            log.info("circuit_breaker_closed", provider=target.provider.name, model=target.upstream_model)

    async def _on_failure(self, target: Target, error: ProviderError, *, trips: bool) -> None:
        if self._is_redis_unavailable:
            return
        was_open = bool(self._blocking(target))
        failed_id = breaker_id_for(target, error)
        probing = self._probing.intersection(breaker_ids(target))
        self._probing -= probing
        with suppress(RedisUnavailable):
            self._update_entries(await self._run(self._failure_arguments(target, failed_id, error, trips=trips)))
        if others := probing - {failed_id}:
            # A key that rate-limits one model works; a failing key says nothing about its model.
            await self._send("success" if isinstance(error, ProviderRateLimited) else "release", *others)
        if not was_open and (blocking := self._blocking(target)):
            self._log_opened(target, error, blocking[-1])

    def _failure_arguments(
        self, target: Target, failed_id: str, error: ProviderError, *, trips: bool
    ) -> FailureArguments:
        retry_after = error.retry_after_seconds
        cooldown = (
            INVALID_KEY_COOLDOWN_SECONDS
            if isinstance(error, ProviderKeyRejected)
            else settings.BREAKER_COOLDOWN_SECONDS
        )
        return FailureArguments(
            operation="failure",
            process=self._process,
            window_ms=_window_ms(),
            id=failed_id,
            provider=target.provider.name,
            model=target.upstream_model if failed_id == breaker_ids(target)[1] else "",
            kind=error.kind,
            code=(error.code or "")[:100],
            successes=self._unreported_successes.pop(failed_id, 0),
            failure_threshold=0 if trips else settings.BREAKER_FAILURES,
            cooldown_ms=int(cooldown * 1000),
            max_cooldown_ms=int(MAX_COOLDOWN_SECONDS * 1000),
            retry_after_ms=(
                -1 if retry_after is None else int(min(max(retry_after, 0.0), MAX_RETRY_AFTER_COOLDOWN_SECONDS) * 1000)
            ),
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

    async def _send(self, operation: Literal["success", "release"], *ids: str) -> None:
        with suppress(RedisUnavailable):
            self._update_entries(await self._run(BreakerArguments(operation, self._process), *ids))

    async def _run(self, arguments: BreakerArguments, *rest: Any) -> list[Any]:
        reply: list[Any] = await SCRIPT.run(client(self._url), [BREAKERS_KEY], [*astuple(arguments), *rest])
        return reply


def read_statuses(server: "redis.Redis") -> list[BreakerStatus]:
    """Read the breakers that have an entry, for synchronous code. Raises `RedisUnavailable`."""
    with translate_redis_errors():
        texts: dict[bytes, bytes] = server.hgetall(BREAKERS_KEY)  # type: ignore[assignment] # typed for async, too
        seconds, micros = server.time()
    now_ms = seconds * 1000 + micros / 1000
    # While no process makes calls, none deletes old entries in Redis.
    entries = {id_.decode(): prune_counts(decode_entry(text), now_ms - _window_ms()) for id_, text in texts.items()}
    return to_statuses({id_: entry for id_, entry in entries.items() if entry.opened_at or entry.counts}, now_ms)


def close_breaker(server: "redis.Redis", id_: str) -> bool:
    """Close a breaker and forget its failures; every process sees it at its next refresh.

    False if it had no entry any more. Raises `RedisUnavailable`.
    """
    with translate_redis_errors():
        return bool(server.hdel(BREAKERS_KEY, id_))


def _window_ms() -> int:
    return int(settings.BREAKER_WINDOW_SECONDS * 1000)
