"""Redis keys that more than one room reads or writes, each with its owner: the room that says what it holds.

A key of one room is spelled in that room alone (`nd:{site}:…` in tenants.rate_limiting, `nd:stream:…` in
streams.entries, `nd:circuit-breakers` in inference.circuit_breaker, `nd:jobs:watched` in jobs). A test checks it.
"""

#: Owner: metering. A list of usage records as JSON on their way to Postgres. `tenants.rate_limiting` appends to it when
#: it settles a request, `live.ledger` a call after which another one is made, and `live.settlement` a cache hit;
#: `metering.buffer` drains it. If Redis is unavailable for settling, live requests write to Postgres instead.
USAGE_RECORDS_KEY = b"nd:usage"

_OPEN_CALLS_PREFIX = b"nd:open:"
#: For SCAN: the open calls of every process.
OPEN_CALLS_PATTERN = _OPEN_CALLS_PREFIX + b"*"


def open_calls_key(process_id: str) -> bytes:
    """Return the key of a process's open calls: a hash of request id to usage record.

    Owner: metering. `tenants.rate_limiting` adds a record when it admits a request and deletes it when it settles, and
    `live.ledger` replaces it for each further call; `metering.buffer` closes what a killed process leaves behind.
    """
    return _OPEN_CALLS_PREFIX + process_id.encode()


def process_of_open_calls(key: bytes) -> str:
    """Return the process id in an `open_calls_key`."""
    return key.removeprefix(_OPEN_CALLS_PREFIX).decode()


def heartbeat_key(process_id: str) -> str:
    """Return the key that exists as long as the process renews it.

    Owner: streams (`process.ProcessHeartbeat`; two more keys begin with this one: `streams.entries`). It tells a killed
    process from a slow one: `metering.buffer` reads it for a process's open calls, `live.admit` for a stream that a
    repeated request would attach to, and streams for the readers of its streams.
    """
    return f"nd:process:{process_id}"
