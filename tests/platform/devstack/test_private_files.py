import json
import stat
from pathlib import Path

from devstack.private_files import write_json, write_private


def test_a_private_file_can_be_read_by_its_owner_only(tmp_path: Path) -> None:
    write_private(tmp_path / "keys", "secret")

    assert (tmp_path / "keys").read_text() == "secret"
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o600


def test_a_readable_file_is_replaced_by_a_private_one(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("old")
    path.chmod(0o644)

    write_private(path, "new")

    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_no_temporary_file_is_left(tmp_path: Path) -> None:
    write_json(tmp_path / "card.json", {"a": 1})

    assert [path.name for path in tmp_path.iterdir()] == ["card.json"]
    assert json.loads((tmp_path / "card.json").read_text()) == {"a": 1}
