"""The main flow through real processes: submit, call, usage event, webhook."""

import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from pytest_celery import CeleryTestBroker, CeleryTestSetup, CeleryWorkerCluster

from jobs.models import Job, WorkerLease
from metering.models import UsageEvent
from tests.flows.conftest import ReceiverProcess, Web, Webs
from tests.polling import wait_for
from tests.simulator_process import SimulatorProcess
from webhooks.models import Event

OPENAI, ANTHROPIC = "gpt-4o-mini", "claude-haiku-4-5"


def holder_of_the_job(cluster: CeleryWorkerCluster) -> Any:
    """The worker that runs the one job there is."""

    def find() -> Any:
        held = Job.objects.filter(state="running").values_list("worker_id")
        pids = WorkerLease.objects.filter(worker_id__in=held).values_list("pid", flat=True)
        return next((node for node in cluster if node.container.pid in pids), None)

    return wait_for(find)


def test_a_job_fails_over_to_the_other_dialect_is_billed_once_and_sends_a_webhook(
    celery_setup: CeleryTestSetup, web: Web, simulator: SimulatorProcess, receiver: ReceiverProcess
) -> None:
    simulator.script(OPENAI, ["503", "cut"])

    first = web.submit("Tell me of the sea.", **{"Idempotency-Key": "order-7"})
    again = web.submit("Tell me of the sea.", **{"Idempotency-Key": "order-7"})
    job = web.ended(first)

    assert again == first
    assert (job["state"], len(job["attempts"])) == ("succeeded", 1)
    calls = job["attempts"][0]["calls"]
    assert [(call["provider"], call["outcome"]) for call in calls[:1] + calls[-1:]] == [
        ("sim-openai", "error"),
        ("sim-anthropic", "ok"),
    ]
    assert [call["billable"] for call in calls] == [False, False, True]
    assert job["result"]["choices"][0]["message"]["content"]
    assert job["usage"]["output_tokens"] == job["result"]["usage"]["completion_tokens"] > 0

    (webhook,) = wait_for(lambda: receiver.received(first))
    assert (webhook["type"], webhook["verified"]) == ("job.succeeded", True)
    assert Job.objects.count() == 1


@pytest.mark.parametrize("worker_count", [2])
def test_a_worker_killed_during_a_call_loses_no_job_and_bills_no_call_twice(
    celery_setup: CeleryTestSetup,
    celery_worker_cluster: CeleryWorkerCluster,
    web: Web,
    simulator: SimulatorProcess,
    receiver: ReceiverProcess,
) -> None:
    simulator.script(OPENAI, ["stall"])
    job_id = web.submit()
    wait_for(simulator.journal)
    holder = holder_of_the_job(celery_worker_cluster)

    holder.kill(signal.SIGKILL)
    killed_at = time.monotonic()
    job = web.ended(job_id, seconds=15)

    assert time.monotonic() - killed_at < 10
    assert [attempt["outcome"] for attempt in job["attempts"]] == ["lost", "ok"]
    assert job["state"] == "succeeded"
    assert UsageEvent.objects.filter(billable=True).count() == 1
    assert list(UsageEvent.objects.order_by("attempt").values_list("outcome", "estimated", "billable")) == [
        ("lost", True, False),
        ("ok", False, True),
    ]
    assert Event.objects.filter(is_terminal=True).count() == 1
    assert len(wait_for(lambda: receiver.received(job_id))) == 1


@pytest.mark.parametrize("worker_count", [2])
def test_a_worker_that_returns_from_a_freeze_is_fenced(
    celery_setup: CeleryTestSetup,
    celery_worker_cluster: CeleryWorkerCluster,
    web: Web,
    simulator: SimulatorProcess,
) -> None:
    simulator.script(OPENAI, ["stall"])
    job_id = web.submit()
    wait_for(simulator.journal)
    frozen = holder_of_the_job(celery_worker_cluster)

    frozen.container.freeze()
    job = web.ended(job_id, seconds=15)
    result = job["result"]
    frozen.container.thaw()

    wait_for(lambda: "lease_lost" in frozen.logs())
    wait_for(lambda: "finish=fenced" in frozen.logs())
    assert web.job(job_id)["result"] == result
    assert UsageEvent.objects.filter(billable=True).count() == 1
    assert Event.objects.filter(is_terminal=True).count() == 1


