"""What the environment asks of the local stack, and the environment its programs get."""

import base64
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from devstack import private_files
from devstack.errors import InvalidEnvironment
from devstack.ports import HOST, parse_port

#: Settings that suit a laptop, unless the environment says otherwise.
LAPTOP_DEFAULTS = {
    "DEBUG": "true",
    "LOG_FORMAT": "console",
    # The sites of a laptop are on it.
    "WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8,::1/128",
    "WEBHOOK_ALLOWED_PORTS": "0",
}

#: What `manage.py` takes over from the stack that runs in its checkout.
SHARED_VARIABLES = (
    *("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "ENCRYPTION_KEYS", "BASE_URL", "SIMULATOR_URL"),
    *LAPTOP_DEFAULTS,
)

SYSTEM_VARIABLES = ("PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


@dataclass(frozen=True, slots=True)
class StackOptions:
    port: int | None
    #: Databases of the user's own, which are used instead of embedded ones.
    external_servers: bool


def read_options(inherited: Mapping[str, str]) -> StackOptions:
    """Return what is asked for. Raises `InvalidEnvironment` if that makes no sense."""
    database, broker = (_is_set(inherited, name) for name in ("DATABASE_URL", "REDIS_URL"))
    if database != broker:
        there, missing = ("DATABASE_URL", "REDIS_URL") if database else ("REDIS_URL", "DATABASE_URL")
        raise InvalidEnvironment(
            f"{there} is set and {missing} is not. "
            "Set both to use servers of your own, or neither to use embedded ones."
        )
    port = inherited.get("PORT")
    return StackOptions(parse_port(port) if port else None, external_servers=database)


def stack_environment(
    inherited: Mapping[str, str], kept_secrets: Mapping[str, str], facts: Mapping[str, str]
) -> dict[str, str]:
    """Return the environment of the stack's programs.

    Facts (addresses) always hold; secrets and the laptop's settings only where what is inherited is silent.
    """
    address = {"BASE_URL": facts["BASE_URL"]}
    defaults = {**LAPTOP_DEFAULTS, **kept_secrets, **address}
    silent = {name: value for name, value in defaults.items() if not _is_set(inherited, name)}
    return {**inherited, **{name: value for name, value in facts.items() if name not in address}, **silent}


def system_variables(inherited: Mapping[str, str]) -> dict[str, str]:
    """Return what programs need of the machine, without a word for Nightdesk in it."""
    return {name: value for name, value in inherited.items() if name in SYSTEM_VARIABLES or name.startswith("LC_")}


def shared_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what a management command needs to talk to the same desk."""
    return {name: environment[name] for name in SHARED_VARIABLES if name in environment}


def load_or_create_secrets(path: Path) -> dict[str, str]:
    """Return the secrets of this checkout's stack; they are made up at its first start."""
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        found = {}
    except (OSError, ValueError) as error:
        # Never replaced by new ones: what is in the database can be opened only with the old.
        raise InvalidEnvironment(
            f"{path} cannot be read: {error}. Mend it, or remove {path.parent} to begin anew."
        ) from error
    kept = {**_new_secrets(), **found}
    if kept != found:
        private_files.write_json(path, kept)
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
