import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.errors import InvalidEnvironment, PortTaken
from devstack.ports import (
    DEFAULT_WEB_PORT,
    HOST,
    PortReservations,
    choose_saved_ports,
    choose_web_port,
    free_port,
    is_free,
    parse_port,
    require_free,
)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port with a listener."""
    with socket.create_server((HOST, 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def ports() -> Iterator[PortReservations]:
    with PortReservations() as ports:
        yield ports


def test_a_port_with_a_listener_is_not_free(taken: int) -> None:
    assert not is_free(taken)
    assert is_free(free_port())


def test_a_listener_on_all_addresses_takes_the_port_too() -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:  # noqa: S104 (that is the point)
        assert not is_free(server.getsockname()[1])


def test_lingering_connections_do_not_occupy_a_port() -> None:
    with socket.create_server((HOST, 0)) as server:
        port: int = server.getsockname()[1]
        client = socket.create_connection((HOST, port))
        accepted, _ = server.accept()
        accepted.close()  # the side that closes first keeps the connection for a minute
        client.close()

    assert is_free(port)


def test_the_error_names_the_port_and_what_to_do(taken: int) -> None:
    with pytest.raises(PortTaken, match=rf"Port {taken} .*lsof -i :{taken}.*choose another port"):
        require_free(taken)


def test_an_explicit_port_that_is_taken_is_an_error(ports: PortReservations, taken: int) -> None:
    with pytest.raises(PortTaken, match=f"Port {taken} .*another PORT"):
        choose_web_port(ports, taken)


def test_an_explicit_port_is_used(ports: PortReservations) -> None:
    port = free_port()

    assert choose_web_port(ports, port) == port


def test_without_a_port_the_first_free_one_from_the_default_on_is_used(ports: PortReservations) -> None:
    with PortReservations() as another_stack:
        first = choose_web_port(another_stack, None)
        second = choose_web_port(ports, None)

    assert DEFAULT_WEB_PORT <= first < second < DEFAULT_WEB_PORT + 100


def test_a_port_held_by_one_stack_is_not_given_to_another_until_it_ends(ports: PortReservations) -> None:
    port = free_port()
    with PortReservations() as another_stack:
        assert another_stack.reserve(port)
        assert is_free(port), "the sign must not be in the way of the server"
        assert not ports.reserve(port)

    assert ports.reserve(port)


def test_a_restart_gets_the_same_ports(tmp_path: Path) -> None:
    with PortReservations() as ports:
        before = choose_saved_ports(ports, ["postgres", "valkey"], tmp_path / "ports.json")
    with PortReservations() as ports:
        after = choose_saved_ports(ports, ["postgres", "valkey"], tmp_path / "ports.json")

    assert before == after
    assert len(set(before.values())) == 2


def test_a_saved_port_that_is_in_use_is_replaced_and_saved(tmp_path: Path, ports: PortReservations, taken: int) -> None:
    memory = tmp_path / "ports.json"
    memory.write_text(json.dumps({"postgres": taken}))

    chosen = choose_saved_ports(ports, ["postgres"], memory)

    assert chosen["postgres"] != taken
    assert json.loads(memory.read_text()) == chosen


@pytest.mark.parametrize("rubbish", ["", "{", "[1]", '{"postgres": "5432"}', '{"postgres": 99999}'])
def test_an_invalid_file_of_saved_ports_is_ignored(tmp_path: Path, ports: PortReservations, rubbish: str) -> None:
    (tmp_path / "ports.json").write_text(rubbish)

    assert is_free(choose_saved_ports(ports, ["postgres"], tmp_path / "ports.json")["postgres"])


@pytest.mark.parametrize(("text", "port"), [("1", 1), ("8000", 8000), ("65535", 65535)])
def test_a_port_is_parsed(text: str, port: int) -> None:
    assert parse_port(text) == port


@pytest.mark.parametrize("text", ["0", "65536", "-1", "80a", " 80", "8e3", "٨٠"])
def test_an_invalid_port_number_is_an_error(text: str) -> None:
    with pytest.raises(InvalidEnvironment, match="PORT must be a number"):
        parse_port(text)
