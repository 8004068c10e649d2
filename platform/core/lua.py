"""The interface of a Lua script, written once: a struct lists the fields, and these functions write its Lua side.

Python fills the struct by name. The script finds a local variable of the same name for each number, and the index of
each key and argument under its name in capitals: `KEYS[RUNNING]`. So a field that is added, moved or renamed changes on
both sides. Numbers travel as one string of little-endian doubles, Lua's only
number: one argument instead of many, and exact up to 2^53.
"""

import struct
from collections.abc import Iterable, Sequence
from enum import IntEnum
from itertools import chain
from typing import TypeAlias, TypeVar

from msgspec import Struct
from msgspec.structs import astuple

Fields: TypeAlias = type[Struct]
Row = TypeVar("Row", bound=Struct)


# The Python side


def pack_doubles(head: Struct | None, rows: Iterable[Struct] = ()) -> bytes:
    """Pack the fields of `head` and then of each row, all of them numbers."""
    numbers = [*(astuple(head) if head else ()), *chain.from_iterable(map(astuple, rows))]
    return struct.pack(f"<{len(numbers)}d", *numbers)


def unpack_doubles(packed: bytes, head: type[Row]) -> tuple[Row, Sequence[float]]:
    """Return the fields of `head`, and the numbers of the rows that follow it."""
    numbers = struct.unpack(f"<{len(packed) // 8}d", packed)
    count = len(head.__struct_fields__)
    return head(*numbers[:count]), numbers[count:]


# The Lua side

#: Locals, because looking a global up costs more than the call. The functions below use them.
LUA_LOCALS = "local KEYS, ARGV, pack, unpack_at = KEYS, ARGV, struct.pack, struct.unpack\n"


def lua_indexes(fields: Fields, count: str) -> str:
    """Return Lua that defines for each field its index in KEYS or ARGV, in capitals, and their number as `count`.

    A variable number of further keys or arguments may follow them.
    """
    names, numbers = [name.upper() for name in fields.__struct_fields__], range(1, len(fields.__struct_fields__) + 1)
    return f"local {', '.join(names)} = {', '.join(map(str, numbers))}\nlocal {count} = {len(numbers)}\n"


def lua_doubles(head: Fields, packed: str) -> str:
    """Return Lua that reads the fields at the beginning of the doubles in `packed`."""
    return f"local {_names(head)} = unpack_at('{_format(head)}', {packed})\n"


def lua_row_reader(name: str, row: Fields, packed: str, *, after: Fields | None = None) -> str:
    """Return a Lua function of i that returns the fields of the i-th row behind `after`, in their order."""
    begin = 8 * len(after.__struct_fields__) + 1 if after else 1
    offset = f"{begin} + {8 * len(row.__struct_fields__)} * (i - 1)"
    return f"local function {name}(i) return unpack_at('{_format(row)}', {packed}, {offset}) end\n"


def lua_packer(name: str, fields: Fields) -> str:
    """Return a Lua function of the fields that packs them as doubles."""
    names = _names(fields)
    return f"local function {name}({names}) return pack('{_format(fields)}', {names}) end\n"


def lua_constants(codes: type[IntEnum]) -> str:
    """Return Lua that defines the members of an enumeration as locals."""
    return f"local {', '.join(code.name for code in codes)} = {', '.join(str(code.value) for code in codes)}\n"


def _names(fields: Fields) -> str:
    return ", ".join(fields.__struct_fields__)


def _format(fields: Fields) -> str:
    return "<" + "d" * len(fields.__struct_fields__)
