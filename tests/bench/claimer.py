"""Submits and claims jobs in-process, as the desk's own processes do.

python -m tests.bench.claimer submit    stores one job of the demo site
python -m tests.bench.claimer claim     for each line with a number: claims that many jobs, as a worker does, and prints
                                        with the milliseconds it took and how many it got
"""

import sys
import time

import django

from nightdesk import env

env.use_settings("nightdesk.settings")
django.setup()

from devstack.card import DEMO_MODEL  # noqa: E402
from jobs.models import JobKind  # noqa: E402
from jobs.submit import JobSubmission, submit  # noqa: E402
from jobs.worker.claim import claim  # noqa: E402 (models cannot be imported before)
from jobs.worker.leases import acquire_lease  # noqa: E402
from tenants.models import Site  # noqa: E402


def submit_one() -> None:
    body = {"model": DEMO_MODEL, "messages": [{"role": "user", "content": "Say hello to the night shift. " * 10}]}
    submit(Site.objects.get(), JobSubmission(JobKind.CHAT, body))


def claim_when_told() -> None:
    for line in sys.stdin:
        worker_id = acquire_lease()
        began = time.perf_counter()
        claims = claim(worker_id, int(line))
        print((time.perf_counter() - began) * 1000, len(claims), flush=True)


if __name__ == "__main__":
    {"submit": submit_one, "claim": claim_when_told}[sys.argv[1]]()
