"""Command line of the local stack, which `make run` and `make demo` call.

python -m devstack run [--folder FOLDER]
python -m devstack demo
python -m devstack receiver PORT SECRETS_FILE
"""

import argparse
import asyncio
import os
import sys
import time
from pathlib import Path

from devstack.card import render, write_card
from devstack.demo import run_demo
from devstack.errors import StackError
from devstack.options import read_options
from devstack.ports import DEFAULT_WEB_PORT, PortReservations
from devstack.printer import Printer
from devstack.stack import PROGRAM_NAMES, ROOT, StackPlan, locked, make_plan, process_recorder, start_stack
from devstack.supervisor import Supervisor, run_until_stopped
from devstack.webhook_receiver import serve
from nightdesk import env


def main() -> int:
    arguments = _parse_arguments()
    try:
        match arguments.command:
            case "run":
                return run(arguments.folder)
            case "demo":
                return run_demo()
            case _:
                serve(arguments.port, arguments.secrets_file)
                return 0
    except StackError as error:
        print(error, file=sys.stderr)
        return 1


def run(folder: Path) -> int:
    """Start a desk with its data in the folder, print its card, and run it until a signal stops it."""
    began = time.monotonic()
    options = read_options(env.child_environment({}))
    with locked(folder), PortReservations() as ports:
        plan = make_plan(folder, options, ports)
        # The card exists while the desk is ready; a script that waits for it must not find one of an earlier start.
        card = folder / "local.json"
        card.unlink(missing_ok=True)
        try:
            return asyncio.run(_run(plan, began))
        finally:
            card.unlink(missing_ok=True)


async def _run(plan: StackPlan, began: float) -> int:
    colored = sys.stdout.isatty() and not env.optional("NO_COLOR")
    supervisor = Supervisor(Printer(sys.stdout, PROGRAM_NAMES, colored=colored).say, process_recorder(plan.folder))
    if plan.web_port != DEFAULT_WEB_PORT and not env.optional("PORT"):
        supervisor.say(f"port {DEFAULT_WEB_PORT} is in use; the desk will listen on port {plan.web_port}.")
    try:
        return await run_until_stopped(supervisor, _show_card_and_wait(supervisor, plan, began), code_when_stopped=0)
    finally:
        (plan.folder / "environment.json").unlink(missing_ok=True)
        supervisor.say("stopped.")


async def _show_card_and_wait(supervisor: Supervisor, plan: StackPlan, began: float) -> int:
    card = await start_stack(supervisor, plan, env.child_environment({}))
    write_card(card, plan.folder / "local.json")
    sys.stdout.write(render(card, time.monotonic() - began))
    sys.stdout.flush()
    await asyncio.get_running_loop().create_future()  # until it is canceled
    return 0


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="devstack", description="A whole desk on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    run_parser = commands.add_parser("run", help="run a desk until Ctrl-C")
    run_parser.add_argument("--folder", type=Path, default=ROOT / ".nightdesk", help="where its data is kept")
    commands.add_parser("demo", help="run a desk, run one job on it, stop")
    receiver = commands.add_parser("receiver", help="receive webhooks and verify them")
    receiver.add_argument("port", type=int)
    receiver.add_argument("secrets_file", type=Path, help="a JSON list of webhook secrets")
    return parser.parse_args()


if __name__ == "__main__":
    code = main()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of the pipe is gone; without this Python would report it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(code)
