"""The Lua side of a script's interface, against a real server: fields arrive under their names and come back."""

from enum import IntEnum

import pytest
from msgspec import Struct
from msgspec.structs import astuple
from pytest_django import Settings

from core.lua import (
    LUA_LOCALS,
    lua_constants,
    lua_doubles,
    lua_indexes,
    lua_packer,
    lua_row_reader,
    pack_doubles,
    unpack_doubles,
)
from core.redis import LuaScript, blocking_client


class Code(IntEnum):
    SUM = 7
    OTHER = 9


class Keys(Struct):
    first: bytes
    second: bytes


class Arguments(Struct):
    name: str
    numbers: bytes


class Head(Struct):
    base: int
    factor: int


class Row(Struct):
    left: float
    right: float


class Reply(Struct):
    total: float
    rows: float


SCRIPT = LuaScript(
    LUA_LOCALS
    + lua_constants(Code)
    + lua_indexes(Keys, "KEY_COUNT")
    + lua_indexes(Arguments, "ARGUMENT_COUNT")
    + "local numbers = ARGV[NUMBERS]\n"
    + lua_doubles(Head, "numbers")
    + lua_row_reader("read_row", Row, "numbers", after=Head)
    + lua_packer("pack_reply", Reply)
    + lua_packer("pack_row", Row)
    + """
    local total, rows, count = base, {}, #KEYS - KEY_COUNT
    for i = 1, count do
        local left, right = read_row(i)
        total = total + factor * (left - right)
        rows[i] = pack_row(right, left)
    end
    return {SUM, pack_reply(total, count) .. table.concat(rows), ARGV[NAME] .. KEYS[SECOND] .. ARGV[ARGUMENT_COUNT + 1]}
    """
)


@pytest.mark.parametrize(
    ("rows", "total"), [([], 100), ([Row(5, 3)], 120), ([Row(5, 3), Row(2**49, 0)], 120 + 10 * 2**49)]
)
def test_fields_keep_their_names_in_both_directions(settings: Settings, rows: list[Row], total: float) -> None:
    keys = [*astuple(Keys(first=b"k1", second=b"k2")), *(b"row" for _ in rows)]
    numbers = pack_doubles(Head(base=100, factor=10), rows)
    arguments = [*astuple(Arguments(name="name-", numbers=numbers)), "-rest"]

    with blocking_client(settings.REDIS_URL) as server:
        code, packed, text = SCRIPT.run_blocking(server, keys, arguments)

    reply, values = unpack_doubles(packed, Reply)
    assert (code, text) == (Code.SUM, b"name-k2-rest")
    assert reply == Reply(total=total, rows=len(rows))
    assert list(values) == [number for row in rows for number in (row.right, row.left)]


def test_rows_need_no_head() -> None:
    assert pack_doubles(None, [Row(1, 2)]) == pack_doubles(Row(1, 2))
