"""make chaos [SEED=n] [JOBS=n]: run a campaign. The last line is its verdict as JSON. Exit code 1: a broken promise."""

import argparse
import json
import secrets
import sys
from pathlib import Path

from tests.chaos.campaign import play, to_stderr
from tests.chaos.plan import make_plan
from tests.chaos.verdict import RECOVERY_GOAL_SECONDS

DEFAULT_JOBS = 400


def main(arguments: list[str]) -> int:
    options = _read_options(arguments)
    seed = secrets.randbelow(100_000) if options.seed is None else options.seed
    plan = make_plan(seed, options.jobs, workers=options.workers)
    to_stderr(
        f"seed {seed}: {len(plan.orders)} jobs and {len(plan.blows)} blows in {plan.seconds:.0f} s,"
        f" {plan.workers} workers"
    )
    folder = options.folder / f"seed-{seed}"
    verdict = play(plan, folder, to_stderr)
    if not verdict.is_kept:
        to_stderr(f"{len(verdict.violations)} promises broken. Plan, ledgers and logs are in {folder}.")
        to_stderr(f"Play it again: make chaos SEED={seed} JOBS={options.jobs}")
    if verdict.figures["recovery_max_s"] > RECOVERY_GOAL_SECONDS:
        to_stderr(f"A job waited {verdict.figures['recovery_max_s']} s for its rescue; the goal is below 10 s.")
    print(json.dumps(verdict.figures), flush=True)
    return 0 if verdict.is_kept else 1


def _read_options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="plays that plan; by default a new one")
    parser.add_argument("--jobs", type=int, default=DEFAULT_JOBS)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(".nightdesk/chaos"), help="for the ledgers of a failure")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
