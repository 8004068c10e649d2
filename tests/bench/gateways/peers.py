"""The peers: their versions, and their installation into a folder that git ignores.

LiteLLM pins versions that an index may not have; the replacements are in `LIFTED`. Portkey's gateway
answers no stream with a newer @hono/node-server than its own lock file has.
"""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from devstack.stack import ROOT
from nightdesk import env
from tests.bench.progress import tell

FOLDER = ROOT / ".nightdesk" / "peers"

LITELLM = "1.108.11"
LIFTED = ("certifi", "litellm-enterprise", "litellm-proxy-extras")
#: Releases that carried malicious code. They are refused, not installed.
COMPROMISED = ("1.82.7", "1.82.8", "1.107")

PORTKEY = "1.15.2"
PORTKEY_PACKAGE = "@portkey-ai/gateway"
PORTKEY_SERVER = {"@hono/node-server": "1.13.5"}


class Compromised(Exception):
    """This release must not be installed."""


class NotInstalled(Exception):
    """A peer cannot be installed here."""


@dataclass(frozen=True, slots=True)
class Installed:
    version: str
    #: The program and what comes before its own arguments.
    command: tuple[str, ...]


def install_litellm(folder: Path = FOLDER, version: str = LITELLM) -> Installed:
    """Install LiteLLM's proxy into a virtual environment in the folder."""
    refuse_compromised(version)
    home = folder / f"litellm-{version}"
    python = home / "bin" / "python"
    if not _is_whole(home):
        tell(f"installing LiteLLM {version}")
        _begin(home)
        overrides = home / "overrides.txt"
        _run(sys.executable, "-m", "uv", "venv", "-q", "--python", sys.executable, "--clear", str(home))
        overrides.write_text("\n".join(LIFTED) + "\n")
        wanted = f"litellm[proxy]=={version}"
        _run(*_uv_install(python), "--override", str(overrides), wanted)
        _end(home)
    return Installed(version, (str(python), str(home / "bin" / "litellm")))


def install_portkey(folder: Path = FOLDER, version: str = PORTKEY) -> Installed:
    """Install Portkey's gateway into the folder, without running install scripts."""
    node, npm = _program("node"), _program("npm")
    home = folder / f"portkey-{version}"
    if not _is_whole(home):
        tell(f"installing Portkey's gateway {version}")
        _begin(home)
        package = {"private": True, "dependencies": {PORTKEY_PACKAGE: version}, "overrides": PORTKEY_SERVER}
        (home / "package.json").write_text(json.dumps(package))
        _run(npm, "install", "--prefix", str(home), "--ignore-scripts", "--no-audit", "--no-fund")
        _end(home)
    server = home / "node_modules" / PORTKEY_PACKAGE / "build" / "start-server.js"
    return Installed(f"{version} on Node {_said(node, '--version')}", (node, str(server)))


def refuse_compromised(version: str) -> None:
    """Raise for a release of LiteLLM that was tampered with, and for all that build on it."""
    for bad in COMPROMISED:
        if version == bad or version.startswith(f"{bad}."):
            raise Compromised(f"LiteLLM {version} was compromised: never install it.")


def _uv_install(python: Path) -> tuple[str, ...]:
    return (sys.executable, "-m", "uv", "pip", "install", "-q", "--python", str(python))


def _is_whole(home: Path) -> bool:
    return (home / ".whole").exists()


def _begin(home: Path) -> None:
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)


def _end(home: Path) -> None:
    """Note that nothing was interrupted."""
    (home / ".whole").touch()


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise NotInstalled(f"there is no {name} here")
    return path


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _run(*command: str) -> None:
    made = subprocess.run(command, env=env.child_environment({}), capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise NotInstalled(f"{command[0]} failed: {(made.stderr or made.stdout).strip()[-500:]}")
