"""The findings of the gateway benchmark, and their report."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.bench.figures import percentile
from tests.bench.gateways.measure import Added, mean, mean_ratio
from tests.bench.gateways.systems import DIRECT, LITELLM, NIGHTDESK, PASS_THROUGH, PORTKEY
from tests.bench.report import Comparison, Goal, Report, Row

SUITE = "gateway"
ORDER = (DIRECT, PASS_THROUGH, NIGHTDESK, PORTKEY, LITELLM)

NOTES = (
    "The gateway on one core, load generator and simulator on the other; Nightdesk's PostgreSQL and worker run"
    " there too, its web process and Valkey on the gateway's core.",
    f"{DIRECT}: straight to the simulator. {PASS_THROUGH}: bare ASGI and aiohttp's client, without authentication"
    " and usage records.",
    "Nightdesk checks a key, applies rate limits, records usage and logs streams for resuming; LiteLLM (one worker,"
    " no database) checks its master key; Portkey checks no key.",
    "Plain: bodies of 8 KiB, each different, 32 connections. Streams: 31 events, the first after 10 ms, 1 ms apart.",
    "Half load is half of a system's own requests/s or streams/s, and each request's time runs from when it was due.",
    "Where the gateway's core is not fully in use at most load, the load's core was the limit, not the gateway.",
)


@dataclass(frozen=True, slots=True)
class Most:
    """The throughput of a system at full load, round by round."""

    rates: Sequence[float]
    events: Sequence[float]
    processor_ms: float
    gateway_busy: float
    load_busy: float


@dataclass(frozen=True, slots=True)
class Idle:
    """The cost of many idle streams for a gateway."""

    held: int
    held_after: int
    before_mb: float
    peak_mb: float
    #: Of requests meanwhile, at a rate that all systems sustain.
    times_ms: Sequence[float]


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


def to_report(found: Findings, notes: Sequence[str]) -> Report:
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
        yield Comparison("Nightdesk's as a multiple of theirs", "x", times)
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
        times = {name: each.times_ms for name, each in idle.items() if each.times_ms}
        p99 = {name: percentile(each, 0.99) for name, each in times.items()}
        yield Comparison(f"{what}: requests meanwhile, p99", "ms", p99)
        yield Comparison(f"{what}: the slowest of them", "ms", {name: max(each) for name, each in times.items()})


def _goals(found: Findings) -> Iterator[Goal]:
    """Yield the goals that can be judged: a system may be missing."""
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
