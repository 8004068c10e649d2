"""PostgreSQL started by root, in folders that its Unix user can and cannot enter."""

import os
import shutil
import stat
from importlib import util
from pathlib import Path

import psycopg
import pytest

from devstack.embedded import run_server
from devstack.errors import ServerFailed, ServerNotAvailable
from devstack.ports import free_port
from devstack.postgres import postgres_server, prepare_postgres
from devstack.postgres_data import PACKAGE, binaries_for, place_cluster, remove_cluster, unix_user_for
from devstack.program import UnixUser, run_to_end

NOBODY = UnixUser(65534, 65534)


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """A folder that only its owner can enter."""
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def open_to_all(base: Path) -> Path:
    """A folder that every user can enter."""
    folder = base.parent / "open"
    folder.mkdir()
    folder.chmod(0o755)
    return folder


@pytest.mark.usefixtures("base")
def test_root_runs_postgres_as_another_user(open_to_all: Path) -> None:
    account = unix_user_for(open_to_all / "cluster")

    assert account is not None
    assert account.uid != 0


def test_data_stays_with_the_user_that_created_it(open_to_all: Path) -> None:
    cluster = open_to_all / "cluster"
    cluster.mkdir()
    os.chown(cluster, 4321, 4322)

    assert unix_user_for(cluster) == UnixUser(4321, 4322)


def test_data_is_in_place_if_the_user_can_enter_the_folder(open_to_all: Path, base: Path) -> None:
    with run_server(prepare_postgres(open_to_all, free_port(), durable=False), open_to_all / "server.log") as server:
        assert _answers(server.url)

    assert not (open_to_all / "cluster").is_symlink()
    assert (open_to_all / "cluster" / "PG_VERSION").exists()
    # The programs may have to be there, where the checkout cannot be entered; the data must not.
    assert not list(base.rglob("PG_VERSION"))


def test_data_is_elsewhere_if_the_user_cannot_enter_the_folder(closed: Path, base: Path) -> None:
    data = closed / "data"
    before = _modes(closed)

    with run_server(prepare_postgres(data, free_port(), durable=False), data / "server.log") as server:
        assert _answers(server.url)

    home = (data / "cluster").resolve().parent
    assert home.parent == base
    assert (stat.S_IMODE(home.stat().st_mode), home.stat().st_uid) == (0o700, NOBODY.uid)
    assert (stat.S_IMODE(base.stat().st_mode), base.stat().st_uid) == (0o711, 0)
    assert _modes(closed) == before, "no existing folder is opened"


