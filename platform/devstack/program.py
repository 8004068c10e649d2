"""A program that runs as a child process: how it is started, and with which signals it is stopped."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeAlias

from devstack import parent_death

#: A file, or the number of one.
Stream: TypeAlias = IO[bytes] | int

#: For servers: inherited variables such as PGDATA or LANG would change their behaviour.
CLEAN_ENVIRONMENT: Mapping[str, str] = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


@dataclass(frozen=True, slots=True)
class UnixUser:
    """A user of the operating system."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Program:
    name: str
    #: The first item is a path.
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path
    #: Requests a graceful shutdown; `kill_signal` follows after `grace_seconds`.
    stop_signal: signal.Signals = signal.SIGTERM
    grace_seconds: float = 10
    kill_signal: signal.Signals = signal.SIGKILL
    #: Sent by the kernel (Linux) when the parent process dies.
    orphan_signal: signal.Signals = signal.SIGKILL
    #: The user it runs as; None: the user of the parent process.
    unix_user: UnixUser | None = None


def command_line(program: Program) -> list[str]:
    """Return the command that starts the program so that the kernel signals it when this process dies.

    In fact when the starting *thread* ends: start programs from a thread that outlives them.
    """
    user, group = (
        (program.unix_user.uid, program.unix_user.gid)
        if program.unix_user
        else (parent_death.SAME_USER, parent_death.SAME_USER)
    )
    arguments = (os.getpid(), int(program.orphan_signal), user, group)
    return [sys.executable, "-I", "-S", parent_death.__file__, *map(str, arguments), *program.argv]


def launch(program: Program, output: Stream, errors: Stream = subprocess.STDOUT) -> subprocess.Popen[bytes]:
    """Start the program in a session of its own, so that a Ctrl-C reaches only the process that started it."""
    return subprocess.Popen(  # noqa: S603 (the command is ours)
        command_line(program),
        env=dict(program.environment),
        cwd=program.folder,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=errors,
        start_new_session=True,
    )


def stop(process: subprocess.Popen[bytes], program: Program) -> None:
    """Stop the process with ever stronger signals, wait for it, and kill the rest of its process group."""
    for signal_number, patience in stop_steps(program):
        if process.poll() is not None:
            break
        send(process.pid, signal_number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    send(process.pid, signal.SIGKILL)


def stop_steps(program: Program) -> tuple[tuple[signal.Signals, float], ...]:
    """Return the signals to send, each with the seconds to wait after it."""
    return ((program.stop_signal, program.grace_seconds), *kill_steps(program))


def kill_steps(program: Program) -> tuple[tuple[signal.Signals, float], ...]:
    """Return the signals to send after the grace period, each with the seconds to wait after it."""
    return ((program.kill_signal, 5.0), (signal.SIGKILL, 5.0))


def send(pid: int, signal_number: signal.Signals) -> None:
    """Signal the leader of a process group; SIGKILL goes to the whole group. Does nothing if it is gone."""
    # macOS raises PermissionError for a group that has only zombies.
    with suppress(ProcessLookupError, PermissionError):
        if signal_number == signal.SIGKILL:
            os.killpg(pid, signal_number)
        else:
            os.kill(pid, signal_number)


def run_to_end(argv: Sequence[str], user: UnixUser | None) -> subprocess.CompletedProcess[str]:
    """Run a short command as this user (None: the current one), in CLEAN_ENVIRONMENT."""
    return subprocess.run(  # noqa: S603 (the command is ours)
        argv,
        env=CLEAN_ENVIRONMENT,
        cwd="/",  # every user may enter it
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        user=user.uid if user else None,
        group=user.gid if user else None,
        extra_groups=[] if user else None,
    )
