"""Processor time: what a process used, and what other programs took from the machine meanwhile (Linux)."""

import os
import resource
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
#: Above this share a figure is not trustworthy.
CROWDED = 0.15


@dataclass(frozen=True, slots=True)
class Usage:
    """Processor seconds since some beginning."""

    #: By all programs together, and by other machines on the same host.
    busy: float
    #: By all processors together, used or not.
    available: float
    #: By this process and those of its children that have ended.
    ours: float


def seconds_of(pid: int) -> float:
    """Return how many seconds a process and its ended children have used."""
    return parse_stat(Path(f"/proc/{pid}/stat").read_text())


def parse_stat(text: str) -> float:
    """Read a process's `stat`. Its second field is a name in brackets, which may hold anything."""
    fields = text.rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS


def usage_now() -> Usage:
    ours = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    busy, available = parse_machine(Path("/proc/stat").read_text())
    return Usage(busy, available, sum(each.ru_utime + each.ru_stime for each in ours))


def parse_machine(text: str) -> tuple[float, float]:
    """Read the machine's `stat`: the seconds that its processors were busy, and all their seconds."""
    # user nice system idle iowait irq softirq steal; what guests use is counted as user time already.
    times = [int(field) / TICKS for field in text.split("\n", 1)[0].split()[1:9]]
    idle = times[3] + times[4]
    return sum(times) - idle, sum(times)


def share_of_others(before: Usage, after: Usage) -> float:
    """Return which part of the machine other programs took. All our children must have ended."""
    others = (after.busy - before.busy) - (after.ours - before.ours)
    return max(others, 0.0) / (after.available - before.available)
