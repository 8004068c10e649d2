"""Start-up time of a desk, in an empty folder and in one that it used before."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from subprocess import DEVNULL

from devstack.ports import free_port
from devstack.postgres_data import remove_cluster
from nightdesk import env
from tests.bench.report import Goal, Report, Row

ROOT = Path(__file__).resolve().parents[2]
LATER_STARTS = 3


def run() -> Report:
    """Start and stop `make run`'s body in a folder of its own, several times."""
    with tempfile.TemporaryDirectory(prefix="nightdesk-bench-") as folder:
        try:
            first = _start(Path(folder))
            later = [_start(Path(folder)) for _ in range(LATER_STARTS)]
        finally:
            remove_cluster(Path(folder) / "postgres")
    worst = max(later)
    rows = [Row("first start, requirements installed", first, "s"), Row("later start, worst of three", worst, "s")]
    goals = [Goal("later start", "less than 8 s", worst, worst < 8)]
    return Report("start", rows, goals)


def _start(folder: Path) -> float:
    """Start a desk until its card is written, stop it, and return the start-up time."""
    began = time.monotonic()
    command = [sys.executable, "-m", "devstack", "run", "--folder", str(folder)]
    environment = env.child_environment({"PORT": str(free_port())})
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=DEVNULL, stderr=DEVNULL) as process:
        while not (folder / "local.json").exists():
            if process.poll() is not None:
                raise RuntimeError("The desk did not come up.")
            time.sleep(0.02)
        seconds = time.monotonic() - began
        process.terminate()
    return seconds
