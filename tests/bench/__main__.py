"""`make bench`: run the suites named, or all, print a table each, and write their figures."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from tests.bench import jobs, start
from tests.bench.report import Report, render, write

FOLDER = Path(__file__).resolve().parents[2] / ".nightdesk" / "bench"

SUITES: Mapping[str, Callable[[], Awaitable[Report]]] = {"start": start.run, "jobs": jobs.run}


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in SUITES]
    if unknown:
        print(f"There is no suite {unknown[0]!r}; there are: {', '.join(SUITES)}.", file=sys.stderr)
        return 1
    for name in names or SUITES:
        print(f"measuring {name} …", file=sys.stderr)
        report = asyncio.run(_collect(SUITES[name]))
        print(render(report), f"  written to {write(report, FOLDER).relative_to(FOLDER.parents[1])}", sep="\n")
    return 0


async def _collect(suite: Callable[[], Awaitable[Report]]) -> Report:
    return await suite()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
