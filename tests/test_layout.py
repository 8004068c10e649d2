"""The layout of the code base: rooms, names, and which module may know what (imports: import-linter)."""

import ast
import functools
import importlib.util
import platform
import sys
from collections import defaultdict
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
    "live",
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


def test_platform_is_a_folder_that_does_not_hide_the_standard_library_module() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists()
    assert platform.__file__ is not None
    assert not Path(platform.__file__).is_relative_to(ROOT)


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_has_the_name_of_a_standard_or_installed_package(room: str) -> None:
    assert room not in sys.stdlib_module_names
    assert room not in installed_packages()


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_is_imported_from_this_repository(room: str) -> None:
    spec = importlib.util.find_spec(room)

    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).is_relative_to(ROOT)


def test_only_env_reads_the_environment() -> None:
    readers = [path for path in SOURCES if {"os.environ", "os.getenv"} & set(_attributes(path))]

    assert readers == [ROOT / "platform" / "nightdesk" / "env.py"]


def test_only_tasks_and_the_worker_import_celery() -> None:
    importers = {str(path.relative_to(ROOT)) for path in SOURCES if "celery" in set(_imports(path))}

    assert importers == {
        "jobs/tasks.py",
        "webhooks/tasks.py",
        "platform/nightdesk/celery.py",
        "platform/nightdesk/worker.py",
    }


def test_no_task_is_delayed_by_celery() -> None:
    """A delayed message waits in a worker's memory and may run twice; `available_at` and `due_at` are the delays."""
    offenders = [
        path
        for path in SOURCES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and {"countdown", "eta"} & {keyword.arg for keyword in node.keywords}
    ]

    assert offenders == []


def test_no_function_contains_an_import() -> None:
    offenders = [
        f"{path.relative_to(ROOT)}:{inner.lineno}"
        for path in SOURCES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
        if isinstance(inner, ast.Import | ast.ImportFrom)
    ]

    assert offenders == []


def test_public_class_names_are_unique() -> None:
    """One word for one thing. The simulator mirrors the vendors' vocabulary; Django names every command `Command`."""
    modules: dict[str, list[str]] = defaultdict(list)
    for path in SOURCES:
        if "simulator" not in path.parts:
            for name in _public_classes(path):
                modules[name].append(str(path.relative_to(ROOT)))
    duplicates = {name: paths for name, paths in modules.items() if len(paths) > 1 and name != "Command"}

    assert duplicates == {}


def test_a_redis_key_that_two_rooms_know_is_spelled_in_core_redis_keys_alone() -> None:
    """Every other key is spelled in one room. (Docstrings may name any of them.)"""
    spelled: dict[str, set[str]] = defaultdict(set)
    for path in SOURCES:
        for key in _redis_keys(path):
            spelled[key].add("redis_keys" if path.name == "redis_keys.py" else _room_of(path))
    shared = {key for key, rooms in spelled.items() if "redis_keys" in rooms}

    assert {"nd:usage", "nd:open:", "nd:process:"} <= shared
    assert {key: rooms for key, rooms in spelled.items() if len(rooms) > 1} == {}
    assert [key for key in spelled if key not in shared and any(key.startswith(each) for each in shared)] == [
        "nd:usage:aside"
    ]


def test_the_example_environment_lists_every_variable_with_its_default() -> None:
    assert settings.ROOT == ROOT
    listed = dict(
        line.removeprefix("#").strip().split("=", 1)
        for line in (ROOT / "compose" / "env.example").read_text().splitlines()
        if line.startswith("#") and not line.startswith("# ") and "=" in line
    )

    assert listed == env.READ_VARIABLES


def _public_classes(path: Path) -> Iterator[str]:
    for node in tree(path).body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node.name


def _room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return parts[1] if parts[0] == "platform" else parts[0]


def _redis_keys(path: Path) -> Iterator[str]:
    """Yield the beginnings of Redis keys in the module's literals."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Constant) and id(node) not in docstrings and isinstance(node.value, str | bytes):
            text = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
            if text.startswith("nd:"):
                yield text


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
