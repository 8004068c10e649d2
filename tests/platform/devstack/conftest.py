"""Fixtures of the tests of the local stack."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack import postgres_data


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The base folder for what cannot be in place: a temporary one instead of the machine's."""
    if os.geteuid() != 0:
        pytest.skip("only root puts PostgreSQL elsewhere")
    folder = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="nightdesk-test-"))
    monkeypatch.setattr(postgres_data, "BASES", (folder / "base",))
    folder.chmod(0o711)
    yield folder / "base"
    shutil.rmtree(folder)
