"""Options of the local stack, read from the environment, and the environment of its programs."""

import base64
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from devstack import private_files
from devstack.errors import InvalidEnvironment
from devstack.ports import HOST, parse_port

#: Default settings of the local stack; the environment overrides them.
LAPTOP_DEFAULTS = {
    "DEBUG": "true",
    "LOG_FORMAT": "console",
    # On a laptop the sites listen on loopback.
    "WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8,::1/128",
    "WEBHOOK_ALLOWED_PORTS": "0",
}

#: Variables that `manage.py` adopts from the stack that runs in its checkout.
SHARED_VARIABLES = (
    *("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "ENCRYPTION_KEYS", "BASE_URL", "SIMULATOR_URL"),
    *LAPTOP_DEFAULTS,
)

SYSTEM_VARIABLES = ("PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


@dataclass(frozen=True, slots=True)
class StackOptions:
    port: int | None
    #: Whether the user's own database servers are used instead of the embedded ones.
    external_servers: bool


def read_options(inherited: Mapping[str, str]) -> StackOptions:
    """Read the options. Raises `InvalidEnvironment` if they contradict each other."""
    has_database, has_redis = (_is_set(inherited, name) for name in ("DATABASE_URL", "REDIS_URL"))
    if has_database != has_redis:
        present, missing = ("DATABASE_URL", "REDIS_URL") if has_database else ("REDIS_URL", "DATABASE_URL")
        raise InvalidEnvironment(
            f"{present} is set and {missing} is not. "
            "Set both to use your own servers, or neither to use the embedded ones."
        )
    port = inherited.get("PORT")
    return StackOptions(parse_port(port) if port else None, external_servers=has_database)


def stack_environment(
    inherited: Mapping[str, str], kept_secrets: Mapping[str, str], facts: Mapping[str, str]
) -> dict[str, str]:
    """Return the environment of the stack's programs.

    Facts (addresses) override inherited variables; secrets, BASE_URL and LAPTOP_DEFAULTS do not.
    """
    address = {"BASE_URL": facts["BASE_URL"]}
    defaults = {**LAPTOP_DEFAULTS, **kept_secrets, **address}
    unset = {name: value for name, value in defaults.items() if not _is_set(inherited, name)}
    return {**inherited, **{name: value for name, value in facts.items() if name not in address}, **unset}


def system_variables(inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that programs need from the system, and none of Nightdesk's settings."""
    return {name: value for name, value in inherited.items() if name in SYSTEM_VARIABLES or name.startswith("LC_")}


def shared_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a management command needs to use the same desk."""
    return {name: environment[name] for name in SHARED_VARIABLES if name in environment}


def load_or_create_secrets(path: Path) -> dict[str, str]:
    """Return the secrets of this checkout's stack; they are generated at its first start."""
    try:
        stored = json.loads(path.read_text())
    except FileNotFoundError:
        stored = {}
    except (OSError, ValueError) as error:
        # Never replaced by new secrets: only the old ones decrypt what the database holds.
        raise InvalidEnvironment(
            f"{path} cannot be read: {error}. Repair it, or remove {path.parent} to start from scratch."
        ) from error
    complete = {**_new_secrets(), **stored}
    if complete != stored:
        private_files.write_json(path, complete)
    return complete


def base_url(port: int) -> str:
    """Return the URL of a web server on this port."""
    return f"http://{HOST}:{port}"


def _is_set(inherited: Mapping[str, str], name: str) -> bool:
    return bool(inherited.get(name) or inherited.get(f"{name}_FILE"))


def _new_secrets() -> dict[str, str]:
    return {
        "SECRET_KEY": secrets.token_urlsafe(48),
        "ENCRYPTION_KEYS": "k1:" + base64.b64encode(secrets.token_bytes(32)).decode(),
    }
