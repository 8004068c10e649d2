"""The measured systems, each started on the gateway's core in front of the same simulator."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from devstack.options import system_variables
from devstack.ports import HOST, free_port
from devstack.program import Program, launch, stop
from devstack.stack import ROOT
from nightdesk import env
from tests.bench.books import Books
from tests.bench.desk import Desk
from tests.bench.gateways import cores, peers
from tests.polling import wait_for

PATH = "/v1/chat/completions"
UPSTREAM = "gpt-4o-mini"
#: What the simulator does, by the name that a route of ours has for it.
PLAIN, STREAM, IDLE = "bench-plain", "bench-stream", "bench-idle"
CONTROLS: Mapping[str, Mapping[str, str]] = {
    PLAIN: {},
    STREAM: {"profile": "litellm"},
    # It ends without a disconnect, because a gateway may not notice that its client has left.
    IDLE: {"stall_after_n": "1", "stall_ms": "150000"},
}

DIRECT, PASS_THROUGH, NIGHTDESK, LITELLM, PORTKEY = "none", "pass-through", "Nightdesk", "LiteLLM", "Portkey"
KEY = "sk-bench-3f9c2a"
SIMULATOR_KEY = "sk-simulator"
LAST_BYTES = 1500
#: A first start compiles all of a gateway's code.
SECONDS_TO_ANSWER = 120


@dataclass(frozen=True, slots=True)
class System:
    """A server under load."""

    name: str
    url: str
    headers: Mapping[str, str]
    #: The model that makes the simulator behave in each way.
    models: Mapping[str, str]
    #: The processes that a request waits for; the first is the gateway itself.
    pids: tuple[int, ...] = ()
    version: str = ""


def direct(simulator_url: str) -> System:
    """No gateway at all."""
    return System(DIRECT, simulator_url + PATH, _bearer(SIMULATOR_KEY), suffixed_models())


def nightdesk(desk: Desk, books: Books, core: int) -> System:
    """The desk's web process and Valkey, which every request uses; both on the gateway's core."""
    for name, upstream in suffixed_models().items():
        books.add_route(name, upstream)
    pids = (desk.web_pid, desk.broker_pid)
    for pid in pids:
        cores.move(pid, core)
    url = desk.card.base_url + PATH
    return System(NIGHTDESK, url, _bearer(desk.card.api_key), {name: name for name in CONTROLS}, pids)


@contextmanager
def pass_through(simulator_url: str, folder: Path, core: int) -> Iterator[System]:
    port = free_port()
    command = (sys.executable, "-m", "tests.bench.gateways.passthrough", str(port), simulator_url)
    path = os.pathsep.join((str(ROOT), str(ROOT / "platform")))
    system = System(PASS_THROUGH, _url(port), {}, suffixed_models())
    with _running(system, command, {"PYTHONPATH": path}, folder, core) as running:
        yield running


@contextmanager
def litellm(simulator_url: str, folder: Path, core: int) -> Iterator[System]:
    """LiteLLM's proxy as its handbook would have it in production, without a database."""
    installed = peers.install_litellm()
    port, config = free_port(), folder / "litellm.json"
    config.write_text(json.dumps(_litellm_config(simulator_url)))
    command = (*installed.command, "--config", str(config), "--host", HOST, "--port", str(port), "--num_workers", "1")
    variables = {
        # Its price table from the wheel, not from the network.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
    }
    system = System(LITELLM, _url(port), _bearer(KEY), {name: name for name in CONTROLS}, version=installed.version)
    with _running(system, (*command, "--telemetry", "False"), variables, folder, core) as running:
        yield running


@contextmanager
def portkey(simulator_url: str, folder: Path, core: int) -> Iterator[System]:
    """Portkey's gateway, which passes the key on and checks none."""
    installed = peers.install_portkey()
    port = free_port()
    headers = {
        **_bearer(SIMULATOR_KEY),
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"{simulator_url}/v1",
    }
    system = System(PORTKEY, _url(port), headers, suffixed_models(), version=installed.version)
    command = (*installed.command, f"--port={port}", "--headless")
    with _running(system, command, {"NODE_ENV": "production"}, folder, core) as running:
        yield running


def complaint_of(system: System) -> str:
    """Send one request; return what is wrong with the response, or an empty string."""
    body = json.dumps({"model": system.models[PLAIN], "messages": [{"role": "user", "content": "Hello."}]}).encode()
    request = urllib.request.Request(system.url, body, {**system.headers, "Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return "" if b'"choices"' in answer.read() else "it answered something else"
    except urllib.error.HTTPError as error:
        return f"it answered {error.code}"
    except OSError as error:
        return f"it did not answer: {error}"


def suffixed_models() -> dict[str, str]:
    """Return the models as the simulator reads them: its controls are a suffix of the name."""
    controls = {name: ",".join(f"{key}={value}" for key, value in each.items()) for name, each in CONTROLS.items()}
    return {name: f"{UPSTREAM}@{each}" if each else UPSTREAM for name, each in controls.items()}


def _litellm_config(simulator_url: str) -> dict[str, object]:
    """By header instead of by name: a model that is not in its price table would cost it time for its complaint."""
    return {
        "model_list": [
            {
                "model_name": name,
                "litellm_params": {
                    "model": f"openai/{UPSTREAM}",
                    "api_base": f"{simulator_url}/v1",
                    "api_key": SIMULATOR_KEY,
                    "extra_headers": {f"x-sim-{key.replace('_', '-')}": value for key, value in controls.items()},
                },
            }
            for name, controls in CONTROLS.items()
        ],
        "general_settings": {"master_key": KEY},
    }


@contextmanager
def _running(
    system: System, command: tuple[str, ...], variables: Mapping[str, str], folder: Path, core: int
) -> Iterator[System]:
    """Run a gateway on the core until the block ends; it has answered by then."""
    environment = {**system_variables(env.child_environment({})), "HOME": str(folder), **variables}
    program = Program(system.name, command, environment, ROOT)
    path = folder / f"{system.name}.log"
    with path.open("wb") as log, cores.on(core):
        process = launch(program, log)
    try:
        wait_for(lambda: _has_ended(process) or not complaint_of(system), seconds=SECONDS_TO_ANSWER, every=0.25)
        if _has_ended(process):
            last = path.read_bytes()[-LAST_BYTES:].decode(errors="replace")
            raise RuntimeError(f"{system.name} ended. Its last words:\n{last}")
        yield replace(system, pids=(process.pid,))
    finally:
        stop(process, program)


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is not None


def _url(port: int) -> str:
    return f"http://{HOST}:{port}{PATH}"


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
