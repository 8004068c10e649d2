"""Worker processes for a test, forked from one that has loaded everything, with their exit codes."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from devstack.program import Program, launch, stop

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Recruit:
    """One worker process. Without a crash point it is healthy, and starts when all the others are dead."""

    name: str
    #: The queues it serves; none means all.
    queues: tuple[str, ...] = ()
    crash_at: str = ""
    #: Its concurrent webhook deliveries; 0 means none.
    deliveries: int = 0
    #: It starts when those before it are dead, and those after it start when it is.
    is_alone: bool = False


@contextmanager
def recruited(recruits: Sequence[Recruit], environment: Mapping[str, str], folder: Path) -> Iterator[dict[str, int]]:
    """Run them until the block ends. The dictionary collects the exit code of each that has exited."""
    orders = folder / "recruits.json"
    orders.write_text(json.dumps([asdict(recruit) for recruit in recruits]))
    program = Program("recruits", (sys.executable, "-m", "tests.chaos.doomed", str(orders)), environment, ROOT)
    with (folder / "recruits.log").open("ab") as log:
        process = launch(program, subprocess.PIPE, log)
    ends: dict[str, int] = {}
    assert process.stdout is not None
    reader = threading.Thread(target=_read_ends, args=(process.stdout, ends), daemon=True)
    reader.start()
    try:
        yield ends
    finally:
        stop(process, program)
        reader.join(10)
        process.stdout.close()


def _read_ends(lines: IO[bytes], ends: dict[str, int]) -> None:
    for line in lines:
        end = json.loads(line)
        ends[end["name"]] = end["code"]
