"""Process supervisor: prints the lines of its programs, restarts those that exit, stops all of them in order.

Not honcho's manager, which starts programs through a shell, stops all when one exits, and kills after five seconds: a
worker needs half a minute to finish its calls.
"""

import asyncio
import itertools
import os
import signal
import subprocess
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from devstack.errors import ProgramFailed, StackError
from devstack.program import Program, kill_steps, launch, send, stop_steps

#: A program that exits more often than this within the window is not restarted.
MAX_RESTARTS = 5
RESTART_WINDOW_SECONDS = 60.0
INITIAL_BACKOFF_SECONDS = 0.25
POLL_SECONDS = 0.05
READ_BYTES = 65536
#: More than a pipe holds.
READS_TO_FINISH = 16
MAX_LINE_BYTES = 1_000_000
#: The prefix of the supervisor's own lines.
OWN_NAME = "nightdesk"

PrintLine: TypeAlias = Callable[[str, str], None]
SignalNumber: TypeAlias = signal.Signals


@dataclass(frozen=True, slots=True)
class RestartAfter:
    delay_seconds: float


@dataclass(frozen=True, slots=True)
class StopRestarting:
    pass


RestartDecision: TypeAlias = RestartAfter | StopRestarting


def decide_restart(exits: Sequence[float], now: float) -> RestartDecision:
    """Decide whether to restart a program that exited at these times, the last one just now."""
    recent = sum(now - at < RESTART_WINDOW_SECONDS for at in exits)
    if recent > MAX_RESTARTS:
        return StopRestarting()
    return RestartAfter(INITIAL_BACKOFF_SECONDS * 2 ** (recent - 1))


def describe_exit(returncode: int) -> str:
    """Describe how a process ended."""
    if returncode >= 0:
        return f"exited with code {returncode}"
    try:
        return f"was killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"was killed by signal {-returncode}"


