"""The only module that reads environment variables. Invalid values raise `ImproperlyConfigured` at start-up."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

#: Every variable that settings.py reads, with its default as text; `compose/env.example` must list the same.
READ_VARIABLES: dict[str, str] = {}


def text(name: str, default: str = "") -> str:
    """Return the variable, or the default if it is unset or empty."""
    READ_VARIABLES[name] = default
    return os.environ.get(name) or default


def secret(name: str, default: str = "") -> str:
    """Like `text`, but `NAME_FILE` may name a file that contains the value (a mounted secret)."""
    path = os.environ.get(f"{name}_FILE")
    if not path:
        return text(name, default)
    if os.environ.get(name):
        raise ImproperlyConfigured(f"Both {name} and {name}_FILE are set; set one.")
    READ_VARIABLES[name] = default
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise ImproperlyConfigured(f"{name}_FILE names {path}, which cannot be read: {error.strerror}.") from error


def flag(name: str, default: bool) -> bool:
    """Return True for `true` and False for `false`, case-insensitively; other values are errors."""
    value = text(name, str(default).lower()).lower()
    if value not in ("true", "false"):
        raise ImproperlyConfigured(f"{name} must be 'true' or 'false', got {value!r}.")
    return value == "true"


def number(name: str, default: int, *, at_least: int = 0) -> int:
    """Return a whole number that is `at_least` or more."""
    value = text(name, str(default))
    if not re.fullmatch(r"-?[0-9]{1,12}", value) or int(value) < at_least:
        raise ImproperlyConfigured(f"{name} must be a whole number, {at_least} or more; got {value!r}.")
    return int(value)


def words(name: str, default: str = "") -> list[str]:
    """Return the items of a comma-separated list."""
    return [item.strip() for item in text(name, default).split(",") if item.strip()]


def choice(name: str, default: str, among: tuple[str, ...]) -> str:
    """Return one of the allowed words."""
    value = text(name, default)
    if value not in among:
        raise ImproperlyConfigured(f"{name} must be one of {', '.join(among)}; got {value!r}.")
    return value


def refuse_renamed(renamed: Mapping[str, str]) -> None:
    """Refuse variables by their old names: ignored silently, one could open what it was meant to close."""
    found = {old: new for old, new in renamed.items() if old in os.environ}
    if found:
        changes = ", ".join(f"{old} to {new}" for old, new in sorted(found.items()))
        raise ImproperlyConfigured(f"Settings were renamed. In the environment, rename {changes}.")


def use_settings(module: str) -> None:
    """Set the settings module, unless the environment sets one."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", module)


def adopt_local_stack(path: Path) -> None:
    """Adopt the variables that a running local stack wrote to the file, unless DATABASE_URL is set."""
    if path.exists() and not (os.environ.get("DATABASE_URL") or os.environ.get("DATABASE_URL_FILE")):
        os.environ.update(json.loads(path.read_text()))


def optional(name: str) -> str | None:
    """Return a variable that only the local stack and the tests use; None if it is unset or empty."""
    return os.environ.get(name) or None


def child_environment(changes: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for a child process: this one's, with changes."""
    return {**os.environ, **changes}


def set_variables(changes: Mapping[str, str]) -> None:
    """Change this process's environment, before settings are read."""
    os.environ.update(changes)


def database(name: str, default: str) -> dict[str, object]:
    """Return a Django database entry from `postgresql://user:password@host:port/name?option=value`."""
    url = urlsplit(secret(name, default))
    if url.scheme not in ("postgresql", "postgres") or not url.path.strip("/"):
        raise ImproperlyConfigured(f"{name} must look like postgresql://user:password@host:5432/name.")
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(url.path.strip("/")),
        "USER": unquote(url.username or ""),
        "PASSWORD": unquote(url.password or ""),
        "HOST": url.hostname or "",
        "PORT": str(url.port or ""),
        "OPTIONS": dict(parse_qsl(url.query)),
    }
