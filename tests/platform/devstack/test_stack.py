import socket
from pathlib import Path

import pytest

from devstack.errors import AlreadyRunning, PortTaken
from devstack.options import StackOptions
from devstack.orphans import terminate_recorded
from devstack.ports import HOST, PortReservations, free_port
from devstack.stack import PROGRAM_NAMES, RECORDED_PROGRAMS, locked, make_plan, process_recorder


def test_a_data_folder_is_locked_by_one_stack(tmp_path: Path) -> None:
    with (
        locked(tmp_path / ".nightdesk"),
        pytest.raises(AlreadyRunning, match="already runs in this checkout"),
        locked(tmp_path / ".nightdesk"),
    ):
        pass

    with locked(tmp_path / ".nightdesk"):
        pass


def test_every_program_has_its_own_port_and_keeps_it(tmp_path: Path) -> None:
    with PortReservations() as ports:
        first = make_plan(tmp_path, StackOptions(free_port(), external_servers=False), ports)
    with PortReservations() as ports:
        again = make_plan(tmp_path, StackOptions(None, external_servers=False), ports)

    assert first.ports.keys() == {"postgres", "valkey", "simulator", "receiver"}
    assert len({*first.ports.values(), first.web_port}) == 5
    assert again.ports == first.ports


def test_configured_servers_are_used_instead_of_embedded_ones(tmp_path: Path) -> None:
    with PortReservations() as ports:
        plan = make_plan(tmp_path, StackOptions(None, external_servers=True), ports)

    assert plan.external_servers
    assert plan.ports.keys() == {"simulator", "receiver"}


def test_two_stacks_that_start_together_share_no_port(tmp_path: Path) -> None:
    with PortReservations() as one, PortReservations() as other:
        first = make_plan(tmp_path, StackOptions(None, external_servers=False), one)
        # A copied checkout even remembers the same ports.
        second = make_plan(tmp_path, StackOptions(None, external_servers=False), other)

    assert not {*first.ports.values(), first.web_port} & {*second.ports.values(), second.web_port}


def test_a_requested_port_that_is_in_use_is_an_error(tmp_path: Path) -> None:
    with (
        socket.create_server((HOST, 0)) as taken,
        PortReservations() as ports,
        pytest.raises(PortTaken, match=f"Port {taken.getsockname()[1]} "),
    ):
        make_plan(tmp_path, StackOptions(taken.getsockname()[1], external_servers=False), ports)


def test_servers_are_not_recorded(tmp_path: Path) -> None:
    # A number of no process: what is written down is looked at, not ended.
    process_recorder(tmp_path)({"postgres": 0, "web": 0})

    assert '"web"' in (tmp_path / "processes.json").read_text()
    assert "postgres" not in (tmp_path / "processes.json").read_text()
    assert terminate_recorded(tmp_path / "processes.json") == []
    assert set(RECORDED_PROGRAMS) < set(PROGRAM_NAMES)
