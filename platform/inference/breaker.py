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
from core.redis import RedisAway, Script, client, redis_errors
from inference.health import (
    LONGEST_ASKED_SECONDS,
    Condition,
    Entry,
    State,
    Verdict,
    decode,
    id_for,
    ids_of,
    judge,
    refusal_of,
    since,
    to_state,
    to_states,
)
from inference.routing import Target
from providers.errors import CredentialDead, Overloaded, ProviderError, RateLimited

log = structlog.get_logger(__name__)

KEY = b"nd:breakers"
SCRIPT = Script((Path(__file__).parent / "breaker.lua").read_text())

LOOK_SECONDS = 0.5
#: A process that made no call for so long stops looking.
IDLE_SECONDS = 60.0
#: A probe is renewed at each look; one of a killed process lapses after this.
PROBE_LEASE_SECONDS = 5.0
LONGEST_REST_SECONDS = 300.0
#: A key that was refused is seldom mended within seconds.
DEAD_REST_SECONDS = 60.0


class Breaker(Protocol):
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


class NoBreaker:
    """Every target may be asked."""

    async def allows(self, target: Target) -> bool:
        return True

    async def report(self, target: Target, error: ProviderError | None) -> None: ...

    def release(self, target: Target) -> None: ...

    def refusal(self, target: Target) -> ProviderError:
        return Overloaded(f"Provider {target.provider.name} is left alone.")


NO_BREAKER = NoBreaker()


