"""Every crash point with every kind of job, concurrently on one desk."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now

from core.crash import CrashPoint
from jobs.batches.create import BatchSubmission, create
from jobs.models import BATCH_QUEUE, Batch, Job, JobKind
from jobs.submit import JobSubmission, submit
from tenants.models import Site
from tests.chaos.books import read_books
from tests.chaos.campaign import read_journal
from tests.chaos.ledgers import Ledgers, compare
from tests.chaos.receiver import Receiver, received_by
from tests.chaos.recruits import Recruit, recruited
from tests.factories import make_file, make_provider, make_route, make_site
from tests.polling import wait_for
from tests.simulator_process import start_simulator
from webhooks.endpoints import create_endpoint
from webhooks.models import Delivery

KILLED = -9
#: The job must last until its worker's second sweep, or its first heartbeat.
LONG = {CrashPoint.IN_SWEEP: ":2", CrashPoint.IN_HEARTBEAT: ":1"}
WEBHOOK_POINTS = (CrashPoint.BEFORE_WEBHOOK, CrashPoint.AFTER_WEBHOOK)
#: The finish is committed already, or may be: a sweep that finds another one running comes later. All others need a
#: second attempt.
MAY_HAVE_ENDED = (CrashPoint.AFTER_COMMIT, CrashPoint.IN_SWEEP, *WEBHOOK_POINTS)
#: They maintain one batch, one after the other.
READER = Recruit(CrashPoint.IN_EXPAND, ("nobody",), f"{CrashPoint.IN_EXPAND}:1", is_alone=True)
FINISHER = Recruit(CrashPoint.IN_FINALIZE, (BATCH_QUEUE,), f"{CrashPoint.IN_FINALIZE}:1", is_alone=True)
BATCH_POINTS = (CrashPoint.IN_EXPAND, CrashPoint.IN_FINALIZE)
MEMBERS = 5
POINTS = [point for point in CrashPoint if point not in BATCH_POINTS]
HEALTHY = Recruit("healthy", deliveries=8)


@dataclass(frozen=True, slots=True)
class Case:
    point: CrashPoint
    kind: JobKind

    @property
    def name(self) -> str:
        return f"{self.point}-{self.kind}"

    @property
    def recruit(self) -> Recruit:
        deliveries = 1 if self.point in WEBHOOK_POINTS else 0
        return Recruit(self.name, (self.name,), f"{self.point}{LONG.get(self.point, ':1')}", deliveries)

    @property
    def body(self) -> dict[str, Any]:
        model = f"{'long' if self.point in LONG else 'quick'}-{self.kind}"
        if self.kind == JobKind.EMBEDDINGS:
            return {"model": model, "input": [self.name]}
        return {"model": model, "messages": [{"role": "user", "content": self.name}], "max_tokens": 20}


# The longest one starts first.
CASES = sorted((Case(point, kind) for point in POINTS for kind in JobKind), key=lambda case: case.point not in LONG)


@pytest.mark.django_db(transaction=True)
def test_a_worker_killed_at_any_point_costs_no_job_of_any_kind(tmp_path: Path, environment: dict[str, str]) -> None:
    journal = tmp_path / "journal.jsonl"
    with start_simulator(journal=journal) as simulator, received_by(Receiver()) as (receiver, url):
        site = _desk(simulator.url)
        receiver.trust([create_endpoint(site, url)[1]])
        jobs = {case: _submitted(site, case) for case in CASES}

        recruits = [*(case.recruit for case in CASES), READER, FINISHER, HEALTHY]
        with recruited(recruits, environment, tmp_path) as ends:
            wait_for(lambda: len(ends) >= len(CASES), seconds=90)
            batch_id = _batch(site)
            wait_for(lambda: len(ends) >= len(CASES) + len(BATCH_POINTS), seconds=60)
            # A dead courier's deliveries are sent again when its lease expires; the test does not wait that long.
            Delivery.objects.filter(state="pending").update(due_at=Now())
            wait_for(lambda: not Job.objects.filter(finished_at=None).exists(), seconds=60, every=0.1)
            wait_for(lambda: Batch.objects.get().is_terminal, seconds=60, every=0.1)
            wait_for(lambda: not Delivery.objects.filter(state="pending").exists(), seconds=60, every=0.1)
        with connection.cursor() as cursor:
            books = read_books(cursor)

    assert ends == dict.fromkeys([*(case.name for case in CASES), *BATCH_POINTS], KILLED)
    (batch,) = books.batches
    assert (batch.id, batch.state, batch.total, batch.completed) == (batch_id, "completed", MEMBERS, MEMBERS)
    ended = {job.id: job for job in books.jobs}
    assert {case.name: ended[job_id].state for case, job_id in jobs.items()} == {
        case.name: "succeeded" for case in CASES
    }
    tried_once = {case.name for case, job_id in jobs.items() if ended[job_id].attempt == 1}
    assert tried_once <= {case.name for case in CASES if case.point in MAY_HAVE_ENDED}
    assert compare(Ledgers((), (), read_journal(journal), books, receiver.received)) == []
    assert len(receiver.received) > len({one.event_id for one in receiver.received}) == len(CASES) + 1


def _desk(simulator_url: str) -> Site:
    openai = make_provider("sim-openai", base_url=f"{simulator_url}/v1")
    anthropic = make_provider("sim-anthropic", dialect="anthropic", base_url=simulator_url, price_list="anthropic")
    targets = {
        JobKind.CHAT: (openai, "gpt-4o-mini"),
        JobKind.MESSAGES: (anthropic, "claude-haiku-4-5"),
        JobKind.EMBEDDINGS: (openai, "text-embedding-3-small"),
    }
    for kind, (provider, model) in targets.items():
        make_route(f"quick-{kind}", (provider, model))
        make_route(f"long-{kind}", (provider, f"{model}@ttft_ms=4000"))
    return make_site()


def _batch(site: Site) -> UUID:
    """A batch whose file a worker has to read."""
    body = {"model": "quick-chat", "messages": [{"role": "user", "content": "Say hello."}]}
    lines = [
        {"custom_id": f"member-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        for number in range(MEMBERS)
    ]
    file = make_file(site, b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    return create(site, BatchSubmission(JobKind.CHAT, input_file_id=file.public_id)).batch.id


def _submitted(site: Site, case: Case) -> Any:
    """A job that only its own crashing worker claims, or a worker of every queue."""
    with transaction.atomic():
        job = submit(site, JobSubmission(case.kind, case.body)).job
        Job.objects.filter(id=job.id).update(queue=case.name)
    return job.id