@pytest.mark.parametrize("worker_count", [2])
def test_a_worker_shuts_down_gracefully_within_its_time_and_leaves_nothing_running(
    celery_setup: CeleryTestSetup,
    celery_worker_cluster: CeleryWorkerCluster,
    web: Web,
    simulator: SimulatorProcess,
) -> None:
    job_ids = [web.submit(f"Number {number}.") for number in range(6)]
    worker = celery_worker_cluster[0]

    worker.container.terminate()
    wait_for(lambda: "draining" in worker.logs(), seconds=8)
    wait_for(lambda: worker.container.exit_code is not None, seconds=30)

    assert worker.container.exit_code == 0
    assert {web.ended(job_id)["state"] for job_id in job_ids} == {"succeeded"}
    assert Job.objects.filter(crash_count__gt=0).count() == 0


def test_a_canceled_job_stops_its_call_and_sends_a_webhook(
    celery_setup: CeleryTestSetup, web: Web, simulator: SimulatorProcess, receiver: ReceiverProcess
) -> None:
    simulator.script(OPENAI, ["stall"])
    job_id = web.submit()
    wait_for(simulator.journal)

    assert web.post(f"/v1/jobs/{job_id}/cancel", {}).status_code == 200
    job = web.ended(job_id)

    assert job["state"] == "canceled"
    assert wait_for(lambda: [entry for entry in simulator.journal() if entry["client_disconnected"]])
    assert wait_for(lambda: receiver.received(job_id))[0]["type"] == "job.canceled"


def test_every_kind_of_job_is_answered_in_its_own_wire_format(celery_setup: CeleryTestSetup, web: Web) -> None:
    prompt = {"model": "nightdesk-demo", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 50}
    bodies = {
        "chat": prompt,
        "messages": prompt,
        "embeddings": {"model": "nightdesk-demo-embedding", "input": ["one", "two"]},
    }

    answers = {kind: web.post("/v1/jobs", {"kind": kind, "body": body}) for kind, body in bodies.items()}
    jobs = {kind: web.ended(answer.json()["id"]) for kind, answer in answers.items()}

    assert jobs["chat"]["result"]["object"] == "chat.completion"
    assert jobs["messages"]["result"]["type"] == "message"
    assert jobs["embeddings"]["result"]["object"] == "list"


def test_the_logs_of_a_complete_flow_contain_no_secret_and_no_prompt(
    celery_setup: CeleryTestSetup, web: Web, webs: Webs, simulator: SimulatorProcess, tmp_path: Path
) -> None:
    simulator.script(OPENAI, ["503", "cut"])
    job = web.ended(web.submit("The password of the harbour is rosebud."))
    httpx.get(f"{web.url}/v1/jobs", headers={"Authorization": "Bearer nd_wrongwrong_key"})

    answer = job["result"]["choices"][0]["message"]["content"]
    logs = "".join(path.read_text() for path in (*tmp_path.glob("*.log"), *webs.logs.glob("*.log")))
    assert "attempt_finished" in logs
    for secret in (
        "rosebud",
        answer[:30],
        web.demo.api_key,
        web.demo.site_secret,
        web.demo.webhook_secret,
        "wrongwrong",
    ):
        assert secret not in logs


# The last one: a test after it needs another broker, and a web process that uses it.


@pytest.mark.every_broker
def test_jobs_are_accepted_and_run_while_the_broker_is_frozen_or_gone(
    celery_setup: CeleryTestSetup, celery_broker: CeleryTestBroker, web: Web, simulator: SimulatorProcess
) -> None:
    celery_broker.container.freeze()
    assert web.ended(web.submit())["state"] == "succeeded"

    celery_broker.kill(signal.SIGKILL)
    assert web.ended(web.submit())["state"] == "succeeded"

    ready = web.get("/readyz")
    assert (ready.status_code, ready.json()["status"], ready.json()["broker"]) == (200, "degraded", "unreachable")
