"""What a bench reports: rows, goals, a table for people and a file for programs."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Row:
    """One figure."""

    name: str
    value: float
    unit: str


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


def render(report: Report) -> str:
    """Return the table of a suite."""
    width = max(len(name) for name in (*(row.name for row in report.rows), *(goal.name for goal in report.goals)))
    rows = [f"  {row.name:<{width}}  {row.value:>12,.3f}  {row.unit}" for row in report.rows]
    goals = [
        f"  {goal.name:<{width}}  {goal.value:>12,.3f}  {'met' if goal.met else 'MISSED'}: {goal.goal}"
        for goal in report.goals
    ]
    return "\n".join([report.suite, *rows, "  goals", *goals])


def write(report: Report, folder: Path) -> Path:
    """Write the suite's figures as JSON, and return where."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{report.suite}.json"
    path.write_text(json.dumps(asdict(report), indent=2) + "\n")
    return path


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which this share of them lies."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]