class Breakers:
    """The breakers as one process sees them. For one event loop; `close` it there."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._process = new_uuid().hex
        #: What was seen at the last look, and when: by our clock, and by Redis's.
        self._entries: dict[str, Entry] = {}
        self._seen_at, self._seen_ms = 0.0, 0.0
        #: What this process is trying out.
        self._probing: set[str] = set()
        #: Answers of keys in trouble that Redis has not been told of.
        self._answers: Counter[str] = Counter()
        self._looked = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._chores: set[asyncio.Task[None]] = set()
        self._used_at = 0.0
        self._is_away = False

    async def allows(self, target: Target) -> bool:
        await self._keep_looking()
        blocking = self._blocking(target)
        if not blocking:
            return True
        if any(state.condition is Condition.OPEN or state.id in self._probing for state in blocking):
            return False
        return await self._probe(target)

    async def report(self, target: Target, error: ProviderError | None) -> None:
        match judge(error):
            case Verdict.NOTHING:
                self.release(target)
            case Verdict.ANSWERS:
                await self._answered(target)
            case verdict:
                assert error is not None
                await self._failed(target, error, trips=verdict is Verdict.TRIPS)

    def release(self, target: Target) -> None:
        ids = self._probing.intersection(ids_of(target))
        if ids:
            self._probing -= ids
            chore = asyncio.get_running_loop().create_task(self._tell("release", *ids))
            self._chores.add(chore)
            chore.add_done_callback(self._chores.discard)

    def refusal(self, target: Target) -> ProviderError:
        blocking = self._blocking(target)
        if not blocking:
            return NO_BREAKER.refusal(target)
        return refusal_of(max(blocking, key=lambda state: state.rest_seconds))

    async def states(self) -> list[State]:
        """Return what this process knows of keys in trouble."""
        await self._keep_looking()
        return to_states(self._entries, self._now_ms())

    async def close(self) -> None:
        """Stop looking. What this process is trying out, others may then try."""
        if self._probing:
            await self._tell("release", *self._probing)
        tasks = [task for task in (self._looking, *self._chores) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._looking = None

    # What is known

    def _blocking(self, target: Target) -> list[State]:
        if not self._entries:
            return []
        entries = [(id_, entry) for id_ in ids_of(target) if (entry := self._entries.get(id_)) and entry.opened_at]
        return [to_state(id_, entry, self._now_ms()) for id_, entry in entries]

    def _now_ms(self) -> float:
        """Return the time by Redis's clock."""
        return self._seen_ms + (time.monotonic() - self._seen_at) * 1000

    async def _keep_looking(self) -> None:
        """See to it that what is known is fresh. Waits only for the first look."""
        self._used_at = time.monotonic()
        if self._looking is None:
            self._looked.clear()
            self._looking = asyncio.get_running_loop().create_task(self._look_forever(), name="breakers")
        if not self._looked.is_set():
            await self._looked.wait()

    async def _look_forever(self) -> None:
        try:
            while time.monotonic() - self._used_at < IDLE_SECONDS:
                await self._look()
                self._looked.set()
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            self._looking = None
            self._looked.set()

    async def _look(self) -> None:
        answers, self._answers = self._answers, Counter()
        probing = set(self._probing)
        counted = [each for id_, count in answers.items() for each in (id_, count)]
        try:
            told = await self._run("look", _window_ms(), len(probing), *probing, *counted)
        except RedisAway as error:
            if not self._is_away:
                log.warning("breaker_without_redis", error=str(error))
            self._is_away = True
            self._entries, self._probing = {}, set()
        else:
            self._is_away = False
            self._entries = {}
            self._take(told)
            # Of those alone that were granted before this look.
            self._probing -= probing - self._held()

    def _take(self, told: Sequence[Any]) -> None:
        self._seen_ms, self._seen_at = float(told[0]), time.monotonic()
        for id_, text in zip(told[1::2], told[2::2], strict=True):
            if text:
                self._entries[id_.decode()] = decode(text)
            else:
                self._entries.pop(id_.decode(), None)

    def _held(self) -> set[str]:
        """Name what Redis says that this process is trying out."""
        return {id_ for id_, entry in self._entries.items() if entry.prober == self._process}

    # What is told

    async def _probe(self, target: Target) -> bool:
        ids = [state.id for state in self._blocking(target)]
        try:
            granted, *told = await self._run("probe", int(PROBE_LEASE_SECONDS * 1000), *ids)
        except RedisAway:
            return True
        self._take(told)
        if granted:
            self._probing |= self._held().intersection(ids)
        return bool(granted)

    async def _answered(self, target: Target) -> None:
        if not self._entries:
            return
        ids = ids_of(target)
        for id_ in ids:
            if id_ in self._entries:
                self._answers[id_] += 1
        probing = self._probing.intersection(ids)
        if probing:
            self._probing -= probing
            await self._tell("answered", *probing)
            log.info("breaker_closed", provider=target.provider.name, model=target.upstream_model)

    async def _failed(self, target: Target, error: ProviderError, *, trips: bool) -> None:
        if self._is_away:
            return
        was_open = bool(self._blocking(target))
        about = id_for(target, error)
        probing = self._probing.intersection(ids_of(target))
        self._probing -= probing
        with suppress(RedisAway):
            self._take(await self._run("failed", *self._failure(target, about, error, trips=trips)))
        if others := probing - {about}:
            # A key whose model is over its rate answers; of a model whose key is in trouble nothing is known.
            await self._tell("answered" if isinstance(error, RateLimited) else "release", *others)
        if not was_open and (blocking := self._blocking(target)):
            self._say_opened(target, error, blocking[-1])

    def _failure(self, target: Target, about: str, error: ProviderError, *, trips: bool) -> tuple[Any, ...]:
        asked = error.retry_after_seconds
        rest = DEAD_REST_SECONDS if isinstance(error, CredentialDead) else settings.BREAKER_REST_SECONDS
        return (
            _window_ms(),
            about,
            target.provider.name,
            target.upstream_model if about == ids_of(target)[1] else "",
            error.kind,
            (error.code or "")[:100],
            self._answers.pop(about, 0),
            0 if trips else settings.BREAKER_FAILURES,
            int(rest * 1000),
            int(LONGEST_REST_SECONDS * 1000),
            -1 if asked is None else int(min(max(asked, 0.0), LONGEST_ASKED_SECONDS) * 1000),
        )

    def _say_opened(self, target: Target, error: ProviderError, state: State) -> None:
        log.warning(
            "breaker_opened",
            provider=target.provider.name,
            model=state.model,
            kind=error.kind,
            failures=state.failures,
            rest_seconds=round(state.rest_seconds, 1),
        )

    async def _tell(self, operation: str, *ids: str) -> None:
        with suppress(RedisAway):
            self._take(await self._run(operation, *ids))

    async def _run(self, operation: str, *arguments: Any) -> list[Any]:
        told: list[Any] = await SCRIPT.run(client(self._url), [KEY], [operation, self._process, *arguments])
        return told


def read_states(server: "redis.Redis") -> list[State]:
    """Read from Redis which keys are in trouble; for code that runs in no event loop. Raises `RedisAway`."""
    with redis_errors():
        found: dict[bytes, bytes] = server.hgetall(KEY)  # type: ignore[assignment] # typed for async, too
        seconds, micros = server.time()
    now_ms = seconds * 1000 + micros / 1000
    # Where nobody makes calls, nobody tidies up.
    entries = {id_.decode(): since(decode(text), now_ms - _window_ms()) for id_, text in found.items()}
    return to_states({id_: each for id_, each in entries.items() if each.opened_at or each.counts}, now_ms)


def close_breaker(server: "redis.Redis", id_: str) -> bool:
    """Let calls through again, whatever was noted; every process sees it at its next look.

    False where nothing was noted any more. Raises `RedisAway`.
    """
    with redis_errors():
        return bool(server.hdel(KEY, id_))


def _window_ms() -> int:
    return int(settings.BREAKER_WINDOW_SECONDS * 1000)
