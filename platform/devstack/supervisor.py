"""Programs kept running together: their lines are told by name, who dies is started again, all are stopped in order.

Not honcho's manager: it starts programs through a shell, ends everything when one ends, and kills after five seconds,
where a worker needs half a minute to finish its calls.
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

#: A program that dies more often than this within the window is given up.
MAX_RESTARTS = 5
RESTART_WINDOW_SECONDS = 60.0
INITIAL_BACKOFF_SECONDS = 0.25
POLL_SECONDS = 0.05
READ_BYTES = 65536
#: More than a pipe holds.
READS_TO_FINISH = 16
MAX_LINE_BYTES = 1_000_000
#: The name in front of the supervisor's own lines.
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


def decide_restart(deaths: Sequence[float], now: float) -> RestartDecision:
    """Decide about a program that died at these times, the last one just now."""
    recent = sum(now - death < RESTART_WINDOW_SECONDS for death in deaths)
    if recent > MAX_RESTARTS:
        return StopRestarting()
    return RestartAfter(INITIAL_BACKOFF_SECONDS * 2 ** (recent - 1))


def describe_exit(returncode: int) -> str:
    """Say how a process ended, in words."""
    if returncode >= 0:
        return f"ended with exit code {returncode}"
    try:
        return f"was ended by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"was ended by signal {-returncode}"


class LineReader:
    """The output of a process, told line by line as it comes, from the event loop."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._part = b""
        self._read_end, self.write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        asyncio.get_running_loop().add_reader(self._read_end, self._read)

    def close_write_end(self) -> None:
        """Leave the writing to the child."""
        os.close(self.write_end)

    def finish(self) -> None:
        """Tell what is left in the pipe. Not until the end of file: a grandchild may hold it open."""
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
            self._tell(line.decode(errors="replace").rstrip("\r"))
        if len(self._part) > MAX_LINE_BYTES:
            self._emit_part()

    def _close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._read_end)
        os.close(self._read_end)
        self._read_end = -1
        if self._part:
            self._emit_part()

    def _emit_part(self) -> None:
        self._tell(self._part.decode(errors="replace"))
        self._part = b""


@dataclass(slots=True)
class SupervisedProcess:
    """A program and its process of the moment."""

    program: Program
    process: subprocess.Popen[bytes]
    outputs: tuple[LineReader, ...]
    restart_task: asyncio.Task[None] | None = None


class Supervisor:
    def __init__(self, say: PrintLine, remember: Callable[[Mapping[str, int]], None] = lambda _: None) -> None:
        """`remember` is told the processes that run, whenever that changes."""
        self._say = say
        self._remember = remember
        self._groups: list[list[SupervisedProcess]] = []
        self._is_killing = False
        #: Done when something happened that ends everything.
        self.failure: asyncio.Future[StackError] = asyncio.get_running_loop().create_future()

    # Starting

    def start(self, *programs: Program) -> None:
        """Start the programs as one group, and keep them running. Groups are stopped last in, first out."""
        group = [self._launch(program) for program in programs]
        self._groups.append(group)
        self._report_processes()
        for running in group:
            running.restart_task = asyncio.create_task(self._keep_running(running))

    async def run(self, program: Program) -> None:
        """Run a program to its end. Raises `ProgramFailed` unless it succeeds."""
        await self._to_end(self._launch(program))

    async def capture(self, program: Program) -> str:
        """Run a program to its end, and return what it wrote instead of telling it. Its errors are told.

        Raises `ProgramFailed` unless it succeeds.
        """
        written: list[str] = []
        await self._to_end(self._launch(program, written.append))
        return "\n".join(written)

    def say(self, line: str) -> None:
        """Tell a line of the supervisor's own."""
        self._tell(OWN_NAME, line)

    def _launch(self, program: Program, catch: Callable[[str], None] | None = None) -> SupervisedProcess:
        told = LineReader(lambda line: self._tell(program.name, line))
        if catch is None:
            outputs: tuple[LineReader, ...] = (told,)
            process = launch(program, told.write_end)
        else:
            outputs = (LineReader(catch), told)
            process = launch(program, outputs[0].write_end, told.write_end)
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

    # Keeping

    async def _keep_running(self, running: SupervisedProcess) -> None:
        deaths: list[float] = []
        while True:
            await self._ended(running)
            deaths.append(time.monotonic())
            end = describe_exit(running.process.returncode)
            match decide_restart(deaths, deaths[-1]):
                case StopRestarting():
                    self._fail(
                        ProgramFailed(
                            f"{running.program.name} {end}, {len(deaths)} times within a minute. See its lines above."
                        )
                    )
                    return
                case RestartAfter(delay):
                    self.say(f"{running.program.name} {end}; it is started again.")
                    await asyncio.sleep(delay)
            again = self._launch(running.program)
            running.process, running.outputs = again.process, again.outputs
            self._report_processes()

    def _fail(self, reason: StackError) -> None:
        if not self.failure.done():
            self.failure.set_result(reason)

    async def _ended(self, running: SupervisedProcess) -> None:
        # On no system but Linux can a child's end be awaited without threads.
        while running.process.poll() is None:  # noqa: ASYNC110
            await asyncio.sleep(POLL_SECONDS)
        _drain_output(running)

    # Stopping

    async def stop(self) -> None:
        """End all programs, the last group first, each in its own time. None is left, whatever they do."""
        # First all keepers: who is about to start a program again must not.
        for running in itertools.chain(*self._groups):
            if running.restart_task:
                running.restart_task.cancel()
        while self._groups:
            group = self._groups[-1]
            await asyncio.gather(*(self._end(running) for running in group))
            self._groups.pop()
        self._remember({})

    def kill_now(self) -> None:
        """Kill what still runs, from now on without patience."""
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

    # Telling

    def _tell(self, name: str, line: str) -> None:
        try:
            self._say(name, line)
        except BrokenPipeError:
            # As any program in a pipe: who cannot be heard stops.
            self._fail(ProgramFailed("Nobody reads the output any more."))

    def _report_processes(self) -> None:
        self._remember({running.program.name: running.process.pid for group in self._groups for running in group})


def _drain_output(running: SupervisedProcess) -> None:
    for lines in running.outputs:
        lines.finish()


async def run_until_stopped(supervisor: Supervisor, work: Coroutine[Any, Any, int], *, code_when_stopped: int) -> int:
    """Do the work until it is done, or cannot be, or somebody says stop; then end all programs.

    Returns the exit code: the work's own, `code_when_told` to stop, or 1 with the reason told.
    """
    told = _stop_requested(supervisor)
    task = asyncio.create_task(work)
    ends: set[asyncio.Future[Any]] = {task, told, supervisor.failure}
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
            supervisor.say("stopping; once more (Ctrl-C) kills.")
            return code_when_stopped
        reason = supervisor.failure.result()
    supervisor.say(f"cannot go on: {reason}")
    return 1


def _stop_requested(supervisor: Supervisor) -> asyncio.Future[None]:
    """Return what is done at the first signal; a later one makes the supervisor hurry."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[None] = loop.create_future()
    first_at = 0.0

    def on_signal() -> None:
        nonlocal first_at
        if not told.done():
            first_at = loop.time()
            told.set_result(None)
        elif loop.time() - first_at > 0.5:  # make passes a signal on: two at once are one
            supervisor.kill_now()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup sets it
        loop.add_signal_handler(signal.SIGHUP, on_signal)
    return told
