"""The Lua scripts, each with what it shares with the others in front."""

from dataclasses import dataclass
from pathlib import Path

from core.redis import LuaScript

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Scripts:
    admit: LuaScript
    settle: LuaScript
    renew: LuaScript
    peek: LuaScript


def load_scripts(clock: str) -> Scripts:
    """Return the scripts with a Lua function `clock`. There is no other way to give them the time."""
    sliding = _read("sliding")
    return Scripts(
        LuaScript(clock + sliding + _read("admit")),
        LuaScript(clock + sliding + _read("settle")),
        LuaScript(clock + _read("renew")),
        LuaScript(clock + sliding + _read("peek")),
    )


def _read(name: str) -> str:
    return (FOLDER / f"{name}.lua").read_text()


SCRIPTS = load_scripts(_read("clock"))
