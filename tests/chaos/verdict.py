"""The verdict of a campaign, as one line of JSON. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from tests.chaos.invariants import Violation
from tests.chaos.ledgers import Ledgers
from tests.chaos.plan import Plan
from tests.chaos.recovery import Fault, Outage, percentile, rescues

#: Promises with their own figure in the line; the others are in `violations` only.
COUNTED = ("lost", "billed_twice", "terminal_events_missing", "terminal_events_double")
#: Not a promise of the API, but a goal of the engine.
RECOVERY_GOAL_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """`figures` is the line, in its order."""

    violations: Sequence[Violation]
    figures: Mapping[str, Any]

    @property
    def is_kept(self) -> bool:
        """Whether no promise was broken."""
        return not self.violations


def judge(
    plan: Plan,
    ledgers: Ledgers,
    violations: Sequence[Violation],
    *,
    done: Mapping[str, int],
    faults: Sequence[Fault],
    workers: Mapping[int, Set[UUID]],
    outages: Sequence[Outage],
    logs: str,
    seconds: float,
) -> Verdict:
    """Put the figures together."""
    broken = Counter(violation.promise for violation in violations)
    found = list(rescues(ledgers.books, faults, workers, outages))
    calm = [rescue.seconds for rescue in found if not rescue.in_outage]
    states = Counter(job.state for job in ledgers.books.jobs)
    return Verdict(
        violations,
        {
            "seed": plan.seed,
            "jobs": len(plan.orders),
            **{name: done.get(name, 0) for name in ("kills", "freezes", "flushes")},
            **{name: broken[name] for name in COUNTED},
            "fenced": logs.count('"finish":"fenced"') + logs.count('"finish": "fenced"'),
            "recovery_p50_s": round(percentile(calm, 0.5), 2),
            "recovery_max_s": round(max(calm, default=0.0), 2),
            "recovery_with_outage_max_s": round(max((rescue.seconds for rescue in found), default=0.0), 2),
            "rescued": len(found),
            **{
                name: done.get(name, 0)
                for name in ("web_kills", "postgres_restarts", "valkey_restarts", "doorbells_lost", "doorbells_doubled")
            },
            "batches": dict(Counter(batch.state for batch in ledgers.books.batches)),
            "calls": len(ledgers.journal),
            "webhooks": len(ledgers.received),
            "states": dict(sorted(states.items())),
            "poisoned": sum(job.error_code == "poison" for job in ledgers.books.jobs),
            "seconds": round(seconds, 1),
            "violations": [asdict(violation) for violation in violations[:20]],
            "violations_total": len(violations),
        },
    )
