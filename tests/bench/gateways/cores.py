"""Processor cores: pins processes to cores and measures how busy each was (Linux)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

#: user nice system idle iowait irq softirq steal; what guests use is counted as user time already.
FIELDS = slice(1, 9)


@dataclass(frozen=True, slots=True)
class Cores:
    gateway: int
    #: Of the load generator, the simulator, and all else.
    load: int


class TooFewCores(Exception):
    """There are not two cores to separate the gateway from the load generator."""


def available() -> set[int]:
    """Return the cores that this process may use."""
    return os.sched_getaffinity(0)


def choose(available: set[int]) -> Cores:
    """Choose the last two cores: the first one handles most interrupts."""
    if len(available) < 2:
        raise TooFewCores(f"Gateways are measured on two cores, and there is {len(available)} for this process.")
    load, gateway = sorted(available)[-2:]
    return Cores(gateway, load)


@contextmanager
def on(core: int) -> Iterator[None]:
    """Pin this thread, and processes started in the block, to the cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def move(pid: int, core: int) -> None:
    """Pin a running process with all its threads."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        # A thread may end meanwhile.
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), {core})


@dataclass(frozen=True, slots=True)
class Ticks:
    """Ticks of one core since boot."""

    busy: int
    available: int


def ticks_of(core: int) -> Ticks:
    return parse_core(Path("/proc/stat").read_text(), core)


def parse_core(text: str, core: int) -> Ticks:
    """Read a core's line of the machine's `stat`."""
    (line,) = (line for line in text.splitlines() if line.startswith(f"cpu{core} "))
    times = [int(field) for field in line.split()[FIELDS]]
    return Ticks(sum(times) - times[3] - times[4], sum(times))


def busy_share(before: Ticks, after: Ticks) -> float:
    """Return which part of the time between the core was busy."""
    return (after.busy - before.busy) / max(after.available - before.available, 1)