def test_programs_that_the_user_cannot_reach_are_copied_once(
    closed: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install_wheel(closed)
    monkeypatch.syspath_prepend(closed)

    programs = binaries_for(NOBODY)

    assert base in programs.parents
    assert "PostgreSQL" in run_to_end([str(programs / "postgres"), "--version"], NOBODY).stdout
    assert programs.stat().st_uid == 0
    made = programs.stat().st_mtime_ns
    assert binaries_for(NOBODY) == programs
    assert programs.stat().st_mtime_ns == made
    assert [path for path in base.iterdir() if path != programs.parents[2]] == []


def test_a_whole_checkout_in_a_closed_folder_works(closed: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install_wheel(closed)
    monkeypatch.syspath_prepend(closed)

    with postgres_server(closed / "data", free_port(), durable=False) as server:
        assert _answers(server.url)

    assert [path.name for path in base.iterdir() if not path.name.startswith("postgresql-")] == []


def test_programs_that_the_user_can_reach_are_not_copied(
    open_to_all: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install_wheel(open_to_all)
    monkeypatch.syspath_prepend(open_to_all)

    assert open_to_all in binaries_for(NOBODY).parents
    # The programs may have to be there, where the checkout cannot be entered; the data must not.
    assert not list(base.rglob("PG_VERSION"))


def test_the_newest_of_several_versions_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / PACKAGE
    for folder in ("pginstall", "pginstall9", "pginstall18", "pginstall99"):
        (package / folder / "bin").mkdir(parents=True)
    for folder in ("pginstall", "pginstall9", "pginstall18"):  # 99 is an empty shell
        (package / folder / "bin" / "postgres").touch()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)

    assert binaries_for(None) == package / "pginstall18" / "bin"


def test_a_missing_wheel_is_an_error_that_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / PACKAGE).mkdir()
    (tmp_path / PACKAGE / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(ServerNotAvailable, match="Set DATABASE_URL and REDIS_URL"):
        binaries_for(None)


def test_the_data_elsewhere_is_found_again(closed: Path, base: Path) -> None:
    first = place_cluster(closed, NOBODY, short_lived=False)
    (first / "PG_VERSION").write_text("18")

    assert place_cluster(closed, NOBODY, short_lived=False) == first
    assert (first / "PG_VERSION").exists()
    assert base in first.parents


def test_removing_the_data_folder_starts_from_scratch(closed: Path, base: Path) -> None:
    first = place_cluster(closed / ".", NOBODY, short_lived=False)
    (first / "PG_VERSION").write_text("18")
    (closed / "cluster").unlink()

    again = place_cluster(closed, NOBODY, short_lived=False)

    assert again == first
    assert list(again.iterdir()) == []
    assert len(list(base.iterdir())) == 1


def test_a_copied_checkout_does_not_share_the_data_of_the_first(closed: Path, base: Path) -> None:
    (closed / "one").mkdir()
    first = place_cluster(closed / "one", NOBODY, short_lived=False)
    (first / "PG_VERSION").write_text("18")
    shutil.copytree(closed / "one", closed / "two", symlinks=True)

    second = place_cluster(closed / "two", NOBODY, short_lived=False)

    assert second != first
    assert (first / "PG_VERSION").exists()
    assert base in second.parents


def test_a_dangling_link_starts_from_scratch(closed: Path, base: Path) -> None:
    shutil.rmtree(place_cluster(closed, NOBODY, short_lived=False).parent)

    assert place_cluster(closed, NOBODY, short_lived=False).is_dir()
    assert base.exists()


def test_homes_of_removed_short_lived_servers_are_swept(closed: Path, base: Path) -> None:
    for name in ("gone", "there"):
        (closed / name).mkdir()
        place_cluster(closed / name, NOBODY, short_lived=True)
    shutil.rmtree(closed / "gone")
    (closed / "next").mkdir()

    place_cluster(closed / "next", NOBODY, short_lived=False)

    assert (closed / "there" / "cluster").resolve().is_dir()
    assert len([path for path in base.iterdir() if path.is_dir() and not path.is_symlink()]) == 2


def test_durable_data_is_never_swept(closed: Path, base: Path) -> None:
    (closed / "unplugged").mkdir()
    kept = place_cluster(closed / "unplugged", NOBODY, short_lived=False)
    shutil.rmtree(closed / "unplugged")
    (closed / "next").mkdir()

    place_cluster(closed / "next", NOBODY, short_lived=True)

    assert kept.is_dir()
    assert base in kept.parents


def test_a_short_lived_server_elsewhere_leaves_no_files(closed: Path, base: Path) -> None:
    place_cluster(closed, NOBODY, short_lived=True)

    remove_cluster(closed)

    assert list(base.iterdir()) == []
    assert not (closed / "cluster").is_symlink()


@pytest.mark.parametrize("spoil", ["other owner", "writable by others", "a link"])
def test_a_base_that_others_could_write_to_is_rejected(closed: Path, base: Path, spoil: str) -> None:
    base.mkdir()
    if spoil == "other owner":
        os.chown(base, NOBODY.uid, NOBODY.gid)
    elif spoil == "writable by others":
        base.chmod(0o777)
    else:
        base.rename(base.with_name("real"))
        base.symlink_to(base.with_name("real"))

    with pytest.raises(ServerFailed, match="only root can write to"):
        place_cluster(closed, NOBODY, short_lived=False)


def test_unreachable_data_in_place_is_an_error(open_to_all: Path) -> None:
    (open_to_all / "data").mkdir()
    first = place_cluster(open_to_all / "data", NOBODY, short_lived=False)
    (first / "PG_VERSION").write_text("18")
    open_to_all.chmod(0o700)

    with pytest.raises(ServerFailed, match="a folder that its owner cannot enter"):
        prepare_postgres(open_to_all / "data", free_port(), durable=False)


def _answers(url: str) -> bool:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT 1").fetchone() == (1,)


def _modes(folder: Path) -> list[tuple[Path, int]]:
    return [(parent, parent.stat().st_mode) for parent in (folder, *folder.parents)]


def _install_wheel(folder: Path) -> None:
    """Link the wheel's files into another folder, which is faster than copying them."""
    spec = util.find_spec(PACKAGE)
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    for source in (package, *package.parent.glob(f"{PACKAGE}.libs"), *package.parent.glob(f"{PACKAGE}-*.dist-info")):
        shutil.copytree(source, folder / source.name, copy_function=os.link, symlinks=True)
