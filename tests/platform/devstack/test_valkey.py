import signal
import socket
import stat
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from devstack.embedded import run_server
from devstack.errors import PortTaken, ServerNotAvailable
from devstack.orphans import servers_in
from devstack.ports import HOST, free_port
from devstack.program import launch
from devstack.valkey import EXECUTABLE, prepare_valkey, valkey_server

#: A client that is refused would try three times more, for seconds.
ONCE = Retry(NoBackoff(), 0)


def test_valkey_requires_its_password_and_listens_on_loopback(tmp_path: Path) -> None:
    with valkey_server(tmp_path, free_port(), durable=False) as server, redis.Redis.from_url(server.url) as client:
        assert client.ping()
        assert client.config_get("bind") == {"bind": HOST}
        with redis.Redis(port=server.port, retry=ONCE) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()


def test_valkey_9_never_evicts_keys(tmp_path: Path) -> None:
    with valkey_server(tmp_path, free_port(), durable=False) as server, redis.Redis.from_url(server.url) as client:
        assert client.info("server")["valkey_version"].startswith("9.")
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


@pytest.mark.parametrize(("durable", "kept"), [(True, b"1"), (False, None)])
def test_durable_data_survives_a_restart(tmp_path: Path, durable: bool, kept: bytes | None) -> None:
    with valkey_server(tmp_path, free_port(), durable=durable) as server, redis.Redis.from_url(server.url) as client:
        client.set("a", 1)

    with valkey_server(tmp_path, free_port(), durable=durable) as server, redis.Redis.from_url(server.url) as client:
        assert client.get("a") == kept


def test_the_password_is_in_no_file_that_others_can_read_and_on_no_command_line(tmp_path: Path) -> None:
    embedded = prepare_valkey(tmp_path, free_port())
    password = embedded.url.partition("@")[0].rpartition(":")[2]

    assert not any(password in argument for argument in embedded.program.argv)
    for path in tmp_path.iterdir():
        if password in path.read_text():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nothing_runs_after_the_block(tmp_path: Path) -> None:
    with valkey_server(tmp_path, free_port(), durable=False) as server:
        assert list(servers_in(tmp_path, EXECUTABLE)) == [server.pid]

    assert list(servers_in(tmp_path, EXECUTABLE)) == []


def test_an_orphan_server_is_ended_by_the_next_start(tmp_path: Path) -> None:
    embedded = prepare_valkey(tmp_path, free_port())
    with (tmp_path / "server.log").open("wb") as output:
        left_behind = launch(embedded.program, output)
    while not embedded.is_ready():
        assert left_behind.poll() is None

    with valkey_server(tmp_path, embedded.port) as server:
        assert left_behind.wait(1) in (0, -signal.SIGTERM)
        assert list(servers_in(tmp_path, EXECUTABLE)) == [server.pid]


def test_a_data_folder_with_spaces_and_quotes_works(tmp_path: Path) -> None:
    folder = tmp_path / 'My "own" projects\\é'

    with valkey_server(folder, free_port()) as server, redis.Redis.from_url(server.url) as client:
        assert client.ping()


def test_a_port_in_use_is_reported(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=str(port)), valkey_server(tmp_path, port):
            pass


def test_a_port_that_is_taken_before_the_start_is_reported(tmp_path: Path) -> None:
    embedded = prepare_valkey(tmp_path, free_port())

    with (
        socket.create_server((HOST, embedded.port)),
        pytest.raises(PortTaken, match=str(embedded.port)),
        run_server(embedded, tmp_path / "server.log"),
    ):
        pass


def test_a_missing_wheel_is_an_error_that_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devstack.valkey.machine", lambda: "riscv64")

    with pytest.raises(ServerNotAvailable, match="Set DATABASE_URL and REDIS_URL"):
        prepare_valkey(tmp_path, free_port())
