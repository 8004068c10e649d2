"""What a campaign does, and when: a pure function of seed and size, so that it can be repeated."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from core.crash import CrashAt, CrashPoint

KINDS = ("chat", "messages", "embeddings")


class Temper(StrEnum):
    """How the upstream behaves towards a job."""

    FINE = "fine"
    SLOW = "slow"
    PACED = "paced"
    BUSY_ONCE = "busy_once"
    LIMITED_ONCE = "limited_once"
    CUT_ONCE = "cut_once"
    RESET_ONCE = "reset_once"
    PROXY_ONCE = "proxy_once"
    SILENT_ONCE = "silent_once"
    FAILS_OVER = "fails_over"
    REFUSES = "refuses"
    NEVER_WORKS = "never_works"


#: The simulator's controls for each (docs/reference/simulator.md).
CONTROLS = {
    Temper.FINE: "",
    Temper.SLOW: "@ttft_ms=2500",
    Temper.PACED: "@inter_token_ms=60,deltas=40,tokens=40",
    Temper.BUSY_ONCE: "@status=503,times=1",
    Temper.LIMITED_ONCE: "@status=429,retry_after=1,times=1",
    Temper.CUT_ONCE: "@cut_after_n=3,times=1",
    Temper.RESET_ONCE: "@cut_after_n=3,cut=rst,times=1",
    Temper.PROXY_ONCE: "@html_502,times=1",
    Temper.SILENT_ONCE: "@stall_after_n=2,stall_ms=3000,times=1",
    Temper.FAILS_OVER: "@status=503",
    Temper.REFUSES: "@status=400",
    Temper.NEVER_WORKS: "@status=500",
}
WEIGHTS = {Temper.FINE: 8, Temper.SLOW: 5, Temper.PACED: 3, Temper.NEVER_WORKS: 0.5, Temper.REFUSES: 0.5}


class Deed(StrEnum):
    """A fault that is injected into the desk."""

    KILL_WORKER = "kill_worker"
    FREEZE_WORKER = "freeze_worker"
    KILL_WEB = "kill_web"
    FLUSH_REDIS = "flush_redis"
    RESTART_REDIS = "restart_redis"
    STOP_POSTGRES = "stop_postgres"
    CRASH_POSTGRES = "crash_postgres"
    LOSE_DOORBELLS = "lose_doorbells"
    DOUBLE_DOORBELLS = "double_doorbells"


ON_WORKERS = (Deed.KILL_WORKER, Deed.FREEZE_WORKER)
ON_POSTGRES = frozenset({Deed.STOP_POSTGRES, Deed.CRASH_POSTGRES})
DEED_WEIGHTS = {
    Deed.KILL_WORKER: 14,
    Deed.FREEZE_WORKER: 9,
    Deed.KILL_WEB: 2,
    Deed.FLUSH_REDIS: 3,
    Deed.RESTART_REDIS: 1.5,
    Deed.STOP_POSTGRES: 0.7,
    Deed.CRASH_POSTGRES: 0.7,
    Deed.LOSE_DOORBELLS: 2,
    Deed.DOUBLE_DOORBELLS: 2,
}
#: How long a killed worker is absent: until it is restarted and has its lease.
START_SECONDS = 6.0
#: An outage of Postgres delays every rescue, so no fault follows it for a while (OUTAGE_RECOVERY_SECONDS and more).
CALM_SECONDS = 14.0

OUTAGE_EVERY_SECONDS = 35.0
#: Some freezes end within the lease, most outlast it.
FREEZES: Sequence[Callable[[random.Random], float]] = (
    lambda chance: chance.uniform(1, 3),
    lambda chance: chance.uniform(7, 10),
    lambda chance: chance.uniform(7, 10),
)
#: The largest number of starts of one process in a plan.
STARTS = 200
#: Crash points of a web process.
IN_WEB = (CrashPoint.BEFORE_COMMIT, CrashPoint.AFTER_COMMIT)

#: Sites of a campaign. The last one may have few jobs running at once.
SITES = 3
CAPPED_SITE = SITES - 1
SITE_CAP = 4


@dataclass(frozen=True, slots=True)
class Order:
    """One job of a client and its requests about it. Times are in seconds from the start."""

    number: int
    at: float
    site: int
    kind: str
    temper: Temper
    priority: str
    key: str | None
    #: When the same body is submitted again under the same key.
    repeats: tuple[float, ...]
    #: When another body is submitted under the same key, which must be refused.
    abuse_at: float | None
    cancel_at: float | None
    read_at: float | None
    delay_seconds: float | None
    expiry_seconds: float | None
    max_attempts: int
    #: The receiver of its webhook fails at the first delivery.
    webhook_stumbles: bool


@dataclass(frozen=True, slots=True)
class BatchOrder:
    """A batch that a client posts with all its members."""

    number: int
    at: float
    site: int
    kind: str
    tempers: tuple[Temper, ...]
    cancel_at: float | None


@dataclass(frozen=True, slots=True)
class Blow:
    """One injected fault. `seconds` is how long it lasts."""

    at: float
    deed: Deed
    worker: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    seed: int
    seconds: float
    workers: int
    orders: tuple[Order, ...]
    batches: tuple[BatchOrder, ...]
    blows: tuple[Blow, ...]
    #: For each worker the crash point of its first start, its second, and so on.
    starts: tuple[tuple[CrashAt | None, ...], ...]
    #: The same for the web process.
    web_starts: tuple[CrashAt | None, ...]


def make_plan(seed: int, jobs: int, *, workers: int = 3, seconds: float | None = None) -> Plan:
    """Make the plan of a campaign. Without `seconds` its length depends on the number of jobs."""
    chance = random.Random(seed)
    length = seconds if seconds is not None else min(max(jobs / 6, 20.0), 900.0)
    orders = tuple(_order(chance, number, length) for number in range(jobs))
    return Plan(
        seed=seed,
        seconds=length,
        workers=workers,
        orders=orders,
        batches=tuple(_batch_order(chance, number, length) for number in range(1 + jobs // 100)),
        blows=tuple(_blows(chance, length, workers)),
        starts=tuple(tuple(_crash_at(chance, tuple(CrashPoint)) for _ in range(STARTS)) for _ in range(workers)),
        web_starts=tuple(_crash_at(chance, IN_WEB) for _ in range(STARTS)),
    )


def _order(chance: random.Random, number: int, seconds: float) -> Order:
    at = chance.uniform(0, seconds)
    temper = chance.choices(list(Temper), [WEIGHTS.get(temper, 1) for temper in Temper])[0]
    key = f"order-{number}" if chance.random() < 0.5 else None
    often = chance.random()
    repeats = chance.choice((0, 0, 1, 2)) if key else 0
    return Order(
        number=number,
        at=at,
        site=chance.choices(range(SITES), (4, 1, 2))[0],
        kind=chance.choice(KINDS),
        temper=temper,
        priority=chance.choice(("high", "normal", "normal", "low")),
        key=key,
        repeats=tuple(at + chance.uniform(0, 5) for _ in range(repeats)),
        abuse_at=at + chance.uniform(0, 5) if key and chance.random() < 0.2 else None,
        cancel_at=at + chance.uniform(0, 4) if often < 0.12 else None,
        read_at=at + chance.uniform(0.2, 5) if often > 0.5 else None,
        delay_seconds=chance.uniform(0.5, 5) if chance.random() < 0.08 else None,
        expiry_seconds=chance.uniform(6, 9) if chance.random() < 0.04 else None,
        max_attempts=2 if temper == Temper.NEVER_WORKS else 8,
        webhook_stumbles=chance.random() < 0.06,
    )


def _batch_order(chance: random.Random, number: int, seconds: float) -> BatchOrder:
    at = chance.uniform(0, seconds * 0.7)
    tempers = (Temper.FINE, Temper.FINE, Temper.SLOW, Temper.PACED, Temper.BUSY_ONCE, Temper.CUT_ONCE, Temper.REFUSES)
    return BatchOrder(
        number=number,
        at=at,
        site=chance.randrange(SITES),
        kind=chance.choice(KINDS),
        tempers=tuple(chance.choices(tempers, k=chance.randint(8, 20))),
        cancel_at=at + chance.uniform(0.5, 5) if chance.random() < 0.25 else None,
    )


def _blows(chance: random.Random, seconds: float, workers: int) -> Iterator[Blow]:
    """Yield faults such that one worker is always able to rescue the others' jobs."""
    at, calm_until, next_outage_at = 1.0, 0.0, 0.0
    busy_until = [0.0] * workers
    #: Blows on Postgres wait until all workers are well, and the others meanwhile for them.
    waiting: list[Deed] = []
    for deed in _deeds(chance):
        at += chance.uniform(0.3, 1.6)
        if at >= seconds:
            return
        if waiting and at >= max(calm_until, *busy_until):
            calm_until, next_outage_at = at + CALM_SECONDS, at + OUTAGE_EVERY_SECONDS
            yield Blow(at, waiting.pop(), seconds=chance.uniform(0.2, 2.5))
        elif deed in ON_POSTGRES:
            if at >= next_outage_at and not waiting:
                waiting.append(deed)
        elif deed in ON_WORKERS:
            free = [worker for worker in range(workers) if busy_until[worker] <= at]
            if waiting or at < calm_until or len(free) < 2:
                continue
            worker = chance.choice(free)
            length = 0.0 if deed == Deed.KILL_WORKER else chance.choice(FREEZES)(chance)
            busy_until[worker] = at + length + START_SECONDS
            yield Blow(at, deed, worker, length)
        else:
            yield Blow(at, deed, seconds=chance.uniform(0.2, 2))


