"""Memory of a process, current and peak (Linux)."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

EVERY_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Memory:
    """In MB (10^6 bytes). The proportional size counts pages shared with other processes in part."""

    resident: float
    proportional: float


@dataclass(slots=True)
class Peak:
    """The peak so far."""

    memory: Memory

    def see(self, memory: Memory) -> None:
        self.memory = Memory(
            max(self.memory.resident, memory.resident), max(self.memory.proportional, memory.proportional)
        )


def memory_of(pid: int) -> Memory:
    """Return the memory of one process, without its children."""
    return parse_rollup(Path(f"/proc/{pid}/smaps_rollup").read_text())


def parse_rollup(text: str) -> Memory:
    """Parse the kernel's `smaps_rollup`."""
    found = {name: int(kib) * 1024 / 1e6 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}
    return Memory(found["Rss"], found["Pss"])


@contextmanager
def watched(pid: int) -> Iterator[Peak]:
    """Record the peak memory of the process while the block runs."""
    peak, done = Peak(memory_of(pid)), threading.Event()

    def watch() -> None:
        while not done.wait(EVERY_SECONDS):
            peak.see(memory_of(pid))

    thread = threading.Thread(target=watch, name="memory")
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
