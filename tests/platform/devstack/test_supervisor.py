import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from devstack.errors import ProgramFailed, ServerFailed
from devstack.orphans import process_identity
from devstack.program import CLEAN_ENVIRONMENT, Program
from devstack.supervisor import (
    RestartAfter,
    RestartDecision,
    StopRestarting,
    Supervisor,
    decide_restart,
    describe_exit,
    run_until_stopped,
)
from tests.polling import wait_until

PATIENT = "print('up', flush=True); import time; time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + PATIENT


def program(name: str, script: str, *, grace_seconds: float = 10) -> Program:
    return Program(name, (sys.executable, "-c", script), CLEAN_ENVIRONMENT, Path("/"), grace_seconds=grace_seconds)


@dataclass
class Desk:
    """A supervisor, the lines it printed, and the processes it recorded."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    reports: list[Mapping[str, int]] = field(default_factory=list)
    deaf: bool = False

    def __post_init__(self) -> None:
        self.supervisor = Supervisor(self.say, self.reports.append)

    def say(self, name: str, line: str) -> None:
        if self.deaf:
            raise BrokenPipeError
        self.lines.append((name, line))

    def said(self, name: str) -> list[str]:
        return [line for who, line in self.lines if who == name]

    @property
    def pids(self) -> Mapping[str, int]:
        return self.reports[-1]

    def everyone(self) -> set[int]:
        return {pid for report in self.reports for pid in report.values()}


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk()
    yield desk
    desk.supervisor.kill_now()
    await desk.supervisor.stop()
    assert not [pid for pid in desk.everyone() if process_identity(pid)], "no process is left"


# Deciding


@pytest.mark.parametrize(
    ("deaths", "verdict"),
    [
        ([0.0], RestartAfter(0.25)),
        ([0.0, 1.0], RestartAfter(0.5)),
        ([0.0, 1.0, 2.0, 3.0, 4.0], RestartAfter(4.0)),
        ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], StopRestarting()),
        ([0.0, 1.0, 2.0, 3.0, 4.0, 60.5], RestartAfter(4.0)),
        ([0.0, 100.0, 200.0, 300.0, 400.0, 500.0, 600.0], RestartAfter(0.25)),
    ],
)
def test_a_program_is_restarted_five_times_a_minute(deaths: list[float], verdict: RestartDecision) -> None:
    assert decide_restart(deaths, deaths[-1]) == verdict


@pytest.mark.parametrize(
    ("returncode", "words"),
    [
        (0, "exited with code 0"),
        (3, "exited with code 3"),
        (-9, "was killed by SIGKILL"),
        (-63, "was killed by signal 63"),
    ],
)
def test_exits_are_described_in_words(returncode: int, words: str) -> None:
    assert describe_exit(returncode) == words


# Telling


async def test_every_line_is_printed_with_its_program(desk: Desk) -> None:
    desk.supervisor.start(program("one", PATIENT.replace("up", "first\\nsecond")), program("two", PATIENT))

    await wait_until(lambda: desk.said("two") == ["up"] and desk.said("one") == ["first", "second"])


async def test_stderr_invalid_utf8_and_an_unterminated_line_are_printed(desk: Desk) -> None:
    script = "import os; os.write(2, b'caf\\xc3'); os.write(2, b'\\xa9\\n\\xff\\r\\nlast')"

    await desk.supervisor.run(program("one", script))

    assert desk.said("one") == ["café", "\N{REPLACEMENT CHARACTER}", "last"]


async def test_all_output_of_a_program_that_exits_is_printed(desk: Desk) -> None:
    await desk.supervisor.run(program("one", "print('\\n'.join('x' * 100 for _ in range(5000)))"))

    assert len(desk.said("one")) == 5000


async def test_a_very_long_line_is_printed_in_parts(desk: Desk) -> None:
    await desk.supervisor.run(program("one", "print('x' * 2_500_000)"))

    assert sum(map(len, desk.said("one"))) == 2_500_000
    assert len(desk.said("one")) >= 2


async def test_a_grandchild_that_holds_the_pipe_open_does_not_block(desk: Desk) -> None:
    script = "import subprocess; subprocess.Popen(['/bin/sh', '-c', 'sleep 0.3; echo late']); print('up')"

    await desk.supervisor.run(program("one", script))
    await asyncio.sleep(0.6)

    assert desk.said("one") == ["up"]


async def test_a_closed_output_pipe_stops_the_stack(desk: Desk) -> None:
    desk.deaf = True
    desk.supervisor.start(program("one", PATIENT))

    assert "output pipe was closed" in str(await desk.supervisor.failure)


# Running to the end


async def test_a_failed_step_is_reported_with_its_exit_code(desk: Desk) -> None:
    with pytest.raises(ProgramFailed, match="migrate exited with code 3"):
        await desk.supervisor.run(program("migrate", "raise SystemExit(3)"))


async def test_capture_returns_stdout_and_prints_stderr(desk: Desk) -> None:
    script = "import sys; print('a secret'); print('and more'); print('a warning', file=sys.stderr)"

    assert await desk.supervisor.capture(program("seed", script)) == "a secret\nand more"

    assert desk.said("seed") == ["a warning"]


# Keeping


async def test_a_killed_program_is_restarted_and_reported(desk: Desk) -> None:
    desk.supervisor.start(program("web", PATIENT), program("worker", PATIENT))
    await wait_until(lambda: desk.said("web") == ["up"])
    before = dict(desk.pids)

    os.kill(before["web"], signal.SIGKILL)

    await wait_until(lambda: desk.said("web") == ["up", "up"])
    assert desk.said("nightdesk") == ["web was killed by SIGKILL; restarting it."]
    assert desk.pids["web"] != before["web"]
    assert desk.pids["worker"] == before["worker"]
    assert not desk.supervisor.failure.done()


async def test_a_program_that_keeps_exiting_is_not_restarted(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devstack.supervisor.INITIAL_BACKOFF_SECONDS", 0.0)
    desk.supervisor.start(program("web", "print('no such setting'); raise SystemExit(4)"))

    reason = await asyncio.wait_for(desk.supervisor.failure, 10)

    assert str(reason) == "web exited with code 4, 6 times within a minute. See its lines above."
    assert desk.said("web") == ["no such setting"] * 6


# Stopping


async def test_groups_are_stopped_in_reverse_order(desk: Desk, tmp_path: Path) -> None:
    def noted(name: str) -> Program:
        note = f"open({str(tmp_path / 'order')!r}, 'a').write({name + ' '!r})"
        script = (
            f"import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.1), {note}, sys.exit()))"
        )
        return program(name, f"{script}; {PATIENT}")

    for name in ("postgres", "simulator", "web"):
        desk.supervisor.start(noted(name))
    await wait_until(lambda: len(desk.lines) == 3)

    await desk.supervisor.stop()

    assert (tmp_path / "order").read_text() == "web simulator postgres "
    assert desk.pids == {}


async def test_a_program_gets_its_stop_signal_and_its_grace_period(desk: Desk) -> None:
    finish = "lambda *_: (time.sleep(0.3), print('done'), sys.exit())"
    script = f"import signal, sys, time; signal.signal(signal.SIGINT, {finish})"
    wants = Program(
        "worker",
        (sys.executable, "-c", f"{script}; {PATIENT}"),
        CLEAN_ENVIRONMENT,
        Path("/"),
        stop_signal=signal.SIGINT,
    )
    desk.supervisor.start(wants)
    await wait_until(lambda: desk.said("worker") == ["up"])

    await desk.supervisor.stop()

    assert desk.said("worker") == ["up", "done"]


async def test_a_program_that_exceeds_its_grace_period_is_killed(desk: Desk) -> None:
    desk.supervisor.start(program("worker", STUBBORN, grace_seconds=0.1))
    await wait_until(lambda: desk.said("worker") == ["up"])

    async with asyncio.timeout(3):
        await desk.supervisor.stop()


async def test_kill_now_skips_the_grace_period(desk: Desk) -> None:
    desk.supervisor.start(program("postgres", STUBBORN, grace_seconds=60), program("web", STUBBORN, grace_seconds=60))
    await wait_until(lambda: len(desk.lines) == 2)
    stopping = asyncio.create_task(desk.supervisor.stop())
    await asyncio.sleep(0.1)
    assert not stopping.done()

    desk.supervisor.kill_now()

    await asyncio.wait_for(stopping, 3)


async def test_stopping_prevents_a_pending_restart(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devstack.supervisor.INITIAL_BACKOFF_SECONDS", 0.3)
    desk.supervisor.start(program("web", "print('up')"))
    await wait_until(lambda: desk.said("nightdesk") != [])

    await desk.supervisor.stop()
    await asyncio.sleep(0.6)

    assert desk.said("web") == ["up"]


# Attending


async def forever() -> int:
    await asyncio.get_running_loop().create_future()
    return 0


async def test_all_programs_stop_when_the_work_is_done(desk: Desk) -> None:
    async def work() -> int:
        desk.supervisor.start(program("web", PATIENT))
        return 7

    assert await run_until_stopped(desk.supervisor, work(), code_when_stopped=0) == 7


async def test_a_failed_step_is_printed_and_the_exit_code_is_1(desk: Desk) -> None:
    async def work() -> int:
        desk.supervisor.start(program("web", PATIENT))
        raise ServerFailed("PostgreSQL does not answer.")

    assert await run_until_stopped(desk.supervisor, work(), code_when_stopped=0) == 1

    assert desk.said("nightdesk") == ["failed: PostgreSQL does not answer."]


async def test_a_program_that_is_not_restarted_fails_the_work(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devstack.supervisor.INITIAL_BACKOFF_SECONDS", 0.0)
    desk.supervisor.start(program("web", "raise SystemExit(4)"), program("worker", PATIENT))

    assert await run_until_stopped(desk.supervisor, forever(), code_when_stopped=0) == 1

    assert desk.said("nightdesk")[-1].startswith("failed: web exited with code 4, 6 times")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_stops_all_in_order(desk: Desk, number: signal.Signals) -> None:
    desk.supervisor.start(program("web", PATIENT))
    attending = asyncio.create_task(run_until_stopped(desk.supervisor, forever(), code_when_stopped=130))
    await wait_until(lambda: desk.said("web") == ["up"])

    os.kill(os.getpid(), number)

    assert await asyncio.wait_for(attending, 5) == 130


async def test_a_second_signal_kills_but_the_same_one_passed_on_twice_does_not(desk: Desk) -> None:
    desk.supervisor.start(program("web", STUBBORN, grace_seconds=60))
    attending = asyncio.create_task(run_until_stopped(desk.supervisor, forever(), code_when_stopped=0))
    await wait_until(lambda: desk.said("web") == ["up"])

    for _ in range(2):
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(0.1)
    await asyncio.sleep(0.6)
    assert not attending.done()
    os.kill(os.getpid(), signal.SIGINT)

    assert await asyncio.wait_for(attending, 3) == 0


async def test_under_nohup_a_closed_terminal_stops_nothing(desk: Desk) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        attending = asyncio.create_task(run_until_stopped(desk.supervisor, forever(), code_when_stopped=0))
        await asyncio.sleep(0.05)

        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0.2)

        assert not attending.done()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(attending, 3)
    finally:
        signal.signal(signal.SIGHUP, before)
