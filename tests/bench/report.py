"""The report of a benchmark: figures of one or several systems, goals, a table for people and a file for programs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

#: Where a system has no such figure.
NOTHING = "-"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure."""

    name: str
    value: float
    unit: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure of several systems, measured in the same run. A system without it is not named."""

    name: str
    unit: str
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure that we want to reach. `goal` says it in words."""

    name: str
    goal: str
    value: float
    met: bool


@dataclass(frozen=True, slots=True)
class Report:
    suite: str
    rows: Sequence[Row]
    goals: Sequence[Goal]
    comparisons: Sequence[Comparison] = ()
    #: What a reader must know to read the figures right.
    notes: Sequence[str] = ()
    #: Which part of the processors other programs used meanwhile.
    taken_by_others: float = 0.0


def render(report: Report) -> str:
    """Return the table of a suite."""
    named: list[Row | Comparison | Goal] = [*report.rows, *report.comparisons, *report.goals]
    width = max(len(each.name) for each in named)
    rows = [f"  {row.name:<{width}}  {row.value:>12,.3f}  {row.unit}" for row in report.rows]
    goals = [
        f"  {goal.name:<{width}}  {goal.value:>12,.3f}  {'met' if goal.met else 'MISSED'}: {goal.goal}"
        for goal in report.goals
    ]
    notes = [f"  * {note}" for note in report.notes]
    return "\n".join([report.suite, *rows, *_compared(report.comparisons, width), "  goals", *goals, *notes])


def to_json(report: Report) -> dict[str, Any]:
    """Return the suite's figures for programs."""
    return asdict(report)


def write(report: Report, folder: Path) -> Path:
    """Write the suite's figures as JSON, and return where."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{report.suite}.json"
    path.write_text(json.dumps(to_json(report), indent=2) + "\n")
    return path


def _compared(comparisons: Sequence[Comparison], width: int) -> list[str]:
    """Return a line of systems' names, and a line for each comparison."""
    systems = list(dict.fromkeys(name for each in comparisons for name in each.values))
    if not systems:
        return []
    columns = [max(len(name), 10) for name in systems]
    head = "  ".join(f"{name:>{column}}" for name, column in zip(systems, columns, strict=True))
    lines = [f"  {'':<{width}}  {head}"]
    for each in comparisons:
        cells = "  ".join(
            f"{_cell(each.values.get(name)):>{column}}" for name, column in zip(systems, columns, strict=True)
        )
        lines.append(f"  {each.name:<{width}}  {cells}  {each.unit}")
    return lines


def _cell(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value:,.2f}" if abs(value) < 10 else f"{value:,.1f}"
