"""Gateways side by side: Nightdesk, LiteLLM, Portkey, and the limit, before the same simulator and under the same load.

The gateway has one core, the load generator and the simulator have the other. Systems take turns (A B C A B C), so that
their ratios hold even where the machine is noisy. Latency is added latency: through the gateway, less straight to the
simulator at the same rate; each request's time runs from the moment it was due.
"""

import resource
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tests.bench.books import opened
from tests.bench.desk import running_desk
from tests.bench.figures import percentile
from tests.bench.gateways import cores, systems
from tests.bench.gateways.measure import Added, Bench, Measured, Pace, added, in_turns, mean, mean_ratio
from tests.bench.gateways.peers import NotInstalled
from tests.bench.gateways.systems import (
    DIRECT,
    IDLE,
    LITELLM,
    NIGHTDESK,
    PASS_THROUGH,
    PLAIN,
    PORTKEY,
    STREAM,
    System,
)
from tests.bench.memory import memory_of, watched
from tests.bench.progress import tell
from tests.bench.report import Comparison, Goal, Report, Row

SUITE = "gateway"
ORDER = (DIRECT, PASS_THROUGH, NIGHTDESK, PORTKEY, LITELLM)
#: A gateway holds two for each stream.
DESCRIPTORS = 20_000
#: Of an open loop, where a system answers nothing in time.
LEAST_RATE = 1.0

NOTES = (
    "The gateway on one core, load generator and simulator on the other; the desk's PostgreSQL and worker run there"
    " too, its web process and Valkey on the gateway's core.",
    f"{DIRECT}: straight to the simulator. {PASS_THROUGH}: bare ASGI and aiohttp's client, which knows nobody and"
    " counts nothing.",
    "Nightdesk checks a key, limits, writes accounts and keeps a resume log; LiteLLM (one worker, no database) checks"
    " its master key; Portkey checks no key.",
    "Plain: bodies of 8 KiB, each different, 32 connections. Streams: 31 events, the first after 10 ms, 1 ms apart.",
    "Half load is half of a system's own requests/s or streams/s, and each request's time runs from when it was due.",
    "Where the gateway's core is not fully in use at most load, the load's core was the limit, not the gateway.",
)


@dataclass(frozen=True, slots=True)
class Most:
    """What a system did when asked for all it can, round by round."""

    rates: Sequence[float]
    events: Sequence[float]
    processor_ms: float
    gateway_busy: float
    load_busy: float


@dataclass(frozen=True, slots=True)
class Idle:
    """What it was to a gateway that so many streams were open and silent."""

    held: int
    held_after: int
    before_mb: float
    peak_mb: float
    #: Of requests meanwhile, at the rate that all can bear.
    p99_ms: float
    worst_ms: float


@dataclass(frozen=True, slots=True)
class CacheHits:
    p50_ms: float
    p99_ms: float
    share: float


@dataclass(frozen=True, slots=True)
class Findings:
    """All that was measured, by system."""

    plain: Mapping[str, Most]
    streams: Mapping[str, Most]
    half: Mapping[str, Added]
    half_at_random: Mapping[str, Added]
    common: Mapping[str, Added]
    first_token: Mapping[str, Added]
    idle: Mapping[int, Mapping[str, Idle]]
    cache: CacheHits | None


def run(pace: Pace | None = None) -> Report:
    _raise_limit_of_files()
    chosen = cores.choose(cores.available())
    with cores.on(chosen.load), _started(chosen, pace or Pace()) as (bench, left_out):
        findings = _measure(bench)
    versions = [f"{system.name} {system.version}" for system in bench.gateways if system.version]
    return _report(findings, [*NOTES, *([f"Versions: {', '.join(versions)}."] if versions else []), *left_out,
                              *bench.complaints])  # fmt: skip


# Who takes part


@contextmanager
def _started(chosen: cores.Cores, pace: Pace) -> Iterator[tuple[Bench, Sequence[str]]]:
    """Start all systems; say why one is left out."""
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


# What is measured


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
    """Let everyone import, compile and connect what the first requests need."""
    for system in bench.everyone:
        tell(f"warming up: {system.name}")
        for model in (PLAIN, STREAM):
            bench.measure(system, bench.load(system, model))
    # What failed as long as it was cold is not held against anyone.
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
    compared = {name: (_joined(through for through, _ in pairs), _joined(direct for _, direct in pairs))
                for name, pairs in measured.items()}  # fmt: skip
    return {name: added(rates[name], *times) for name, times in compared.items() if all(times)}


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
    times = outcome.latencies or [float("inf")]
    return Idle(outcome.held, outcome.held_after, before_mb, peak_mb, percentile(times, 0.99) * 1000, max(times) * 1000)


def _cache(bench: Bench, rates: Mapping[str, float]) -> CacheHits | None:
    """Ask for the same again and again, at half load."""
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


# The report


