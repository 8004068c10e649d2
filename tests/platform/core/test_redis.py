import asyncio
from pathlib import Path

import pytest
from django.conf import settings
from redis.asyncio import Redis

from core import redis
from core.redis import LuaScript, RedisUnavailable
from devstack.valkey import valkey_server
from tests.ports import own_port
from tests.stubborn_task import ignore_first_cancellation


async def test_an_event_loop_has_one_client_per_server() -> None:
    try:
        assert redis.client(settings.REDIS_URL) is redis.client(settings.REDIS_URL)
    finally:
        await redis.close_clients()


async def test_a_script_runs_whether_the_server_knows_it_or_not() -> None:
    server = redis.client(settings.REDIS_URL)
    try:
        await server.script_flush()
        script = LuaScript("return {KEYS[1], ARGV[1]}")

        answers = [await script.run(server, ["a"], [1]), await script.run(server, ["a"], [1])]
    finally:
        await redis.close_clients()

    assert answers == [[b"a", b"1"], [b"a", b"1"]]


async def test_an_unavailable_server_raises_redis_unavailable() -> None:
    try:
        with pytest.raises(RedisUnavailable):
            await LuaScript("return 1").run(redis.client("redis://127.0.0.1:1/0"), [], [])
    finally:
        await redis.close_clients()


async def test_a_silent_server_raises_after_the_timeout() -> None:
    callers: list[asyncio.StreamWriter] = []

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        callers.append(writer)

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        try:
            with pytest.raises(RedisUnavailable):
                await LuaScript("return 1").run(redis.client(f"redis://127.0.0.1:{port}/0"), [], [])
        finally:
            await redis.close_clients()
            for caller in callers:
                caller.close()
                await caller.wait_closed()


async def test_a_waiting_task_can_be_canceled_at_any_moment() -> None:
    server = redis.client(settings.REDIS_URL)
    try:
        for turns in range(12):
            await server.ping()
            asking = asyncio.create_task(_ask_twice(server))
            for _ in range(turns):
                await asyncio.sleep(0)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
    finally:
        await redis.close_clients()


async def _ask_twice(server: Redis) -> None:
    await server.ping()
    await asyncio.Event().wait()


async def test_concurrent_commands_get_their_own_replies() -> None:
    script = LuaScript("return ARGV[1]")
    server = redis.client(settings.REDIS_URL)
    try:
        answers = await asyncio.gather(*(script.run(server, [], [number]) for number in range(200)))
    finally:
        await redis.close_clients()

    assert answers == [b"%d" % number for number in range(200)]


async def test_an_error_in_one_command_does_not_affect_the_others() -> None:
    good, bad = LuaScript("return ARGV[1]"), LuaScript("return redis.call('no-such-command')")
    server = redis.client(settings.REDIS_URL)
    try:
        answers = await asyncio.gather(
            good.run(server, [], ["a"]), bad.run(server, [], []), good.run(server, [], ["b"]), return_exceptions=True
        )
    finally:
        await redis.close_clients()

    assert (answers[0], type(answers[1]), answers[2]) == (b"a", RedisUnavailable, b"b")


async def test_a_canceled_command_does_not_shift_the_replies() -> None:
    script = LuaScript("return ARGV[1]")
    server = redis.client(settings.REDIS_URL)
    try:
        gone = asyncio.create_task(script.run(server, [], ["gone"]))
        stays = asyncio.create_task(script.run(server, [], ["stays"]))
        await asyncio.sleep(0)
        gone.cancel()

        assert await stays == b"stays"
        assert await script.run(server, [], ["next"]) == b"next"
    finally:
        await redis.close_clients()


async def test_commands_work_after_a_restart_of_the_server(tmp_path: Path) -> None:
    port = own_port()
    script = LuaScript("return ARGV[1]")
    try:
        with valkey_server(tmp_path / "valkey", port) as valkey:
            assert await script.run(redis.client(valkey.url), [], ["before"]) == b"before"
        with valkey_server(tmp_path / "valkey", port) as valkey:
            assert await script.run(redis.client(valkey.url), [], ["after"]) == b"after"
    finally:
        await redis.close_clients()


async def test_clients_are_closed_only_after_an_attempt_to_connect_has_ended() -> None:
    server = redis.client(settings.REDIS_URL)
    connecting = asyncio.create_task(ignore_first_cancellation())
    redis._multiplexed_connection(server)._connecting = connecting  # type: ignore[assignment]
    await asyncio.sleep(0)

    async with asyncio.timeout(5):
        await redis.close_clients()

    assert connecting.cancelled()
