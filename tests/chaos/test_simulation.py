"""The simulation finds no broken promise in the desk, and detects every mutant."""

from collections.abc import Callable

import pytest

from tests.chaos.mutants import MUTANTS
from tests.chaos.simulation import simulate

SEEDS = (1, 2, 3)
#: A run depends on ids and times too, so one seed does not show every mutant every time. The first
#: that shows it ends the search.
SEEDS_OF_MUTANTS = range(1, 16)


@pytest.mark.django_db
@pytest.mark.parametrize("seed", SEEDS)
def test_every_promise_is_kept_whatever_happens_to_workers(seed: int) -> None:
    assert simulate(seed) == []


@pytest.mark.django_db
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_every_mutant_is_detected(
    mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)

    assert any(MUTANTS[mutant] & {violation.promise for violation in simulate(seed)} for seed in SEEDS_OF_MUTANTS)
