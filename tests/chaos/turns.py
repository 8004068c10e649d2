"""Checks the order of claims: priority first, then the site with the fewest running jobs. Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias
from uuid import UUID

from tests.chaos.invariants import Violation

#: Ready and running jobs of each (site, priority).
Standing: TypeAlias = Mapping[tuple[UUID, int], tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Turns:
    """One claim: the counts before and after it, and the (site, priority) of each claimed job."""

    before: Standing
    after: Standing
    taken: tuple[tuple[UUID, int], ...]


def unfair_turns(claim: Turns, capped: UUID | None = None) -> Iterator[Violation]:
    """Yield the claims out of order. The site with a cap is left out: it may have to wait."""
    if not claim.taken:
        return
    least_urgent = max(priority for _, priority in claim.taken)
    running = Counter[UUID]()
    for (site_id, _), (_, count) in claim.after.items():
        running[site_id] += count
    waiting = [lane for lane, (ready, _) in claim.after.items() if ready and lane[0] != capped]
    for site_id, priority in waiting:
        if priority < least_urgent:
            yield Violation("priority", str(site_id), f"a job of priority {least_urgent} went before one of {priority}")
    served = {site_id for site_id, priority in claim.taken if priority == least_urgent}
    for other in (site_id for site_id, priority in waiting if priority == least_urgent):
        most = max(running[site_id] for site_id in served)
        if most > running[other] + 1:
            yield Violation(
                "fairness", str(other), f"it waits with {running[other]} running; one was served to have {most}"
            )
