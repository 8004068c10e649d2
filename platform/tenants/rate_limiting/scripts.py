"""The Lua scripts, and what goes in and out of each: keys, arguments and numbers by name (`core.lua`)."""

from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Literal

from msgspec import Struct

from core.lua import LUA_LOCALS, lua_constants, lua_doubles, lua_indexes, lua_packer, lua_row_reader
from core.redis import LuaScript

FOLDER = Path(__file__).parent
NUMBERS = "local numbers = ARGV[NUMBERS]\n"


class QuotaReply(Struct, frozen=True, gc=False):
    """What remains of a window now, and when it is empty if nothing more is used."""

    remaining: float
    reset_us: float


# admit


class AdmitCode(IntEnum):
    ADMITTED = 0
    OVER_RATE_LIMIT = 1
    OVER_CONCURRENCY_LIMIT = 2
    NONCE_ALREADY_USED = 3
    IDEMPOTENCY_KEY_REUSED = 4
    ATTACH_TO_STREAM = 5
    CACHE_HIT = 6


class AdmitKeys(Struct, frozen=True, gc=False):
    running: bytes
    open_calls: bytes
    nonce: bytes
    idempotency: bytes
    cache: bytes


class AdmitArguments(Struct, frozen=True, gc=False):
    request_id: str
    body_hash: bytes
    stream_id: str
    open_usage_record: bytes
    numbers: bytes


class AdmitNumbers(Struct, frozen=True, gc=False):
    lease_ms: int
    #: 1: the request is put into `running`.
    takes_slot: int
    #: -1: no limit.
    max_concurrency: int
    #: Of a request that is answered from the cache.
    idempotency_ttl_ms: int


class AdmitWindow(Struct, frozen=True, gc=False):
    needed: int
    limit: int
    span_us: int


class AdmitReply(Struct, frozen=True, gc=False):
    code: int
    payload: bytes = b""


class AdmittedReply(Struct, frozen=True, gc=False):
    admitted_at_us: float


class RejectedReply(Struct, frozen=True, gc=False):
    #: The index of the window that has room last.
    fullest_window: float
    wait_us: float


# settle


class SettleKeys(Struct, frozen=True, gc=False):
    running: bytes
    open_calls: bytes
    usage_records: bytes
    idempotency: bytes


class SettleArguments(Struct, frozen=True, gc=False):
    request_id: str
    body_hash: bytes
    stream_id: str
    idempotency_key_action: Literal["keep", "drop"]
    numbers: bytes


class SettleNumbers(Struct, frozen=True, gc=False):
    #: Below 0: unknown, and this is the lease.
    admitted_at_us: int
    #: Used beyond what was reserved; below 0: to be released.
    unreserved_tokens: int
    window_count: int
    cache_count: int
    idempotency_ttl_ms: int


class SettleWindow(Struct, frozen=True, gc=False):
    span_us: int


class SettleCacheEntry(Struct, frozen=True, gc=False):
    ttl_ms: int


# renew


class RenewKeys(Struct, frozen=True, gc=False):
    running: bytes


class RenewArguments(Struct, frozen=True, gc=False):
    lease_ms: int
    request_count: int


# peek


class PeekKeys(Struct, frozen=True, gc=False):
    running: bytes


class PeekArguments(Struct, frozen=True, gc=False):
    numbers: bytes


class PeekWindow(Struct, frozen=True, gc=False):
    limit: int
    span_us: int


class PeekReply(Struct, frozen=True, gc=False):
    running_count: float


@dataclass(frozen=True, slots=True)
class Scripts:
    admit: LuaScript
    settle: LuaScript
    renew: LuaScript
    peek: LuaScript


def load_scripts(clock: str) -> Scripts:
    """Return the scripts with `clock`, Lua that defines the function `now_us`. Tests give one that they can set."""
    sliding = LUA_LOCALS + _read("sliding")
    return Scripts(
        admit=LuaScript(
            clock
            + sliding
            + lua_constants(AdmitCode)
            + lua_indexes(AdmitKeys, "KEY_COUNT")
            + lua_indexes(AdmitArguments, "ARGUMENT_COUNT")
            + NUMBERS
            + lua_doubles(AdmitNumbers, "numbers")
            + lua_row_reader("read_window", AdmitWindow, "numbers", after=AdmitNumbers)
            + lua_packer("pack_admitted", AdmittedReply)
            + lua_packer("pack_rejected", RejectedReply)
            + lua_packer("pack_quota", QuotaReply)
            + _read("admit")
        ),
        settle=LuaScript(
            clock
            + sliding
            + lua_indexes(SettleKeys, "KEY_COUNT")
            + lua_indexes(SettleArguments, "ARGUMENT_COUNT")
            + NUMBERS
            + lua_doubles(SettleNumbers, "numbers")
            + lua_row_reader("read_window", SettleWindow, "numbers", after=SettleNumbers)
            + lua_row_reader("read_cache_entry", SettleCacheEntry, "numbers", after=SettleNumbers)
            + _read("settle")
        ),
        renew=LuaScript(
            clock + lua_indexes(RenewKeys, "KEY_COUNT") + lua_indexes(RenewArguments, "ARGUMENT_COUNT") + _read("renew")
        ),
        peek=LuaScript(
            clock
            + sliding
            + lua_indexes(PeekKeys, "KEY_COUNT")
            + lua_indexes(PeekArguments, "ARGUMENT_COUNT")
            + NUMBERS
            + lua_row_reader("read_window", PeekWindow, "numbers")
            + lua_packer("pack_peek", PeekReply)
            + lua_packer("pack_quota", QuotaReply)
            + _read("peek")
        ),
    )


def _read(name: str) -> str:
    return (FOLDER / f"{name}.lua").read_text()


SCRIPTS = load_scripts(_read("clock"))
