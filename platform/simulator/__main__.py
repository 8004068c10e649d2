"""Start the simulator: python -m simulator --port 9000 [--host 127.0.0.1] [--journal FILE]."""

import argparse
import socket
import sys
from pathlib import Path

import uvicorn

from simulator.app import Simulator
from simulator.connection import SimulatorProtocol

#: A stalled response must not delay the shutdown of the process.
GRACEFUL_SHUTDOWN_SECONDS = 1


def main() -> None:
    options = read_options()
    server = uvicorn.Server(
        uvicorn.Config(
            Simulator(options.journal),
            http=SimulatorProtocol,
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_SECONDS,
        )
    )
    try:
        listening = listen(options.host, options.port)
    except OSError as error:
        sys.exit(f"The simulator cannot listen on {options.host}:{options.port}: {error.strerror}.")
    # The kernel queues connections from here on, so a client that waits for this line may connect immediately.
    sys.stdout.write(f"simulator: http://{options.host}:{listening.getsockname()[1]}\n")
    sys.stdout.flush()
    server.run(sockets=[listening])


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="simulator", description="Simulate OpenAI, Azure OpenAI and Anthropic.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9000, help="0 picks a free port; the first line of output names it")
    parser.add_argument("--journal", type=Path, help="also write the journal to this file, one JSON object a line")
    return parser.parse_args()


def listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=2048)


if __name__ == "__main__":
    main()
