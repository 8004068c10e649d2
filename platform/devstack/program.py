"""A program to run as a child process: how it is started, and how it is asked to stop."""

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

#: For servers: variables such as PGDATA or LANG would change what they do.
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
    #: Asks for an orderly end; after `grace_seconds` comes `kill_signal`.
    stop_signal: signal.Signals = signal.SIGTERM
    grace_seconds: float = 10
    kill_signal: signal.Signals = signal.SIGKILL
    #: What it gets from the kernel (Linux) when the process that started it dies.
    orphan_signal: signal.Signals = signal.SIGKILL
    #: Whose rights it has; None for those of the process that starts it.
    account: UnixUser | None = None


def command_line(program: Program) -> list[str]:
    """Return the command that starts the program as a child tied to this process.

    The tie is to the starting *thread*: start programs from a thread that outlives them.
    """
    user, group = (
        (program.account.uid, program.account.gid)
        if program.account
        else (parent_death.SAME_USER, parent_death.SAME_USER)
    )
    tied = (os.getpid(), int(program.orphan_signal), user, group)
    return [sys.executable, "-I", "-S", parent_death.__file__, *map(str, tied), *program.argv]


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
    """End the process and what is left of its group, with ever stronger signals, and wait for it."""
    for signal_number, patience in stop_steps(program):
        if process.poll() is not None:
            break
        send(process.pid, signal_number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    send(process.pid, signal.SIGKILL)


def stop_steps(program: Program) -> tuple[tuple[signal.Signals, float], ...]:
    """Return what to send, and how long to wait after each."""
    return ((program.stop_signal, program.grace_seconds), *kill_steps(program))


def kill_steps(program: Program) -> tuple[tuple[signal.Signals, float], ...]:
    """Return what to send, and how long to wait after each, when there is no patience left."""
    return ((program.kill_signal, 5.0), (signal.SIGKILL, 5.0))


def send(pid: int, signal_number: signal.Signals) -> None:
    """Signal a process that leads its group; SIGKILL goes to the whole group. Nothing happens if it is gone."""
    # macOS says "not permitted" of a group that has only dead members.
    with suppress(ProcessLookupError, PermissionError):
        if signal_number == signal.SIGKILL:
            os.killpg(pid, signal_number)
        else:
            os.kill(pid, signal_number)


def run_to_end(argv: Sequence[str], account: UnixUser | None) -> subprocess.CompletedProcess[str]:
    """Run a short command with the account's rights, in an environment that says nothing."""
    return subprocess.run(  # noqa: S603 (the command is ours)
        argv,
        env=CLEAN_ENVIRONMENT,
        cwd="/",  # which every account may enter
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    )