def _report(found: Findings, notes: Sequence[str]) -> Report:
    rows = []
    if found.cache is not None:
        rows = [
            Row("cache hit, p50", found.cache.p50_ms, "ms"),
            Row("cache hit, p99", found.cache.p99_ms, "ms"),
            Row("answered from the cache", found.cache.share * 100, "%"),
        ]
    comparisons = [*_of_plain(found), *_of_streams(found), *_of_idle(found)]
    return Report(SUITE, rows, list(_goals(found)), comparisons, notes)


def _of_plain(found: Findings) -> Iterator[Comparison]:
    yield Comparison("plain", "requests/s", {name: mean(most.rates) for name, most in found.plain.items()})
    if ours := found.plain.get(NIGHTDESK):
        times = {name: mean_ratio(ours.rates, most.rates) for name, most in found.plain.items()}
        yield Comparison("Nightdesk's, so many times theirs", "x", times)
    yield from _of_cores("plain", "request", found.plain)
    yield from _of_added("half load", "requests/s", found.half)
    yield from _of_added("half load, at random moments", "requests/s", found.half_at_random)
    yield from _of_added("the same load for all", "requests/s", found.common)


def _of_streams(found: Findings) -> Iterator[Comparison]:
    yield Comparison("streams", "streams/s", {name: mean(most.rates) for name, most in found.streams.items()})
    yield Comparison(
        "streams: SSE events", "events/s", {name: mean(most.events) for name, most in found.streams.items()}
    )
    yield from _of_cores("streams", "stream", found.streams)
    yield from _of_added("first token, half load", "streams/s", found.first_token)


def _of_cores(what: str, unit: str, found: Mapping[str, Most]) -> Iterator[Comparison]:
    used = {name: most.processor_ms for name, most in found.items() if name != DIRECT}
    yield Comparison(f"{what}: processor time", f"ms a {unit}", used)
    yield Comparison(
        f"{what}: gateway's core in use", "%", {name: most.gateway_busy * 100 for name, most in found.items()}
    )
    yield Comparison(f"{what}: load's core in use", "%", {name: most.load_busy * 100 for name, most in found.items()})


def _of_added(what: str, unit: str, found: Mapping[str, Added]) -> Iterator[Comparison]:
    yield Comparison(what, unit, {name: each.rate for name, each in found.items()})
    yield Comparison(f"{what}: added p50", "ms", {name: each.p50_ms for name, each in found.items()})
    yield Comparison(f"{what}: added p99", "ms", {name: each.p99_ms for name, each in found.items()})


def _of_idle(found: Findings) -> Iterator[Comparison]:
    for count, idle in found.idle.items():
        what = f"{count:,} idle streams"
        gateways = {name: each for name, each in idle.items() if name != DIRECT}
        yield Comparison(f"{what}: opened", "streams", {name: each.held for name, each in idle.items()})
        yield Comparison(f"{what}: open to the end", "streams", {name: each.held_after for name, each in idle.items()})
        yield Comparison(
            f"{what}: memory before", "MB resident", {name: each.before_mb for name, each in gateways.items()}
        )
        yield Comparison(
            f"{what}: memory at most", "MB resident", {name: each.peak_mb for name, each in gateways.items()}
        )
        yield Comparison(f"{what}: requests meanwhile, p99", "ms", {name: each.p99_ms for name, each in idle.items()})
        yield Comparison(f"{what}: the slowest of them", "ms", {name: each.worst_ms for name, each in idle.items()})


def _goals(found: Findings) -> Iterator[Goal]:
    """Yield those that can be judged: not all systems may have taken part."""
    ours = found.plain.get(NIGHTDESK)
    if ours is None:
        return
    for peer, times in ((LITELLM, 15.0), (PORTKEY, 1.5)):
        if theirs := found.plain.get(peer):
            ratio = mean_ratio(ours.rates, theirs.rates)
            yield Goal(f"times {peer}", f"at least {times:g} times its requests/s", ratio, ratio >= times)
    if half := found.half.get(NIGHTDESK):
        yield Goal("added p50 at half load", "at most 2 ms", half.p50_ms, half.p50_ms <= 2)
        yield Goal("added p99 at half load", "at most 5 ms", half.p99_ms, half.p99_ms <= 5)
    events = mean(found.streams[NIGHTDESK].events)
    yield Goal("SSE events", "at least 4,000 a second", events, events >= 4000)
    if found.cache is not None:
        is_met = found.cache.p99_ms <= 15 and found.cache.share > 0.99
        yield Goal("cache hit, p99", "at most 15 ms, all of them hits", found.cache.p99_ms, is_met)
    if (most := max(found.idle, default=0)) and (idle := found.idle[most].get(NIGHTDESK)):
        is_met = idle.peak_mb < 400 and idle.held_after == most
        yield Goal(f"{most:,} idle streams", "less than 400 MB, none cut", idle.peak_mb, is_met)
