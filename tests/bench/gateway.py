"""Gateways side by side: Nightdesk, LiteLLM, Portkey and a pass-through, with the same simulator and the same load.

The gateway has one core, the load generator and the simulator have the other. Systems take turns (A B C A B C), so that
their ratios hold even where the machine is noisy. Latency is added latency: through the gateway, less straight to the
simulator at the same rate; each request's time runs from the moment it was due.
"""

import resource
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from tests.bench.books import opened
from tests.bench.desk import running_desk
from tests.bench.figures import percentile
from tests.bench.gateways import cores, systems
from tests.bench.gateways.measure import Added, Bench, Measured, Pace, added, in_turns, mean
from tests.bench.gateways.peers import NotInstalled
from tests.bench.gateways.systems import (
    IDLE,
    LITELLM,
    NIGHTDESK,
    PASS_THROUGH,
    PLAIN,
    PORTKEY,
    STREAM,
    System,
)
from tests.bench.gateways.table import NOTES, ORDER, CacheHits, Findings, Idle, Most, to_report
from tests.bench.memory import memory_of, watched
from tests.bench.progress import tell
from tests.bench.report import Report

#: File descriptors: a gateway holds two for each stream.
DESCRIPTORS = 20_000
#: Requests per second of an open loop for a system that answers nothing in time.
LEAST_RATE = 1.0


def run(pace: Pace | None = None) -> Report:
    _raise_limit_of_files()
    chosen = cores.choose(cores.available())
    with cores.on(chosen.load), _started(chosen, pace or Pace()) as (bench, left_out):
        findings = _measure(bench)
    return to_report(findings, [*NOTES, *_versions(bench), *left_out, *bench.complaints])


def _versions(bench: Bench) -> Iterator[str]:
    if versions := [f"{system.name} {system.version}" for system in bench.gateways if system.version]:
        yield f"Versions: {', '.join(versions)}."


# Systems


@contextmanager
def _started(chosen: cores.Cores, pace: Pace) -> Iterator[tuple[Bench, Sequence[str]]]:
    """Start all systems; return why one is left out."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nightdesk-bench-")))
        desk = stack.enter_context(running_desk())
        books = stack.enter_context(opened(desk.database_url))
        stack.enter_context(desk.worker())
        upstream, gateways, left_out = desk.card.simulator_url, [], []
        for name, start in (
            (PASS_THROUGH, systems.pass_through),
            (PORTKEY, systems.portkey),
            (LITELLM, systems.litellm),
        ):
            tell(f"starting {name}")
            try:
                gateways.append(stack.enter_context(start(upstream, folder, chosen.gateway)))
            except NotInstalled as error:
                left_out.append(f"{name} is left out: {error}.")
        ours = systems.nightdesk(desk, books, chosen.gateway)
        if complaint := systems.complaint_of(ours):
            left_out.append(f"{NIGHTDESK} is left out: {complaint}.")
        else:
            gateways.append(ours)
        gateways.sort(key=lambda each: ORDER.index(each.name))
        yield Bench(chosen, pace, systems.direct(upstream), gateways), left_out


def _raise_limit_of_files() -> None:
    """For this process and all that it starts."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


# Measurements


def _measure(bench: Bench) -> Findings:
    _warm_up(bench)
    plain = _most(bench, PLAIN)
    streams = _most(bench, STREAM)
    halves = _halves(bench, plain)
    common = min(halves.values())
    return Findings(
        plain,
        streams,
        half=_added(bench, halves),
        half_at_random=_added(bench, halves, at_random=True),
        common=_added(bench, dict.fromkeys(halves, common)),
        first_token=_first_token(bench, _halves(bench, streams)),
        idle={count: _idle(bench, count, common) for count in bench.pace.idle},
        cache=_cache(bench, halves),
    )


def _warm_up(bench: Bench) -> None:
    """Warm up all systems: imports, compilation, connections."""
    for system in bench.everyone:
        tell(f"warming up: {system.name}")
        for model in (PLAIN, STREAM):
            bench.measure(system, bench.load(system, model))
    # Failures during the warm-up do not count.
    bench.complaints.clear()