def _deeds(chance: random.Random) -> Iterator[Deed]:
    """Yield what to do: first everything once, then as it comes."""
    first: list[Deed] = [*Deed, *ON_WORKERS, *ON_WORKERS]
    chance.shuffle(first)
    # However short the campaign, a worker dies in it and another comes back from a freeze; Postgres, after which
    # there is calm, comes last.
    first.sort(key=lambda deed: (deed in ON_POSTGRES, deed not in ON_WORKERS))
    yield from first
    while True:
        yield chance.choices(list(Deed), [DEED_WEIGHTS[deed] for deed in Deed])[0]


def _crash_at(chance: random.Random, points: Sequence[CrashPoint]) -> CrashAt | None:
    if chance.random() < 0.6:
        return None
    return CrashAt(chance.choice(points), chance.randint(2, 30))


def crash_variables(at: CrashAt | None) -> dict[str, str]:
    """Return the environment of a process that is to die at a crash point."""
    return {"NIGHTDESK_CHAOS": "1", "NIGHTDESK_CRASH_AT": f"{at.point}:{at.hit_number}"} if at else {}


def upstreams(kind: str, temper: Temper) -> Sequence[tuple[str, str]]:
    """Return the targets of a route, as (provider, the provider's model with its controls)."""
    openai, anthropic = ("sim-openai", "gpt-4o-mini"), ("sim-anthropic", "claude-haiku-4-5")
    if kind == "embeddings":
        targets = [("sim-openai", "text-embedding-3-small")]
    else:
        targets = [anthropic, openai] if kind == "messages" else [openai, anthropic]
    first, *others = targets
    spoiled = (first[0], first[1] + CONTROLS[temper])
    return [spoiled, *others] if temper == Temper.FAILS_OVER else [spoiled]


def model_of(kind: str, temper: Temper) -> str:
    return f"chaos-{kind}-{temper.replace('_', '-')}"
