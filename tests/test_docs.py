"""The documentation names what exists: links, files, events, metrics and log events are compared with the code."""

import ast
import re
from pathlib import Path

import pytest
from prometheus_client import Counter
from prometheus_client.metrics import MetricWrapperBase

from core import metrics
from core.crash import CrashPoint
from webhooks.event_types import EVENT_TYPES

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs" / "reference"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LOG_METHODS = {"debug", "info", "warning", "error", "exception", "critical"}


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text())

    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", [ROOT / "ARCHITECTURE.md", ROOT / "docs" / "glossary.md"], ids=name_of)
def test_every_path_that_the_map_names_exists(page: Path) -> None:
    paths = re.findall(r"`((?:platform|jobs|api|webhooks|tests)/[\w./]*)[`:]", page.read_text())

    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_function_that_the_map_names_is_in_its_file() -> None:
    named = re.findall(r"`([\w/]+\.py):\s+([\w.]+)`", (ROOT / "ARCHITECTURE.md").read_text())

    assert len(named) > 40
    assert [f"{path}: {name}" for path, name in named if name not in names_of(ROOT / path)] == []


def test_event_types_of_the_reference_are_those_of_the_code() -> None:
    assert first_column("events.md", r"(?:job|batch|budget|endpoint)\.\w+") == list(EVENT_TYPES)


def test_crash_points_of_the_how_to_are_those_of_the_code() -> None:
    assert first_column("../how-to/prove-it-yourself.md", r"(?:after|before|in)_\w+") == list(CrashPoint)


def test_metrics_of_the_reference_are_those_of_the_code() -> None:
    registered = [metric for metric in vars(metrics).values() if isinstance(metric, MetricWrapperBase)]
    names = {metric._name + "_total" * isinstance(metric, Counter) for metric in registered}

    assert set(first_column("metrics.md", r"nightdesk_\w+")) == names


def test_log_events_of_the_reference_are_those_of_the_code() -> None:
    assert set(first_column("log-events.md", r"\w+")) == set(log_events())


def names_of(path: Path) -> set[str]:
    """Return functions, classes and methods (`Class.method`) of a module."""
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    nodes = [node for node in ast.parse(path.read_text()).body if isinstance(node, definitions)]
    methods = [
        f"{node.name}.{inner.name}"
        for node in nodes
        if isinstance(node, ast.ClassDef)
        for inner in node.body
        if isinstance(inner, definitions)
    ]
    return {node.name for node in nodes} | set(methods)


def first_column(page: str, pattern: str) -> list[str]:
    """Return the words in backticks that stand in the first column of a page's tables, in their order."""
    rows = [line.split("|")[1] for line in (REFERENCE / page).read_text().splitlines() if line.startswith("| `")]
    return [word for row in rows for word in re.findall(rf"`({pattern})[`{{]", row)]


def log_events() -> list[str]:
    """Return the literal event names in our source: first arguments of logging calls, and arguments `…_event=`."""
    sources = [path for room in ("api", "jobs", "platform", "webhooks") for path in (ROOT / room).rglob("*.py")]
    calls = [node for path in sources for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    names = [node for call in calls for name in _event_arguments(call) for node in _outcomes(name)]
    return [name.value for name in names if isinstance(name, ast.Constant) and isinstance(name.value, str)]


def _event_arguments(call: ast.Call) -> list[ast.expr]:
    by_keyword = [keyword.value for keyword in call.keywords if (keyword.arg or "").endswith("_event")]
    return by_keyword + (call.args[:1] if _is_log_call(call.func) else [])


def _is_log_call(function: ast.expr) -> bool:
    """Whether a function writes a log line: `log.error`, or a helper whose name begins with `log` or `_log`."""
    if isinstance(function, ast.Name):
        return function.id.lstrip("_").startswith("log_")
    if not isinstance(function, ast.Attribute):
        return False
    is_logger = isinstance(function.value, ast.Name) and function.value.id == "log"
    return function.attr == "_log" or (is_logger and function.attr in LOG_METHODS)


def _outcomes(name: ast.expr) -> list[ast.expr]:
    return [name.body, name.orelse] if isinstance(name, ast.IfExp) else [name]