def _halves(bench: Bench, most: Mapping[str, Most]) -> Mapping[str, float]:
    return {system.name: max(mean(most[system.name].rates) / 2, LEAST_RATE) for system in bench.gateways}


def _most(bench: Bench, model: str) -> Mapping[str, Most]:
    def act(system: System) -> Measured:
        tell(f"{model}, all it can: {system.name}")
        return bench.measure(system, bench.load(system, model))

    measured = in_turns(bench.everyone, bench.pace.rounds, act)
    return {name: _most_of(each) for name, each in measured.items()}


def _most_of(measured: Sequence[Measured]) -> Most:
    return Most(
        [each.outcome.rate for each in measured],
        [each.outcome.events / each.outcome.seconds for each in measured],
        # The seconds of warming up count on both sides.
        mean([each.processor_seconds / each.answered * 1000 if each.answered else 0.0 for each in measured]),
        mean([each.gateway_busy for each in measured]),
        mean([each.load_busy for each in measured]),
    )


def _added(bench: Bench, rates: Mapping[str, float], *, at_random: bool = False) -> Mapping[str, Added]:
    how = "at random moments" if at_random else "evenly"
    return _compared(bench, PLAIN, rates, how, lambda each: each.outcome.latencies, at_random=at_random)


def _first_token(bench: Bench, rates: Mapping[str, float]) -> Mapping[str, Added]:
    return _compared(bench, STREAM, rates, "evenly", lambda each: each.outcome.first_tokens)


def _compared(
    bench: Bench,
    model: str,
    rates: Mapping[str, float],
    how: str,
    times_of: Callable[[Measured], Sequence[float]],
    *,
    at_random: bool = False,
) -> Mapping[str, Added]:
    """Measure each system at its rate, and straight to the simulator at the same rate just after."""

    def act(system: System) -> tuple[Sequence[float], Sequence[float]]:
        rate = rates[system.name]
        tell(f"{model}, {rate:,.0f} a second, {how}: {system.name}")
        through, direct = (
            times_of(bench.measure(each, msgspec.structs.replace(bench.load(each, model, rate), random=at_random)))
            for each in (system, bench.direct)
        )
        return through, direct

    measured = in_turns(bench.gateways, bench.pace.rounds, act)
    compared = {name: [_joined(times) for times in zip(*pairs, strict=True)] for name, pairs in measured.items()}
    return {
        name: added(rates[name], through, direct) for name, (through, direct) in compared.items() if through and direct
    }


def _joined(times: Iterable[Sequence[float]]) -> Sequence[float]:
    return [time for each in times for time in each]


def _idle(bench: Bench, count: int, rate: float) -> Mapping[str, Idle]:
    def act(system: System) -> Idle:
        tell(f"{count:,} idle streams: {system.name}")
        load = msgspec.structs.replace(bench.load(system, PLAIN, rate), held=count, held_model=system.models[IDLE])
        if not system.pids:
            return _idle_of(bench.measure(system, load), 0, 0)
        before_mb = memory_of(system.pids[0]).resident
        with watched(system.pids[0]) as peak:
            measured = bench.measure(system, load)
        return _idle_of(measured, before_mb, peak.memory.resident)

    return {name: idle for name, (idle,) in in_turns(bench.everyone, 1, act).items()}


def _idle_of(measured: Measured, before_mb: float, peak_mb: float) -> Idle:
    outcome = measured.outcome
    return Idle(outcome.held, outcome.held_after, before_mb, peak_mb, [time * 1000 for time in outcome.latencies])


def _cache(bench: Bench, rates: Mapping[str, float]) -> CacheHits | None:
    """Repeat the same request at half load."""
    ours = next((system for system in bench.gateways if system.name == NIGHTDESK), None)
    if ours is None:
        return None
    tell(f"cache hits: {ours.name}")
    load = msgspec.structs.replace(bench.load(ours, PLAIN, rates[NIGHTDESK]), same_body=True)
    outcome = bench.measure(ours, load).outcome
    if not outcome.latencies:
        return None
    p50, p99 = (percentile(outcome.latencies, share) * 1000 for share in (0.5, 0.99))
    return CacheHits(p50, p99, outcome.cache_hits / len(outcome.latencies))
