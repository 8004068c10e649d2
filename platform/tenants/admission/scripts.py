"""The Lua scripts, each with what it shares with the others in front."""

from dataclasses import dataclass
from pathlib import Path

from core.redis import Script

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Scripts:
    admit: Script
    settle: Script
    renew: Script
    look: Script


def load(clock: str) -> Scripts:
    """Return the scripts with a Lua function `clock`. There is no other way to give them the time."""
    sliding = _read("sliding")
    return Scripts(
        Script(clock + sliding + _read("admit")),
        Script(clock + sliding + _read("settle")),
        Script(clock + _read("renew")),
        Script(clock + sliding + _read("look")),
    )


def _read(name: str) -> str:
    return (FOLDER / f"{name}.lua").read_text()


SCRIPTS = load(_read("clock"))
