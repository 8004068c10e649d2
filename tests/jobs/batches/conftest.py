"""A doorbell that only counts."""

import pytest

from jobs.tasks import bell


@pytest.fixture
def rung(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often the doorbell was rung."""
    rings: list[int] = []
    monkeypatch.setattr(bell, "ring", lambda: rings.append(1))
    return rings
