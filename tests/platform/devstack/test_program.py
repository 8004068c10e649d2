import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from devstack.orphans import is_alive
from devstack.program import CLEAN_ENVIRONMENT, Program, UnixUser, command_line, launch, run_to_end, send, stop
from tests.polling import wait_for

#: Says that it is up, then does nothing; and one that will not be told to stop.
PATIENT = "import time; print('up', flush=True); time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + PATIENT


def program(script: str, folder: Path, *, grace_seconds: float = 10, unix_user: UnixUser | None = None) -> Program:
    return Program(
        "dummy",
        (sys.executable, "-c", script),
        CLEAN_ENVIRONMENT,
        folder,
        grace_seconds=grace_seconds,
        unix_user=unix_user,
    )


def start(dummy: Program, log: Path) -> subprocess.Popen[bytes]:
    """Start it and wait until it has printed its first line."""
    with log.open("wb") as output:
        process = launch(dummy, output)
    wait_for(lambda: b"up\n" in log.read_bytes())
    return process


def test_a_program_stops_at_the_stop_signal(tmp_path: Path) -> None:
    dummy = program(PATIENT, tmp_path)
    process = start(dummy, tmp_path / "log")

    stop(process, dummy)

    assert process.returncode == -signal.SIGTERM


def test_a_program_that_ignores_the_stop_signal_is_killed(tmp_path: Path) -> None:
    dummy = program(STUBBORN, tmp_path, grace_seconds=0.1)
    process = start(dummy, tmp_path / "log")

    stop(process, dummy)

    assert process.returncode == -signal.SIGKILL


def test_child_processes_of_a_program_end_with_it(tmp_path: Path) -> None:
    script = (
        f"import subprocess, sys; c = subprocess.Popen([sys.executable, '-c', {STUBBORN!r}]); print(c.pid); {PATIENT}"
    )
    dummy = program(script, tmp_path)
    process = start(dummy, tmp_path / "log")
    wait_for(lambda: (tmp_path / "log").read_text().count("up\n") == 2)
    grandchild = next(int(line) for line in (tmp_path / "log").read_text().split() if line.isdigit())

    stop(process, dummy)

    wait_for(lambda: not is_alive(grandchild) or _is_zombie(grandchild))


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")


def test_stopping_twice_is_harmless(tmp_path: Path) -> None:
    dummy = program(PATIENT, tmp_path)
    process = start(dummy, tmp_path / "log")

    stop(process, dummy)
    stop(process, dummy)


def test_signaling_a_missing_process_is_harmless() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()

    send(gone.pid, signal.SIGTERM)
    send(gone.pid, signal.SIGKILL)


def test_a_child_has_its_own_environment_and_an_empty_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGDATA", "/elsewhere")
    script = "import os, sys; print(os.environ.get('PGDATA'), repr(sys.stdin.read()), os.getcwd()); print('up')"

    start(program(script, tmp_path), tmp_path / "log").wait()

    assert (tmp_path / "log").read_text() == f"None '' {tmp_path}\nup\n"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux does it")
def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    parent_script = f"""
import os, sys
from pathlib import Path
from devstack.program import Program, launch
process = launch(Program("dummy", (sys.executable, "-c", {STUBBORN!r}), dict(os.environ), Path("/")), sys.stdout)
print(process.pid, flush=True)
process.wait()
"""
    with subprocess.Popen(
        [sys.executable, "-c", parent_script],
        env={**CLEAN_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        first, second = parent.stdout.readline(), parent.stdout.readline()
        assert "up\n" in (first, second), "it has become the program"
        child = int(first if second == "up\n" else second)
        assert is_alive(child)
        parent.kill()

    wait_for(lambda: not is_alive(child) or _is_zombie(child))


def test_a_program_whose_parent_has_exited_does_not_start(tmp_path: Path) -> None:
    dummy = program("print('up')", tmp_path)
    with (tmp_path / "log").open("wb") as output:
        # A shell starts it in the background and ends: its parent is another by the time it looks.
        from_shell = subprocess.Popen(
            ["/bin/sh", "-c", '(sleep 0.2; exec "$@") & exit 0', "sh", *_with_parent_of(dummy)],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    from_shell.wait()

    wait_for(lambda: b"has exited" in (tmp_path / "log").read_bytes())
    assert b"up\n" not in (tmp_path / "log").read_bytes()


def _with_parent_of(dummy: Program) -> list[str]:
    # This test process is the parent that it expects, and never is.
    return command_line(dummy)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_root_starts_a_program_as_another_user_without_its_own_groups() -> None:
    script = """
from pathlib import Path
from devstack.program import Program, UnixUser, launch
import sys
launch(Program("id", ("/usr/bin/id",), {}, Path("/"), unix_user=UnixUser(65534, 65534)), sys.stdout).wait()
"""
    said = subprocess.run(
        [sys.executable, "-c", script],
        env={**CLEAN_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(sys.path)},
        extra_groups=[0, 4],
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert "uid=65534" in said
    assert "gid=65534" in said
    assert said.strip().endswith("groups=65534(nogroup)") or "groups" not in said
    assert "uid=65534" in run_to_end(["/usr/bin/id"], UnixUser(65534, 65534)).stdout
