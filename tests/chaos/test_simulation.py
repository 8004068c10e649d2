"""The simulation finds nothing in the desk as it is, and it finds what is switched off in it."""

from collections.abc import Callable

import pytest

from tests.chaos.mutants import MUTANTS
from tests.chaos.simulation import simulate

SEEDS = (1, 2, 3)
#: A story depends on ids and moments too, so one seed does not show every switched-off safeguard every time. The first
#: that shows it ends the search.
SEEDS_OF_MUTANTS = range(1, 16)


@pytest.mark.django_db
@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_becomes_of_workers_every_promise_is_kept(seed: int) -> None:
    assert simulate(seed) == []


@pytest.mark.django_db
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_safeguard_that_is_switched_off_is_missed(
    mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)

    assert any(MUTANTS[mutant] & {violation.promise for violation in simulate(seed)} for seed in SEEDS_OF_MUTANTS)
