"""Prints the lines of several programs, each prefixed with the name of its program."""

from collections.abc import Sequence
from typing import TextIO

#: Cyan, yellow, green, magenta, blue, and the bright versions; no red, which means an error.
COLORS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)


class Printer:
    """Writes one line at a time. The names are known in advance, so that the lines are aligned."""

    def __init__(self, output: TextIO, names: Sequence[str], *, colored: bool) -> None:
        self._output = output
        self._width = max(map(len, names))
        self._colors = {name: COLORS[index % len(COLORS)] for index, name in enumerate(names)} if colored else {}

    def say(self, name: str, line: str) -> None:
        """Write one line of this program."""
        prefix = f"{name:<{self._width}} |"
        if color := self._colors.get(name):
            prefix = f"\033[{color}m{prefix}\033[0m"
        self._output.write(f"{prefix} {line}\n")
        self._output.flush()
