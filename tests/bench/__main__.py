"""`make bench`: run the suites named, or all, print a table each, and write their figures. `--json` prints those."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tests.bench import against_celery, batch, claim, gateway, jobs, rescue, start
from tests.bench.processor import CROWDED, share_of_others, usage_now
from tests.bench.report import Report, render, to_json, write

FOLDER = Path(__file__).resolve().parents[2] / ".nightdesk" / "bench"

SUITES: Mapping[str, Callable[[], Report]] = {
    "start": start.run,
    jobs.SUITE: jobs.run,
    against_celery.SUITE: against_celery.run,
    batch.SUITE: batch.run,
    claim.SUITE: claim.run,
    rescue.SUITE: rescue.run,
    "gateway": gateway.run,
}


def main(arguments: Sequence[str]) -> int:
    options = _read_options(arguments)
    reports = []
    for name in options.suites or SUITES:
        print(f"measuring {name}", file=sys.stderr, flush=True)
        report = _measure(SUITES[name])
        path = write(report, FOLDER)
        reports.append(report)
        if not options.json:
            print(render(report), f"  written to {path.relative_to(FOLDER.parents[1])}", sep="\n", flush=True)
    if options.json:
        print(json.dumps([to_json(report) for report in reports], indent=2))
    return 0


def _measure(suite: Callable[[], Report]) -> Report:
    """Run a suite, and add to its report how much of the machine other programs used."""
    before = usage_now()
    report = suite()
    taken = share_of_others(before, usage_now())
    return replace(
        report, taken_by_others=taken, notes=[*report.notes, *([_crowded(taken)] if taken > CROWDED else [])]
    )


def _crowded(taken: float) -> str:
    return f"Other programs took {taken:.0%} of the processors meanwhile: compare only within this table."


def _read_options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.bench", description="Measure how fast the desk is on this machine.")
    parser.add_argument("suites", nargs="*", type=_suite, metavar="SUITE", help=f"{', '.join(SUITES)}; all if none")
    parser.add_argument("--json", action="store_true", help="print only the figures, as JSON")
    return parser.parse_args(arguments)


def _suite(name: str) -> str:
    if name not in SUITES:
        raise argparse.ArgumentTypeError(f"there is no suite {name!r}; there are: {', '.join(SUITES)}")
    return name


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
