"""The local stack from the command line: `make run` and `make demo` are these.

python -m nightdesk.local run [--folder FOLDER]
python -m nightdesk.local demo
python -m nightdesk.local receiver PORT SECRETS_FILE
"""

import argparse
import asyncio
import os
import sys
import time
from pathlib import Path

from nightdesk import env
from nightdesk.local.card import render, write_card
from nightdesk.local.demo import play
from nightdesk.local.errors import LocalError
from nightdesk.local.ports import DEFAULT_WEB_PORT, Ports
from nightdesk.local.printer import Printer
from nightdesk.local.receiver import serve
from nightdesk.local.stack import NAMES, ROOT, Plan, bring_up, locked, make_plan, remember_in
from nightdesk.local.supervisor import Supervisor, attend
from nightdesk.local.wishes import read_wishes


def main() -> int:
    options = _read_options()
    try:
        match options.command:
            case "run":
                return run(options.folder)
            case "demo":
                return play()
            case _:
                serve(options.port, options.secrets_file)
                return 0
    except LocalError as error:
        print(error, file=sys.stderr)
        return 1


def run(folder: Path) -> int:
    """Bring up a desk with its data in the folder, show its card, and keep it up until told to stop."""
    began = time.monotonic()
    wishes = read_wishes(env.merged({}))
    with locked(folder), Ports() as ports:
        plan = make_plan(folder, wishes, ports)
        # The card is there while the desk is ready; whoever waits for it must not find that of an earlier start.
        card = folder / "local.json"
        card.unlink(missing_ok=True)
        try:
            return asyncio.run(_run(plan, began))
        finally:
            card.unlink(missing_ok=True)


async def _run(plan: Plan, began: float) -> int:
    colored = sys.stdout.isatty() and not env.given("NO_COLOR")
    supervisor = Supervisor(Printer(sys.stdout, NAMES, colored=colored).say, remember_in(plan.folder))
    if plan.web_port != DEFAULT_WEB_PORT and not env.given("PORT"):
        supervisor.say(f"port {DEFAULT_WEB_PORT} is taken; the desk will be at port {plan.web_port}.")
    try:
        return await attend(supervisor, _show_and_keep(supervisor, plan, began), code_when_told=0)
    finally:
        (plan.folder / "environment.json").unlink(missing_ok=True)
        supervisor.say("stopped.")


async def _show_and_keep(supervisor: Supervisor, plan: Plan, began: float) -> int:
    card = await bring_up(supervisor, plan, env.merged({}))
    write_card(card, plan.folder / "local.json")
    sys.stdout.write(render(card, time.monotonic() - began))
    sys.stdout.flush()
    await asyncio.get_running_loop().create_future()  # until told
    return 0


def _read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nightdesk.local", description="A whole desk on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    run_parser = commands.add_parser("run", help="run a desk until Ctrl-C")
    run_parser.add_argument("--folder", type=Path, default=ROOT / ".nightdesk", help="where its data is kept")
    commands.add_parser("demo", help="run a desk, play the main job, stop")
    receiver = commands.add_parser("receiver", help="receive webhooks and verify them")
    receiver.add_argument("port", type=int)
    receiver.add_argument("secrets_file", type=Path, help="a JSON list of webhook secrets")
    return parser.parse_args()


if __name__ == "__main__":
    code = main()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Nobody reads any more; Python would complain once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(code)
