"""The Makefile: its list of targets, and its errors on a machine that lacks something."""

import shutil
import subprocess
from pathlib import Path

import pytest

from devstack.stack import ROOT

TARGETS = ("run", "demo", "test", "brokers", "check", "bench", "chaos", "lock")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout without .venv, in a folder with a space in its name."""
    folder = tmp_path / "my projects"
    shutil.copytree(ROOT / "requirements", folder / "requirements")
    shutil.copy(ROOT / "Makefile", folder)
    return folder


def make(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", *arguments], cwd=checkout, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=30
    )


def stub(folder: Path, script: str) -> str:
    """A `python3` that runs this script."""
    path = folder / "python-stub"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return "PYTHON=./python-stub"


def test_make_alone_lists_every_target_with_one_line(checkout: Path) -> None:
    listed = make(checkout).stdout.splitlines()

    assert {line.split()[1] for line in listed} >= set(TARGETS)
    assert all(len(line.split()) > 4 for line in listed)
    assert max(map(len, listed)) <= 110


@pytest.mark.parametrize("target", ["run", "test"])
def test_make_reports_a_missing_python(checkout: Path, target: str) -> None:
    made = make(checkout, target, "PYTHON=no-such-python")

    assert made.returncode != 0
    assert "There is no no-such-python. Install Python 3.11 or later" in made.stderr


def test_make_reports_a_too_old_python_with_its_version(checkout: Path) -> None:
    made = make(checkout, "run", stub(checkout, '[ "$1" = --version ] && echo Python 3.9.18 || exit 1'))

    assert made.returncode != 0
    assert "needs Python 3.11 or later; ./python-stub is Python 3.9.18" in made.stderr
    assert not (checkout / ".venv").exists()


def test_make_reports_a_missing_venv_module(checkout: Path) -> None:
    made = make(checkout, "run", stub(checkout, 'case "$2" in *ensurepip*) exit 1;; esac'))

    assert made.returncode != 0
    assert "apt install python3-venv" in made.stderr


def test_an_interrupted_installation_is_repeated(checkout: Path) -> None:
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / ".venv" / "made").touch()
    pip = checkout / ".venv" / "bin" / "python"
    pip.write_text('#!/bin/sh\necho "asked $*"; exit 1\n')
    pip.chmod(0o755)

    for _ in range(2):
        made = make(checkout, "run")

        assert made.returncode != 0
        assert "Installing requirements/local.txt" in made.stderr
        assert "--require-hashes -r requirements/local.txt" in made.stdout


def test_ci_runs_exactly_what_the_readme_says() -> None:
    commands = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line.startswith("make ")]

    assert commands == ["make --keep-going brokers browser || true", "make test", "make check"]
