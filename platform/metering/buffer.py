"""Move the accounts of live calls out of Redis into Postgres: in bulk, and each one at least once.

live request ends ──▶ nd:usage (a list) ──▶ read, written, committed ──▶ and only then removed
                                                └─ cannot be written ──▶ nd:usage:aside
process killed ──▶ nd:open:<process> (a hash) ──▶ written as lost ──▶ and only then removed

An entry is an account as JSON, and is rated when it is written: that takes this desk's own prices out of Postgres,
which an event loop must not wait for. Entries have keys of their own, so that writing one twice changes nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import redis
import redis.asyncio
import structlog
from django.db import DatabaseError, DataError, IntegrityError, InterfaceError, transaction

from core.advisory import alone
from core.crash import CrashPoint, crash_point
from core.redis import redis_errors
from metering import accounts
from metering.accounts import Account
from metering.models import Outcome

log = structlog.get_logger(__name__)

USAGE = b"nd:usage"
OPEN_PREFIX = b"nd:open:"
PROCESS_PREFIX = b"nd:process:"
#: What could not be written, for people to look at: the newest, for a month.
ASIDE = b"nd:usage:aside"
MOST_ASIDE = 10_000
MONTH_SECONDS = 30 * 86_400

#: Any number that no other two-part advisory lock of this database uses.
DRAIN_LOCK = 0x4E49_4755
LARGEST_BATCH = 500
#: After so many batches whoever drains looks up, for it may have been told to stop.
MOST_BATCHES = 40
SCAN_COUNT = 1_000

#: Remove the first entries of the list, if they are still those that were read; set aside some of them.
#: Somebody else who read the same may have removed them before us; what is there now nobody has written yet.
REMOVE = """
local count = tonumber(ARGV[1])
if redis.call('LINDEX', KEYS[1], 0) ~= ARGV[2] or redis.call('LINDEX', KEYS[1], count - 1) ~= ARGV[3] then
    return 0
end
for i = 6, #ARGV do redis.call('LPUSH', KEYS[2], ARGV[i]) end
if #ARGV > 5 then
    redis.call('LTRIM', KEYS[2], 0, ARGV[4] - 1)
    redis.call('EXPIRE', KEYS[2], ARGV[5])
end
redis.call('LTRIM', KEYS[1], count, -1)
return count
"""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Account)


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is still in Redis: `behind` entries on their way, and `aside` that could not be written."""

    behind: int
    aside: int


def to_entry(account: Account) -> bytes:
    """Write an account for the buffer."""
    return _encoder.encode(account)


def drain(server: "redis.Redis") -> int:
    """Move what is in the buffer to Postgres; return how many entries. 0 also where another process is at it.

    Raises:
        RedisAway, DatabaseError, InterfaceError: nothing is lost; what was not moved is moved next time.
    """
    if not backlog(server).behind:
        return 0
    moved = 0
    with alone(DRAIN_LOCK) as is_mine:
        for _ in range(MOST_BATCHES if is_mine else 0):
            entries = _first(server, LARGEST_BATCH)
            if not entries:
                break
            aside = store(entries)
            crash_point(CrashPoint.AFTER_COMMIT)
            moved += _remove(server, entries, aside)
    return moved


def reap(server: "redis.Redis") -> int:
    """Close the accounts that killed processes left open, as lost; return how many. For an entry is told by its
    process what to take for its tokens: missing is not zero.

    Raises: as `drain`.
    """
    lost = 0
    with alone(DRAIN_LOCK) as is_mine:
        for key in _orphaned(server) if is_mine else ():
            lost += _close(server, key)
    return lost


def store(entries: Sequence[bytes]) -> list[bytes]:
    """Write entries into usage events; return those that cannot be written.

    Raises:
        DatabaseError, InterfaceError: Postgres is away, or cannot do it now, and not all are written.
    """
    return _store(entries, _write)


def backlog(server: "redis.Redis") -> Backlog:
    """Return what is still in Redis. Raises `RedisAway`."""
    with redis_errors():
        pipeline = server.pipeline(transaction=False)
        pipeline.llen(USAGE)
        pipeline.llen(ASIDE)
        behind, aside = pipeline.execute()
    return Backlog(behind, aside)


