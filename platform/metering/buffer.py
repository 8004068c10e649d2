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

from core.advisory_locks import try_advisory_lock
from core.crash import CrashPoint, crash_point
from core.redis import translate_redis_errors
from core.redis_keys import OPEN_CALLS_PATTERN, USAGE_RECORDS_KEY, heartbeat_key, process_of_open_calls
from metering import usage_records
from metering.models import UsageOutcome
from metering.usage_records import UsageRecord

log = structlog.get_logger(__name__)

#: What could not be written, for people to look at: the newest, for a month.
DEAD_LETTER_KEY = b"nd:usage:aside"
MAX_DEAD_LETTERS = 10_000
DEAD_LETTER_TTL_SECONDS = 30 * 86_400

#: Any number that no other two-part advisory lock of this database uses.
DRAIN_LOCK = 0x4E49_4755
MAX_BATCH_ENTRIES = 500
#: After so many batches whoever drains looks up, for it may have been told to stop.
MAX_BATCHES_PER_DRAIN = 40
SCAN_COUNT = 1_000

#: Remove the first entries of the list, if they are still those that were read; set aside some of them.
#: Somebody else who read the same may have removed them before us; what is there now nobody has written yet.
REMOVE_SCRIPT = """
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
_decoder = msgspec.json.Decoder(UsageRecord)


@dataclass(frozen=True, slots=True)
class UsageBacklog:
    """What is still in Redis: `pending` entries on their way, and `dead_letters` that could not be written."""

    pending: int
    dead_letters: int


def encode_usage_record(account: UsageRecord) -> bytes:
    """Write an account for the buffer."""
    return _encoder.encode(account)


def drain(server: "redis.Redis") -> int:
    """Move what is in the buffer to Postgres; return how many entries. 0 also where another process is at it.

    Raises:
        RedisAway, DatabaseError, InterfaceError: nothing is lost; what was not moved is moved next time.
    """
    if not read_backlog(server).pending:
        return 0
    moved = 0
    with try_advisory_lock(DRAIN_LOCK) as acquired:
        for _ in range(MAX_BATCHES_PER_DRAIN if acquired else 0):
            entries = _read_first(server, MAX_BATCH_ENTRIES)
            if not entries:
                break
            aside = write_entries(entries)
            crash_point(CrashPoint.AFTER_COMMIT)
            moved += _remove_written(server, entries, aside)
    return moved


def close_orphaned_calls(server: "redis.Redis") -> int:
    """Close the accounts that killed processes left open, as lost; return how many. For an entry is told by its
    process what to take for its tokens: missing is not zero.

    Raises: as `drain`.
    """
    lost = 0
    with try_advisory_lock(DRAIN_LOCK) as acquired:
        for key in _orphaned_keys(server) if acquired else ():
            lost += _close_calls_of_process(server, key)
    return lost


def write_entries(entries: Sequence[bytes]) -> list[bytes]:
    """Write entries into usage events; return those that cannot be written.

    Raises:
        DatabaseError, InterfaceError: Postgres is away, or cannot do it now, and not all are written.
    """
    return _write_or_bisect(entries, _write_closed)


def read_backlog(server: "redis.Redis") -> UsageBacklog:
    """Return what is still in Redis. Raises `RedisAway`."""
    with translate_redis_errors():
        pipeline = server.pipeline(transaction=False)
        pipeline.llen(USAGE_RECORDS_KEY)
        pipeline.llen(DEAD_LETTER_KEY)
        pending, aside = pipeline.execute()
    return UsageBacklog(pending, aside)


async def read_backlog_async(server: "redis.asyncio.Redis") -> UsageBacklog:
    """Return what `read_backlog` does, on an event loop."""
    with translate_redis_errors():
        pipeline: Any = server.pipeline(transaction=False)
        pipeline.llen(USAGE_RECORDS_KEY)
        pipeline.llen(DEAD_LETTER_KEY)
        pending, aside = await pipeline.execute()
    return UsageBacklog(pending, aside)


# Redis


def _read_first(server: "redis.Redis", count: int) -> list[bytes]:
    with translate_redis_errors():
        entries: list[bytes] = server.lrange(USAGE_RECORDS_KEY, 0, count - 1)  # type: ignore[assignment] # typed for async, too
    return entries


def _remove_written(server: "redis.Redis", entries: Sequence[bytes], aside: Sequence[bytes]) -> int:
    arguments = [len(entries), entries[0], entries[-1], MAX_DEAD_LETTERS, DEAD_LETTER_TTL_SECONDS, *aside]
    with translate_redis_errors():
        return int(server.eval(REMOVE_SCRIPT, 2, USAGE_RECORDS_KEY, DEAD_LETTER_KEY, *arguments))  # type: ignore[arg-type]


def _orphaned_keys(server: "redis.Redis") -> Iterator[bytes]:
    """Yield the keys of open accounts whose process gives no sign of life."""
    with translate_redis_errors():
        keys = set(server.scan_iter(OPEN_CALLS_PATTERN, SCAN_COUNT))
    for key in keys:
        with translate_redis_errors():
            is_alive = server.exists(heartbeat_key(process_of_open_calls(key)))
        if not is_alive:
            yield key


def _close_calls_of_process(server: "redis.Redis", key: bytes) -> int:
    with translate_redis_errors():
        found: dict[bytes, bytes] = server.hgetall(key)  # type: ignore[assignment]
    if not found:
        return 0
    aside = _write_or_bisect(list(found.values()), _write_lost)
    crash_point(CrashPoint.AFTER_COMMIT)
    with translate_redis_errors():
        pipeline = server.pipeline()
        if aside:
            pipeline.lpush(DEAD_LETTER_KEY, *aside)
            pipeline.ltrim(DEAD_LETTER_KEY, 0, MAX_DEAD_LETTERS - 1)
            pipeline.expire(DEAD_LETTER_KEY, DEAD_LETTER_TTL_SECONDS)
        # Not the key: a process that was only slow may have opened another meanwhile.
        pipeline.hdel(key, *found)
        pipeline.execute()
    log.warning("orphaned_calls_closed", process=process_of_open_calls(key), calls=len(found))
    return len(found)


# Postgres


def _write_or_bisect(entries: Sequence[bytes], write: Callable[[Sequence[UsageRecord]], None]) -> list[bytes]:
    """Write what can be written; return the rest. One that cannot is found by halves, and holds up no other."""
    try:
        # Of two entries of a call the later one counts; one statement can write a row but once.
        write(list({account.dedupe_key: account for account in map(_decoder.decode, entries)}.values()))
    except Exception as error:  # whatever is wrong with an entry, the others must not wait for it
        if isinstance(error, DatabaseError | InterfaceError) and not isinstance(error, DataError | IntegrityError):
            # It is not the entries' fault: Postgres is away, or read-only, or in the middle of a migration.
            raise
        if len(entries) == 1:
            _log_dead_letter(entries[0], error)
            return list(entries)
        middle = len(entries) // 2
        return [*_write_or_bisect(entries[:middle], write), *_write_or_bisect(entries[middle:], write)]
    return []


def _write_closed(closed: Sequence[UsageRecord]) -> None:
    # Constraints that are checked at the commit must speak up in here.
    with transaction.atomic():
        usage_records.write(closed)


def _write_lost(opened: Sequence[UsageRecord]) -> None:
    with transaction.atomic():
        usage_records.write_lost(
            [msgspec.structs.replace(each, outcome=UsageOutcome.LOST, estimated=True) for each in opened]
        )


def _log_dead_letter(entry: bytes, error: Exception) -> None:
    try:
        name = _decoder.decode(entry).dedupe_key
    except (msgspec.DecodeError, UnicodeError):
        name = ""
    # A database quotes what it refuses; the class says enough.
    cause = type(error.__cause__).__name__ if isinstance(error, DatabaseError) and error.__cause__ else ""
    log.error("usage_record_dead_lettered", call=name, error=type(error).__name__, cause=cause)
