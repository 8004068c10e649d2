"""Buffer of usage records in Redis, and their bulk transfer to Postgres: at least once, and idempotent.

live request ends ──▶ nd:usage (list) ──▶ read, written, committed ──▶ only then removed
                                              └─ cannot be written ──▶ nd:usage:aside (dead letters)
process killed ──▶ nd:open:<process> (hash) ──▶ written as lost ──▶ only then removed

An entry is a usage record as JSON. Its cost is computed when it is written to Postgres, because the price overrides are
read from there, and an event loop must not wait for that. Every record has a `dedupe_key`, so writing it twice changes
nothing.
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

#: Dead letters: records that could not be written, for an operator. The newest are kept, for a month.
DEAD_LETTER_KEY = b"nd:usage:aside"
MAX_DEAD_LETTERS = 10_000
DEAD_LETTER_TTL_SECONDS = 30 * 86_400

#: Advisory lock; a number that no other two-part advisory lock of this database uses.
DRAIN_LOCK = 0x4E49_4755
MAX_BATCH_ENTRIES = 500
#: After this many batches `drain` returns, so that the drainer can check whether it should stop.
MAX_BATCHES_PER_DRAIN = 40
SCAN_COUNT = 1_000

#: Remove the first entries of the list if they are still those that were read; add the given ones to the dead letters.
#: Another process that read the same entries may have removed them already; the entries there now are not written yet.
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
    """Usage records in Redis: `pending` ones to be written, and `dead_letters` that could not be written."""

    pending: int
    dead_letters: int


def encode_usage_record(record: UsageRecord) -> bytes:
    """Return a buffer entry."""
    return _encoder.encode(record)


def drain(server: "redis.Redis") -> int:
    """Move buffered records to Postgres; return how many. 0 also while another process is draining.

    Raises:
        RedisUnavailable, DatabaseError, InterfaceError: nothing is lost; the next call moves the rest.
    """
    if not read_backlog(server).pending:
        return 0
    moved = 0
    with try_advisory_lock(DRAIN_LOCK) as acquired:
        for _ in range(MAX_BATCHES_PER_DRAIN if acquired else 0):
            entries = _read_first(server, MAX_BATCH_ENTRIES)
            if not entries:
                break
            dead_letters = write_entries(entries)
            crash_point(CrashPoint.AFTER_COMMIT)
            moved += _remove_written(server, entries, dead_letters)
    return moved


def close_orphaned_calls(server: "redis.Redis") -> int:
    """Close the calls that killed processes left open, with the outcome lost; return how many.

    Each open record carries its process's estimate of the input tokens: unknown usage must not count as zero.

    Raises: as `drain`.
    """
    closed = 0
    with try_advisory_lock(DRAIN_LOCK) as acquired:
        for key in _orphaned_keys(server) if acquired else ():
            closed += _close_calls_of_process(server, key)
    return closed


def write_entries(entries: Sequence[bytes]) -> list[bytes]:
    """Write entries as usage events; return those that cannot be written.

    Raises:
        DatabaseError, InterfaceError: Postgres is unavailable or cannot write now; some entries are not written.
    """
    return _write_or_bisect(entries, _write_closed)


def read_backlog(server: "redis.Redis") -> UsageBacklog:
    """Return how many records are in Redis. Blocking. Raises `RedisUnavailable`."""
    with translate_redis_errors():
        pipeline = server.pipeline(transaction=False)
        pipeline.llen(USAGE_RECORDS_KEY)
        pipeline.llen(DEAD_LETTER_KEY)
        pending, dead_letters = pipeline.execute()
    return UsageBacklog(pending, dead_letters)


async def read_backlog_async(server: "redis.asyncio.Redis") -> UsageBacklog:
    """`read_backlog` for an event loop."""
    with translate_redis_errors():
        pipeline: Any = server.pipeline(transaction=False)
        pipeline.llen(USAGE_RECORDS_KEY)
        pipeline.llen(DEAD_LETTER_KEY)
        pending, dead_letters = await pipeline.execute()
    return UsageBacklog(pending, dead_letters)


# Redis


def _read_first(server: "redis.Redis", count: int) -> list[bytes]:
    with translate_redis_errors():
        entries: list[bytes] = server.lrange(USAGE_RECORDS_KEY, 0, count - 1)  # type: ignore[assignment] # typed for async, too
    return entries


def _remove_written(server: "redis.Redis", entries: Sequence[bytes], dead_letters: Sequence[bytes]) -> int:
    """Remove entries that are written or become dead letters; return how many, 0 if another process removed them."""
    arguments = [len(entries), entries[0], entries[-1], MAX_DEAD_LETTERS, DEAD_LETTER_TTL_SECONDS, *dead_letters]
    with translate_redis_errors():
        return int(server.eval(REMOVE_SCRIPT, 2, USAGE_RECORDS_KEY, DEAD_LETTER_KEY, *arguments))  # type: ignore[arg-type]


def _orphaned_keys(server: "redis.Redis") -> Iterator[bytes]:
    """Yield the keys of open calls whose process has no heartbeat."""
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
    dead_letters = _write_or_bisect(list(found.values()), _write_lost)
    crash_point(CrashPoint.AFTER_COMMIT)
    with translate_redis_errors():
        pipeline = server.pipeline()
        if dead_letters:
            pipeline.lpush(DEAD_LETTER_KEY, *dead_letters)
            pipeline.ltrim(DEAD_LETTER_KEY, 0, MAX_DEAD_LETTERS - 1)
            pipeline.expire(DEAD_LETTER_KEY, DEAD_LETTER_TTL_SECONDS)
        # Delete the fields, not the key: a process that was only slow may have opened another call meanwhile.
        pipeline.hdel(key, *found)
        pipeline.execute()
    log.warning("orphaned_calls_closed", process=process_of_open_calls(key), calls=len(found))
    return len(found)


# Postgres


def _write_or_bisect(entries: Sequence[bytes], write: Callable[[Sequence[UsageRecord]], None]) -> list[bytes]:
    """Write all valid entries; return the others. An invalid one is found by bisection, and delays no other."""
    try:
        # Of two entries of one call the later counts: one statement can write a row only once.
        write(list({record.dedupe_key: record for record in map(_decoder.decode, entries)}.values()))
    except Exception as error:  # whatever is wrong with an entry, the others must not wait for it
        if isinstance(error, DatabaseError | InterfaceError) and not isinstance(error, DataError | IntegrityError):
            # Not the entries' fault: Postgres is unavailable, read-only, or in the middle of a migration.
            raise
        if len(entries) == 1:
            _log_dead_letter(entries[0], error)
            return list(entries)
        middle = len(entries) // 2
        return [*_write_or_bisect(entries[:middle], write), *_write_or_bisect(entries[middle:], write)]
    return []


def _write_closed(closed: Sequence[UsageRecord]) -> None:
    # A transaction of its own, so that deferred constraints fail here and not in the caller.
    with transaction.atomic():
        usage_records.write(closed)


def _write_lost(opened: Sequence[UsageRecord]) -> None:
    with transaction.atomic():
        usage_records.write_lost(
            [msgspec.structs.replace(each, outcome=UsageOutcome.LOST, estimated=True) for each in opened]
        )


def _log_dead_letter(entry: bytes, error: Exception) -> None:
    try:
        call = _decoder.decode(entry).dedupe_key
    except (msgspec.DecodeError, UnicodeError):
        call = ""
    # Classes only: a database error quotes the values that it rejects.
    cause = type(error.__cause__).__name__ if isinstance(error, DatabaseError) and error.__cause__ else ""
    log.error("usage_record_dead_lettered", call=call, error=type(error).__name__, cause=cause)
