"""What the environment asks of the local stack, and the environment its programs get."""

import base64
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nightdesk.local import files
from nightdesk.local.errors import BadEnvironment
from nightdesk.local.ports import HOST, parse_port

#: Settings that suit a laptop, unless the environment says otherwise.
LAPTOP = {
    "DEBUG": "true",
    "LOG_FORMAT": "console",
    # The sites of a laptop are on it.
    "WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8,::1/128",
    "WEBHOOK_ALLOWED_PORTS": "0",
}

#: What `manage.py` takes over from the stack that runs in its checkout.
SHARED = (
    *("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "ENCRYPTION_KEYS", "BASE_URL", "SIMULATOR_URL"),
    *LAPTOP,
)

SYSTEM = ("PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


@dataclass(frozen=True, slots=True)
class Wishes:
    port: int | None
    #: Databases of the user's own, which are used instead of embedded ones.
    own_servers: bool


def read_wishes(inherited: Mapping[str, str]) -> Wishes:
    """Return what is asked for. Raises `BadEnvironment` if that makes no sense."""
    database, broker = (_is_set(inherited, name) for name in ("DATABASE_URL", "REDIS_URL"))
    if database != broker:
        there, missing = ("DATABASE_URL", "REDIS_URL") if database else ("REDIS_URL", "DATABASE_URL")
        raise BadEnvironment(
            f"{there} is set and {missing} is not. "
            "Set both to use servers of your own, or neither to use embedded ones."
        )
    port = inherited.get("PORT")
    return Wishes(parse_port(port) if port else None, own_servers=database)


def child_environment(
    inherited: Mapping[str, str], kept_secrets: Mapping[str, str], facts: Mapping[str, str]
) -> dict[str, str]:
    """Return the environment of the stack's programs.

    Facts (addresses) always hold; secrets and the laptop's settings only where what is inherited is silent.
    """
    address = {"BASE_URL": facts["BASE_URL"]}
    defaults = {**LAPTOP, **kept_secrets, **address}
    silent = {name: value for name, value in defaults.items() if not _is_set(inherited, name)}
    return {**inherited, **{name: value for name, value in facts.items() if name not in address}, **silent}


def only_the_systems(inherited: Mapping[str, str]) -> dict[str, str]:
    """Return what programs need of the machine, without a word for Nightdesk in it."""
    return {name: value for name, value in inherited.items() if name in SYSTEM or name.startswith("LC_")}


def shared(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what a management command needs to talk to the same desk."""
    return {name: environment[name] for name in SHARED if name in environment}


def keep_secrets(path: Path) -> dict[str, str]:
    """Return the secrets of this checkout's stack; they are made up at its first start."""
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        found = {}
    except (OSError, ValueError) as error:
        # Never replaced by new ones: what is in the database can be opened only with the old.
        raise BadEnvironment(
            f"{path} cannot be read: {error}. Mend it, or remove {path.parent} to begin anew."
        ) from error
    kept = {**_new_secrets(), **found}
    if kept != found:
        files.write_json(path, kept)
    return kept


def base_url(port: int) -> str:
    """Return where a web server on this port is found."""
    return f"http://{HOST}:{port}"


def _is_set(inherited: Mapping[str, str], name: str) -> bool:
    return bool(inherited.get(name) or inherited.get(f"{name}_FILE"))


def _new_secrets() -> dict[str, str]:
    return {
        "SECRET_KEY": secrets.token_urlsafe(48),
        "ENCRYPTION_KEYS": "k1:" + base64.b64encode(secrets.token_bytes(32)).decode(),
    }
