import asyncio

import pytest
from django.conf import settings

from core import redis
from core.redis import RedisAway, Script


async def test_a_loop_has_one_client_for_a_server() -> None:
    try:
        assert redis.client(settings.REDIS_URL) is redis.client(settings.REDIS_URL)
    finally:
        await redis.close_clients()


async def test_a_script_runs_whether_the_server_knows_it_or_not() -> None:
    server = redis.client(settings.REDIS_URL)
    try:
        await server.script_flush()
        script = Script("return {KEYS[1], ARGV[1]}")

        answers = [await script.run(server, ["a"], [1]), await script.run(server, ["a"], [1])]
    finally:
        await redis.close_clients()

    assert answers == [[b"a", b"1"], [b"a", b"1"]]


async def test_a_server_that_is_away_is_one_error() -> None:
    try:
        with pytest.raises(RedisAway):
            await Script("return 1").run(redis.client("redis://127.0.0.1:1/0"), [], [])
    finally:
        await redis.close_clients()


async def test_a_server_that_never_answers_is_given_up() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        try:
            with pytest.raises(RedisAway):
                await Script("return 1").run(redis.client(f"redis://127.0.0.1:{port}/0"), [], [])
        finally:
            await redis.close_clients()
