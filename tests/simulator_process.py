"""Start the provider simulator as a process of its own, as the product does."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from devstack.program import Program, launch, stop
from nightdesk import env
from tests.polling import wait_for

STDERR = 2
PLATFORM = Path(__file__).resolve().parents[1] / "platform"
SECONDS_TO_ANSWER = 10
SECONDS_TO_STOP = 5


@dataclass(frozen=True, slots=True)
class SimulatorProcess:
    """A running simulator. `/v1` behind the url is OpenAI's base, the url alone is Anthropic's."""

    url: str
    process: subprocess.Popen[bytes]

    @property
    def openai_url(self) -> str:
        return f"{self.url}/v1"

    def journal(
        self, *, after: int = 0, model: str | None = None, request_id: str | None = None
    ) -> list[dict[str, Any]]:
        """The journal's entries, oldest first."""
        wanted = {"after": after, "model": model, "request_id": request_id}
        query = urlencode({name: value for name, value in wanted.items() if value is not None})
        entries: list[dict[str, Any]] = self.ask("GET", f"/__sim/journal?{query}")["entries"]
        return entries

    def finished(self, count: int = 1) -> list[dict[str, Any]]:
        """The journal, once this many calls have finished."""

        def ended() -> list[dict[str, Any]]:
            entries = [entry for entry in self.journal() if entry["finished_at"] is not None]
            return entries if len(entries) >= count else []

        return wait_for(ended, seconds=SECONDS_TO_ANSWER)

    def script(self, model: str | None, outcomes: Sequence[str], *, key: str | None = None) -> None:
        """Script the outcomes of the next calls for this model, with this key, or both."""
        self.ask("PUT", "/__sim/script", {"model": model, "key": key, "outcomes": list(outcomes)})

    def clear(self) -> None:
        """Reset journal, scripts and rate limits."""
        self.ask("DELETE", "/__sim/journal")
        self.ask("DELETE", "/__sim/script")

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.url + path, data, method=method)
        with urlopen(request, timeout=SECONDS_TO_ANSWER) as answer:
            return json.load(answer)

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        self.process.kill()
        self.process.wait()


@contextmanager
def start_simulator(port: int | None = None, journal: Path | None = None) -> Iterator[SimulatorProcess]:
    """A simulator on a free port, or on this one, which ends with the block."""
    keeping = () if journal is None else ("--journal", str(journal))
    command = (sys.executable, "-m", "simulator", "--port", str(port or 0), *keeping)
    # `-m` looks in the current folder first, so the path need not be told.
    program = Program("simulator", command, env.child_environment({}), PLATFORM, grace_seconds=SECONDS_TO_STOP)
    with launch(program, subprocess.PIPE, STDERR) as process:
        try:
            yield SimulatorProcess(_address(process), process)
        finally:
            stop(process, program)


def _address(process: subprocess.Popen[bytes]) -> str:
    """Its first line of output is its address; there is none if it could not start."""
    assert process.stdout is not None
    line = process.stdout.readline().decode()
    name, _, url = line.strip().partition(": ")
    if name != "simulator":
        raise RuntimeError(f"The simulator did not start; it said {line!r}.")
    return url
