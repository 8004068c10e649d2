"""A string that matches a regular expression, for JSON schemas with `pattern`.

It supports what schemas use: literals, classes, \\d \\w \\s, groups, alternatives, anchors and repetition. For other
constructs (look-around, back references) the result may not match, so the caller checks it.
"""

import re
from dataclasses import dataclass

REPEAT = re.compile(r"\{(\d+)(?:,(\d*))?\}|[*+?]")
ESCAPES = {
    "d": "7",
    "D": "x",
    "w": "a",
    "W": "-",
    "s": " ",
    "S": "a",
    "n": "\n",
    "t": "\t",
    "b": "",
    "B": "",
    "A": "",
    "Z": "",
}
PRINTABLE = "".join(map(chr, range(32, 127)))


def sample_match(pattern: str) -> str | None:
    """A string in which the pattern is found, or None if none was."""
    try:
        text = _Sampler(pattern).alternatives()
        return text if re.search(pattern, text) else None
    except (re.error, IndexError):
        return None


@dataclass(slots=True)
class _Sampler:
    """Reads a pattern from left to right and writes the shortest sensible match."""

    pattern: str
    position: int = 0

    def alternatives(self) -> str:
        first = self._sequence()
        while self._peek() == "|":
            self.position += 1
            self._sequence()
        return first

    def _sequence(self) -> str:
        parts = []
        while self._peek() not in ("", "|", ")"):
            parts.append(self._atom() * self._repetitions())
        return "".join(parts)

    def _atom(self) -> str:
        char = self._take()
        match char:
            case "^" | "$":
                return ""
            case ".":
                return "a"
            case "(":
                return self._group()
            case "[":
                return self._class()
            case "\\":
                escaped = self._take()
                return ESCAPES.get(escaped, escaped)
            case _:
                return char

    def _group(self) -> str:
        if self.pattern.startswith("?:", self.position):
            self.position += 2
        elif named := re.compile(r"\?P?<\w+>").match(self.pattern, self.position):
            self.position = named.end()
        text = self.alternatives()
        self.position += 1
        return text

    def _class(self) -> str:
        """One character of `[...]`. Python's own engine decides what belongs to it."""
        start = self.position - 1
        if self._peek() == "^":
            self.position += 1
        if self._peek() == "]":
            self.position += 1
        while (char := self._take()) != "]":
            if char == "\\":
                self.position += 1
        one = re.compile(self.pattern[start : self.position])
        return next((char for char in "a7A" + PRINTABLE if one.fullmatch(char)), "")

    def _repetitions(self) -> int:
        repeat = REPEAT.match(self.pattern, self.position)
        if repeat is None:
            return 1
        self.position = repeat.end()
        if self._peek() == "?":  # the lazy form
            self.position += 1
        return int(repeat[1]) if repeat[1] else 1

    def _peek(self) -> str:
        return self.pattern[self.position : self.position + 1]

    def _take(self) -> str:
        char = self.pattern[self.position]
        self.position += 1
        return char
