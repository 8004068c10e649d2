"""One simulator for all tests of this folder, with a clean journal for each, and the official clients."""

from collections.abc import Iterator

import httpx
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


# Clients are made once: loading their certificates takes longer than most tests.


@pytest.fixture(scope="session")
def http_client(running_simulator: SimulatorProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running_simulator.url, timeout=10) as client:
        yield client


@pytest.fixture(scope="session")
def openai_client(running_simulator: SimulatorProcess) -> Iterator[OpenAI]:
    with OpenAI(base_url=running_simulator.openai_url, api_key="sk-test", max_retries=0, timeout=10) as client:
        yield client


@pytest.fixture(scope="session")
def anthropic_client(running_simulator: SimulatorProcess) -> Iterator[Anthropic]:
    with Anthropic(base_url=running_simulator.url, api_key="sk-ant-test", max_retries=0, timeout=10) as client:
        yield client


@pytest.fixture
def http(simulator: SimulatorProcess, http_client: httpx.Client) -> httpx.Client:
    """A plain client of the clean simulator."""
    assert http_client.base_url == simulator.url
    return http_client


@pytest.fixture
def openai(simulator: SimulatorProcess, openai_client: OpenAI) -> OpenAI:
    assert openai_client.base_url.host in simulator.url
    return openai_client


@pytest.fixture
def anthropic(simulator: SimulatorProcess, anthropic_client: Anthropic) -> Anthropic:
    assert anthropic_client.base_url.host in simulator.url
    return anthropic_client
