"""The house stands as it was drawn: rooms, names, and who may know what."""

import ast
import functools
import importlib.util
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from nightdesk import env, settings

ROOT = Path(__file__).resolve().parents[1]
ROOMS = (
    "core",
    "providers",
    "simulator",
    "tenants",
    "streams",
    "metering",
    "inference",
    "nightdesk",
    "devstack",
    "jobs",
    "api",
    "webhooks",
)
SOURCES = sorted(
    path
    for folder in (ROOT / "platform", ROOT / "jobs", ROOT / "api", ROOT / "webhooks")
    for path in folder.rglob("*.py")
    if "migrations" not in path.parts
)


@functools.cache
def installed_packages() -> set[str]:
    return set(packages_distributions())


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def test_platform_is_a_folder_and_the_standard_library_keeps_its_name() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists()
    assert platform.__file__ is not None
    assert not Path(platform.__file__).is_relative_to(ROOT)


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_bears_the_name_of_a_standard_or_installed_package(room: str) -> None:
    assert room not in sys.stdlib_module_names
    assert room not in installed_packages()


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_where_it_was_drawn(room: str) -> None:
    spec = importlib.util.find_spec(room)

    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).is_relative_to(ROOT)


def test_only_env_reads_the_environment() -> None:
    readers = [path for path in SOURCES if {"os.environ", "os.getenv"} & set(_attributes(path))]

    assert readers == [ROOT / "platform" / "nightdesk" / "env.py"]


def test_only_tasks_and_the_worker_know_celery() -> None:
    knowing = {str(path.relative_to(ROOT)) for path in SOURCES if "celery" in set(_imports(path))}

    assert knowing == {
        "jobs/tasks.py",
        "webhooks/tasks.py",
        "platform/nightdesk/celery.py",
        "platform/nightdesk/worker.py",
    }


def test_no_task_is_sent_into_the_future() -> None:
    """Delayed messages sit in a worker's memory and run twice; `available_at` and `due_at` are rows."""
    guilty = [
        path
        for path in SOURCES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and {"countdown", "eta"} & {keyword.arg for keyword in node.keywords}
    ]

    assert guilty == []


def test_no_import_hides_inside_a_function() -> None:
    guilty = [
        f"{path.relative_to(ROOT)}:{inner.lineno}"
        for path in SOURCES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
        if isinstance(inner, ast.Import | ast.ImportFrom)
    ]

    assert guilty == []


def test_the_example_environment_lists_every_variable_with_its_default() -> None:
    assert settings.ROOT == ROOT
    listed = dict(
        line.removeprefix("#").strip().split("=", 1)
        for line in (ROOT / "compose" / "env.example").read_text().splitlines()
        if line.startswith("#") and not line.startswith("# ") and "=" in line
    )

    assert listed == env.READ_VARIABLES


def _attributes(path: Path) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