class LineReader:
    """Passes the output of a process to a callback, line by line, from the event loop."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._part = b""
        self._read_end, self.write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        asyncio.get_running_loop().add_reader(self._read_end, self._read)

    def close_write_end(self) -> None:
        """Close our copy of the write end, once the child has inherited it."""
        os.close(self.write_end)

    def finish(self) -> None:
        """Pass on what is left in the pipe. Does not wait for its end: a grandchild may hold it open."""
        for _ in range(READS_TO_FINISH):
            if self._read_end >= 0:
                self._read()
        if self._read_end >= 0:
            self._close()

    def _read(self) -> None:
        try:
            chunk = os.read(self._read_end, READ_BYTES)
        except BlockingIOError:
            return
        if not chunk:
            self._close()
            return
        *lines, self._part = (self._part + chunk).split(b"\n")
        for line in lines:
            self._on_line(line.decode(errors="replace").rstrip("\r"))
        if len(self._part) > MAX_LINE_BYTES:
            self._emit_part()

    def _close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._read_end)
        os.close(self._read_end)
        self._read_end = -1
        if self._part:
            self._emit_part()

    def _emit_part(self) -> None:
        self._on_line(self._part.decode(errors="replace"))
        self._part = b""


@dataclass(slots=True)
class SupervisedProcess:
    """A program and its current process."""

    program: Program
    process: subprocess.Popen[bytes]
    outputs: tuple[LineReader, ...]
    restart_task: asyncio.Task[None] | None = None


class Supervisor:
    def __init__(self, print_line: PrintLine, record: Callable[[Mapping[str, int]], None] = lambda _: None) -> None:
        """`record` is called with the running processes, PIDs by name, whenever they change."""
        self._print_line = print_line
        self._record = record
        self._groups: list[list[SupervisedProcess]] = []
        self._is_killing = False
        #: Set when an error occurs that stops the whole stack.
        self.failure: asyncio.Future[StackError] = asyncio.get_running_loop().create_future()

    # Starting

    def start(self, *programs: Program) -> None:
        """Start the programs as one group, and restart those that exit. Groups are stopped in reverse order."""
        group = [self._launch(program) for program in programs]
        self._groups.append(group)
        self._report_processes()
        for running in group:
            running.restart_task = asyncio.create_task(self._restart_when_it_exits(running))

    async def run(self, program: Program) -> None:
        """Run a program until it exits. Raises `ProgramFailed` unless it succeeds."""
        await self._to_end(self._launch(program))

    async def capture(self, program: Program) -> str:
        """Run a program until it exits, and return its standard output. Its standard error is printed.

        Raises `ProgramFailed` unless it succeeds.
        """
        written: list[str] = []
        await self._to_end(self._launch(program, written.append))
        return "\n".join(written)

    def say(self, line: str) -> None:
        """Print a line of the supervisor."""
        self._print(OWN_NAME, line)

    def _launch(self, program: Program, catch: Callable[[str], None] | None = None) -> SupervisedProcess:
        printed = LineReader(lambda line: self._print(program.name, line))
        if catch is None:
            outputs: tuple[LineReader, ...] = (printed,)
            process = launch(program, printed.write_end)
        else:
            outputs = (LineReader(catch), printed)
            process = launch(program, outputs[0].write_end, printed.write_end)
        for lines in outputs:
            lines.close_write_end()
        return SupervisedProcess(program, process, outputs)

    async def _to_end(self, running: SupervisedProcess) -> None:
        group = [running]
        self._groups.append(group)
        await self._ended(running)
        self._groups.remove(group)
        if running.process.returncode != 0:
            end = describe_exit(running.process.returncode)
            raise ProgramFailed(f"{running.program.name} {end}. See its lines above.")

    # Restarting

    async def _restart_when_it_exits(self, running: SupervisedProcess) -> None:
        exits: list[float] = []
        while True:
            await self._ended(running)
            exits.append(time.monotonic())
            end = describe_exit(running.process.returncode)
            match decide_restart(exits, exits[-1]):
                case StopRestarting():
                    self._fail(
                        ProgramFailed(
                            f"{running.program.name} {end}, {len(exits)} times within a minute. See its lines above."
                        )
                    )
                    return
                case RestartAfter(delay):
                    self.say(f"{running.program.name} {end}; restarting it.")
                    await asyncio.sleep(delay)
            again = self._launch(running.program)
            running.process, running.outputs = again.process, again.outputs
            self._report_processes()

    def _fail(self, reason: StackError) -> None:
        if not self.failure.done():
            self.failure.set_result(reason)

    async def _ended(self, running: SupervisedProcess) -> None:
        # Only Linux can await the end of a child process without threads.
        while running.process.poll() is None:  # noqa: ASYNC110
            await asyncio.sleep(POLL_SECONDS)
        _drain_output(running)

    # Stopping

    async def stop(self) -> None:
        """Stop all programs, the last group first, each within its grace period. Those that do not stop are killed."""
        # First the restart tasks, so that none restarts a program meanwhile.
        for running in itertools.chain(*self._groups):
            if running.restart_task:
                running.restart_task.cancel()
        while self._groups:
            group = self._groups[-1]
            await asyncio.gather(*(self._end(running) for running in group))
            self._groups.pop()
        self._record({})

    def kill_now(self) -> None:
        """Kill the programs that still run, without waiting for their grace periods."""
        self._is_killing = True

    async def _end(self, running: SupervisedProcess) -> None:
        for signal_number, patience in stop_steps(running.program):
            if running.process.poll() is not None or self._is_killing:
                break
            send(running.process.pid, signal_number)
            await self._ended_within(running.process, patience, lambda: self._is_killing)
        for signal_number, patience in kill_steps(running.program):
            if running.process.poll() is not None:
                break
            send(running.process.pid, signal_number)
            await self._ended_within(running.process, patience, lambda: False)
        send(running.process.pid, signal.SIGKILL)  # what is left of its group
        _drain_output(running)

    async def _ended_within(
        self, process: subprocess.Popen[bytes], seconds: float, interrupted: Callable[[], bool]
    ) -> None:
        deadline = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < deadline and not interrupted():  # noqa: ASYNC110
            await asyncio.sleep(POLL_SECONDS)

    # Printing and recording

    def _print(self, name: str, line: str) -> None:
        try:
            self._print_line(name, line)
        except BrokenPipeError:
            # Stop when the reader of the pipe is gone, as other programs do.
            self._fail(ProgramFailed("The output pipe was closed."))

    def _report_processes(self) -> None:
        self._record({running.program.name: running.process.pid for group in self._groups for running in group})


def _drain_output(running: SupervisedProcess) -> None:
    for lines in running.outputs:
        lines.finish()


async def run_until_stopped(supervisor: Supervisor, work: Coroutine[Any, Any, int], *, code_when_stopped: int) -> int:
    """Run the work until it is done, it fails, or a signal stops it; then stop all programs.

    Returns the exit code: that of the work, `code_when_stopped`, or 1 after printing the reason.
    """
    stop_requested = _stop_requested(supervisor)
    task = asyncio.create_task(work)
    ends: set[asyncio.Future[Any]] = {task, stop_requested, supervisor.failure}
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        task.cancel()
        return await _exit_code(supervisor, task, code_when_stopped)
    finally:
        await supervisor.stop()


async def _exit_code(supervisor: Supervisor, task: asyncio.Task[int], code_when_stopped: int) -> int:
    try:
        return await task
    except StackError as error:
        reason = error
    except asyncio.CancelledError:
        if not supervisor.failure.done():
            supervisor.say("stopping gracefully; press Ctrl-C again to kill.")
            return code_when_stopped
        reason = supervisor.failure.result()
    supervisor.say(f"failed: {reason}")
    return 1


def _stop_requested(supervisor: Supervisor) -> asyncio.Future[None]:
    """Return a future that the first signal sets; a later signal makes the supervisor kill its programs."""
    loop = asyncio.get_running_loop()
    stop_requested: asyncio.Future[None] = loop.create_future()
    first_at = 0.0

    def on_signal() -> None:
        nonlocal first_at
        if not stop_requested.done():
            first_at = loop.time()
            stop_requested.set_result(None)
        elif loop.time() - first_at > 0.5:  # make forwards signals, so one Ctrl-C may arrive twice
            supervisor.kill_now()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup sets it
        loop.add_signal_handler(signal.SIGHUP, on_signal)
    return stop_requested
