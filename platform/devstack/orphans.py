"""Orphans: processes that an earlier, killed stack left behind. Finds them, checks that they are ours, ends them."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from devstack import private_files
from devstack.errors import ServerFailed
from devstack.program import send

PROC = Path("/proc")


def terminate_servers_in(folder: Path, executable: str, stop_signal: signal.Signals) -> None:
    """End every server with this executable name and working folder; servers of other folders are not ours.

    Raises `ServerFailed` if one does not end.
    """
    terminate(lambda: list(servers_in(folder, executable)), stop_signal)


def terminate(find: Callable[[], list[int]], stop_signal: signal.Signals) -> None:
    """Signal the processes that `find` returns, with ever stronger signals, until it returns none."""
    for signal_number, patience in ((stop_signal, 10.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0)):
        for pid in find():
            send(pid, signal_number)
        if _wait_until(lambda: not find(), patience):
            return
    raise ServerFailed(f"Processes of an earlier start do not end: {', '.join(map(str, find()))}. End them yourself.")


def servers_in(folder: Path, executable: str) -> Iterator[int]:
    """Yield the processes of that executable whose working folder is `folder`: a server runs in its data folder."""
    if not PROC.joinpath("self", "cwd").exists():
        yield from _servers_named(folder, executable)
        return
    for process in PROC.iterdir():
        # A process may end meanwhile, and those of other users cannot be read.
        with suppress(OSError):
            if process.name.isdigit() and process.joinpath("cwd").readlink() == folder.resolve():
                name = process.joinpath("exe").readlink().name.removesuffix(" (deleted)")
                if name == executable and not _is_zombie(process):
                    yield int(process.name)


def _is_zombie(process: Path) -> bool:
    return _stat_fields(process)[0] == "Z"


def _stat_fields(process: Path) -> list[str]:
    """Return the fields of /proc/PID/stat from the third (state) on; the second may hold spaces."""
    return process.joinpath("stat").read_text().rpartition(")")[2].split()


def _servers_named(folder: Path, executable: str) -> Iterator[int]:
    """`servers_in` for systems without /proc: by the command line, which contains the folder."""
    for pid, command in _ps("command"):
        program = command.split(" ", 1)[0]
        if Path(program).name == executable and str(folder) in command:
            yield pid


def _ps(field: str) -> Iterator[tuple[int, str]]:
    listed = subprocess.run(  # noqa: S603 (the command is ours)
        ["/bin/ps", "-axo", f"pid=,{field}="], capture_output=True, text=True, check=True
    )
    for line in listed.stdout.splitlines():
        pid, _, value = line.strip().partition(" ")
        yield int(pid), value.strip()


def process_identity(pid: int) -> str | None:
    """Return a value that differs between this process and a later one with the same PID; None if it does not exist."""
    if not PROC.joinpath("self", "stat").exists():
        return dict(_ps("lstart")).get(pid)
    try:
        boot = PROC.joinpath("sys/kernel/random/boot_id").read_text().strip()
        fields = _stat_fields(PROC / str(pid))
    except OSError:
        return None
    return None if fields[0] == "Z" else f"{boot} {fields[19]}"


def record_processes(processes: Mapping[str, int], file: Path) -> None:
    """Record the running processes, so that the next start can end them if this one is killed."""
    private_files.write_json(
        file, {name: {"pid": pid, "birth": process_identity(pid)} for name, pid in processes.items()}
    )


def terminate_recorded(file: Path) -> list[str]:
    """End the recorded processes that still run, and return their names."""
    recorded = dict(_read_recorded(file))
    running = [name for name, (pid, born) in recorded.items() if process_identity(pid) == born]
    still = [recorded[name] for name in running]
    if still:
        terminate(lambda: [pid for pid, born in still if process_identity(pid) == born], signal.SIGTERM)
    return running


def _read_recorded(file: Path) -> Iterable[tuple[str, tuple[int, str]]]:
    try:
        found = json.loads(file.read_text())
        return [(name, (int(one["pid"]), str(one["birth"]))) for name, one in found.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def is_alive(pid: int) -> bool:
    """Whether any process has this PID."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _wait_until(true: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
