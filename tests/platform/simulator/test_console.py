"""The simulator's own pages, and its start and end."""

import subprocess
import sys

import httpx
import pytest

from simulator.controls import Controls, describe_controls
from tests.simulator_process import PLATFORM, SimulatorProcess, start_simulator


def test_health(simulator: SimulatorProcess) -> None:
    assert simulator.ask("GET", "/__sim/health") == {"status": "ok"}


def test_the_page_explains_every_control_and_shows_the_last_calls(
    http: httpx.Client, simulator: SimulatorProcess
) -> None:
    http.post(
        "/v1/chat/completions",
        json={"model": "<script>alert(1)</script>", "messages": [{"role": "user", "content": "secret prompt"}]},
        headers={"authorization": "Bearer secret-key"},
    )

    page = http.get("/").text

    assert all(f"<code>{name}</code>" in page for name in Controls.__struct_fields__)
    assert f"curl -N {simulator.url}/v1/chat/completions" in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page
    assert "secret" not in page
    assert "https://" not in page


def test_every_control_says_what_it_does() -> None:
    assert all(describe_controls().values())


def test_an_unknown_page_is_not_found(http: httpx.Client) -> None:
    assert http.get("/__sim/nothing").status_code == 404
    assert http.post("/__sim/health").status_code == 404


def test_a_stalled_answer_does_not_hold_up_the_end() -> None:
    asked = {"model": "m@stall_after_n=1", "messages": [{"role": "user", "content": "x"}], "stream": True}
    with (
        start_simulator() as simulator,
        httpx.Client(base_url=simulator.url, headers={"authorization": "Bearer a"}) as http,
        http.stream("POST", "/v1/chat/completions", json=asked) as stalled,
    ):
        pieces = stalled.iter_raw()
        assert next(pieces)
        simulator.process.terminate()
        assert simulator.process.wait(5) is not None


def test_a_port_that_is_taken_is_a_clear_error(simulator: SimulatorProcess) -> None:
    port = simulator.url.rsplit(":", 1)[1]

    ended = subprocess.run(
        [sys.executable, "-m", "simulator", "--port", port], cwd=PLATFORM, capture_output=True, text=True, timeout=10
    )

    assert ended.returncode != 0
    assert port in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_simulator_that_does_not_start_is_told(simulator: SimulatorProcess) -> None:
    with pytest.raises(RuntimeError, match="did not start"), start_simulator(int(simulator.url.rsplit(":", 1)[1])):
        pass
