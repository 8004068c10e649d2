"""One simulator for all tests of this folder, with a clean journal for each, and the official clients."""

from collections.abc import Iterator

import pytest
from anthropic import Anthropic
from openai import OpenAI

from tests.simulator_process import SimulatorProcess, start_simulator


@pytest.fixture(scope="session")
def running_simulator() -> Iterator[SimulatorProcess]:
    with start_simulator() as simulator:
        yield simulator


@pytest.fixture
def simulator(running_simulator: SimulatorProcess) -> SimulatorProcess:
    running_simulator.clear()
    return running_simulator


@pytest.fixture
def openai(simulator: SimulatorProcess) -> Iterator[OpenAI]:
    with OpenAI(base_url=simulator.openai_url, api_key="sk-test", max_retries=0, timeout=10) as client:
        yield client


@pytest.fixture
def anthropic(simulator: SimulatorProcess) -> Iterator[Anthropic]:
    with Anthropic(base_url=simulator.url, api_key="sk-ant-test", max_retries=0, timeout=10) as client:
        yield client