async def waiting(server: "redis.asyncio.Redis") -> Backlog:
    """Return what `backlog` does, on an event loop."""
    with redis_errors():
        pipeline: Any = server.pipeline(transaction=False)
        pipeline.llen(USAGE)
        pipeline.llen(ASIDE)
        behind, aside = await pipeline.execute()
    return Backlog(behind, aside)


# Redis


def _first(server: "redis.Redis", count: int) -> list[bytes]:
    with redis_errors():
        entries: list[bytes] = server.lrange(USAGE, 0, count - 1)  # type: ignore[assignment] # typed for async, too
    return entries


def _remove(server: "redis.Redis", entries: Sequence[bytes], aside: Sequence[bytes]) -> int:
    arguments = [len(entries), entries[0], entries[-1], MOST_ASIDE, MONTH_SECONDS, *aside]
    with redis_errors():
        return int(server.eval(REMOVE, 2, USAGE, ASIDE, *arguments))  # type: ignore[arg-type]


def _orphaned(server: "redis.Redis") -> Iterator[bytes]:
    """Yield the keys of open accounts whose process gives no sign of life."""
    with redis_errors():
        keys = set(server.scan_iter(OPEN_PREFIX + b"*", SCAN_COUNT))
    for key in keys:
        with redis_errors():
            is_alive = server.exists(PROCESS_PREFIX + key.removeprefix(OPEN_PREFIX))
        if not is_alive:
            yield key


def _close(server: "redis.Redis", key: bytes) -> int:
    with redis_errors():
        found: dict[bytes, bytes] = server.hgetall(key)  # type: ignore[assignment]
    if not found:
        return 0
    aside = _store(list(found.values()), _write_lost)
    crash_point(CrashPoint.AFTER_COMMIT)
    with redis_errors():
        pipeline = server.pipeline()
        if aside:
            pipeline.lpush(ASIDE, *aside)
            pipeline.ltrim(ASIDE, 0, MOST_ASIDE - 1)
            pipeline.expire(ASIDE, MONTH_SECONDS)
        # Not the key: a process that was only slow may have opened another meanwhile.
        pipeline.hdel(key, *found)
        pipeline.execute()
    log.warning("accounts_lost", process=key.removeprefix(OPEN_PREFIX).decode(), calls=len(found))
    return len(found)


# Postgres


def _store(entries: Sequence[bytes], write: Callable[[Sequence[Account]], None]) -> list[bytes]:
    """Write what can be written; return the rest. One that cannot is found by halves, and holds up no other."""
    try:
        # Of two entries of a call the later one counts; one statement can write a row but once.
        write(list({account.dedupe_key: account for account in map(_decoder.decode, entries)}.values()))
    except Exception as error:  # whatever is wrong with an entry, the others must not wait for it
        if isinstance(error, DatabaseError | InterfaceError) and not isinstance(error, DataError | IntegrityError):
            # It is not the entries' fault: Postgres is away, or read-only, or in the middle of a migration.
            raise
        if len(entries) == 1:
            _say(entries[0], error)
            return list(entries)
        middle = len(entries) // 2
        return [*_store(entries[:middle], write), *_store(entries[middle:], write)]
    return []


def _write(closed: Sequence[Account]) -> None:
    # Constraints that are checked at the commit must speak up in here.
    with transaction.atomic():
        accounts.write(closed)


def _write_lost(opened: Sequence[Account]) -> None:
    with transaction.atomic():
        accounts.write_lost([msgspec.structs.replace(each, outcome=Outcome.LOST, estimated=True) for each in opened])


def _say(entry: bytes, error: Exception) -> None:
    try:
        name = _decoder.decode(entry).dedupe_key
    except (msgspec.DecodeError, UnicodeError):
        name = ""
    # A database quotes what it refuses; the class says enough.
    cause = type(error.__cause__).__name__ if isinstance(error, DatabaseError) and error.__cause__ else ""
    log.error("usage_set_aside", account=name, error=type(error).__name__, cause=cause)
