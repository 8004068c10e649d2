"""One measurement by the load generator in its own process, and statistics over several."""

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from devstack.stack import ROOT
from tests.bench.figures import percentile
from tests.bench.gateways.cores import Cores, Ticks, busy_share, ticks_of
from tests.bench.gateways.systems import PLAIN, System
from tests.bench.gateways.task import BODY_BYTES, Load, Outcome
from tests.bench.processor import seconds_of

T = TypeVar("T")
STREAM_BODY_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Pace:
    """How long to measure. The rate of an open loop decides too: a slow system has fewer requests in a second."""

    rounds: int = 2
    seconds: float = 5.0
    most_seconds: float = 20.0
    samples: int = 400
    idle: Sequence[int] = (500, 2000)

    def seconds_at(self, rate: float) -> float:
        return min(max(self.seconds, self.samples / rate), self.most_seconds)


@dataclass(frozen=True, slots=True)
class Measured:
    outcome: Outcome
    #: Of all processes that a request waits for, from the first request to the last answer.
    processor_seconds: float
    gateway_busy: float
    load_busy: float

    @property
    def answered(self) -> int:
        return self.outcome.answered


@dataclass(frozen=True, slots=True)
class Added:
    """What a gateway adds to the time without one, at one rate."""

    rate: float
    p50_ms: float
    p99_ms: float


@dataclass(slots=True)
class Bench:
    """The measured systems, their cores, and complaints."""

    cores: Cores
    pace: Pace
    direct: System
    gateways: Sequence[System]
    complaints: list[str] = field(default_factory=list)

    @property
    def everyone(self) -> Sequence[System]:
        return [self.direct, *self.gateways]

    def measure(self, system: System, load: Load) -> Measured:
        """Apply the load to one system, from the other core."""
        before, ticks = self._processor_seconds(system), self._ticks()
        made = subprocess.run(
            [sys.executable, "-m", "tests.bench.gateways.load"],
            input=msgspec.json.encode(load),
            cwd=ROOT,
            capture_output=True,
            check=False,
        )
        if made.returncode != 0:
            raise RuntimeError(f"The load generator failed:\n{made.stderr.decode(errors='replace')[-1500:]}")
        outcome = msgspec.json.decode(made.stdout, type=Outcome)
        if outcome.failures:
            self._complain(system, load, outcome)
        busy = [busy_share(old, new) for old, new in zip(ticks, self._ticks(), strict=True)]
        return Measured(outcome, self._processor_seconds(system) - before, *busy)

    def load(self, system: System, model: str = PLAIN, rate: float | None = None) -> Load:
        """Return the load that measures this model of a system."""
        is_plain = model == PLAIN
        return Load(
            url=system.url,
            headers=dict(system.headers),
            model=system.models[model],
            stream=not is_plain,
            body_bytes=BODY_BYTES if is_plain else STREAM_BODY_BYTES,
            rate=rate,
            seconds=self.pace.seconds if rate is None else self.pace.seconds_at(rate),
        )

    def _ticks(self) -> Sequence[Ticks]:
        return [ticks_of(core) for core in (self.cores.gateway, self.cores.load)]

    def _processor_seconds(self, system: System) -> float:
        return sum(map(seconds_of, system.pids))

    def _complain(self, system: System, load: Load, outcome: Outcome) -> None:
        kind = "streams" if load.stream else "requests"
        all_of_them = outcome.failures + len(outcome.latencies)
        complaint = " ".join(outcome.complaint.split())[:160]
        self.complaints.append(f"{system.name}: {outcome.failures} of {all_of_them:,} {kind} failed: {complaint}")


def in_turns(systems: Sequence[System], rounds: int, act: Callable[[System], T]) -> Mapping[str, Sequence[T]]:
    """Act on one system after the other, A B C A B C, so that noise of the machine affects all alike."""
    results: dict[str, list[T]] = {system.name: [] for system in systems}
    for _ in range(rounds):
        for system in systems:
            results[system.name].append(act(system))
    return results


def added(rate: float, through: Sequence[float], direct: Sequence[float]) -> Added:
    """Compare times in seconds, of which the direct ones were measured at the same rate."""
    p50_ms, p99_ms = ((percentile(through, share) - percentile(direct, share)) * 1000 for share in (0.5, 0.99))
    return Added(rate, p50_ms, p99_ms)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def mean_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return our ratio to a peer, averaged over the rounds."""
    return mean([our / their for our, their in zip(ours, theirs, strict=True)])
