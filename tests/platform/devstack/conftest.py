"""What the tests of the embedded default share."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack import postgres_data


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for what cannot be in place: one of our own instead of the machine's."""
    if os.geteuid() != 0:
        pytest.skip("only root puts PostgreSQL elsewhere")
    folder = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="nightdesk-test-"))
    monkeypatch.setattr(postgres_data, "BASES", (folder / "base",))
    folder.chmod(0o711)
    yield folder / "base"
    shutil.rmtree(folder)
