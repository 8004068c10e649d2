"""Enqueue tasks for a peer: python -m tests.bench.peers.enqueue TASK MODEL STREAM COUNT. Prints the seconds taken."""

import sys
import time

from tests.bench.peers import app

TASKS = {"ask": app.ask, "ask_on_loop": app.ask_on_loop}


def main(task: str, model: str, stream: str, count: str) -> None:
    with app.app.connection_for_write() as connection:
        connection.ensure_connection()
    began = time.perf_counter()
    for _ in range(int(count)):
        TASKS[task].delay(model, stream == "stream")
    print(time.perf_counter() - began)


if __name__ == "__main__":
    main(*sys.argv[1:])
