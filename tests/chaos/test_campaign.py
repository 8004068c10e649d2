"""A short campaign on real processes, and crash points in the environment of a real worker."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from devstack.program import Program, launch, stop
from devstack.stack import ROOT, WORKER
from jobs.models import Job, JobState
from nightdesk import env
from tests.chaos.campaign import play
from tests.chaos.plan import ON_POSTGRES, ON_WORKERS, START_SECONDS, Blow, Deed, Plan, make_plan
from tests.factories import make_job, make_provider, make_route, make_site
from tests.polling import wait_for
from tests.simulator_process import start_simulator

SEED = 20_261_122
JOBS, WORKERS, SECONDS = 40, 2, 6.0


def short_plan() -> Plan:
    """A plan of a few seconds, without a restart of Postgres, which delays every rescue."""
    plan = make_plan(SEED, JOBS, workers=WORKERS, seconds=SECONDS)
    blows = (
        Blow(0.8, Deed.DOUBLE_DOORBELLS),
        Blow(1.2, Deed.FREEZE_WORKER, 1, 7.0),
        Blow(1.5, Deed.KILL_WORKER, 0),
        Blow(2.0, Deed.FLUSH_REDIS),
        Blow(2.5, Deed.KILL_WEB),
        Blow(4.0, Deed.LOSE_DOORBELLS),
    )
    return replace(plan, blows=blows, starts=((None,),) * WORKERS, web_starts=(None,))


def test_a_short_campaign_breaks_no_promise(tmp_path: Path) -> None:
    said: list[str] = []

    verdict = play(short_plan(), tmp_path, said.append, in_haste=True)

    assert verdict.violations == [], "\n".join(said)
    line = json.loads(json.dumps(verdict.figures))
    assert (line["jobs"], line["kills"], line["freezes"], line["flushes"]) == (JOBS, 1, 1, 1)
    assert sum(line["states"].values()) >= JOBS / 2


@pytest.mark.django_db(transaction=True)
def test_a_worker_crashes_where_its_environment_says_and_only_if_chaos_is_allowed(
    environment: dict[str, str], tmp_path: Path
) -> None:
    site = make_site()
    crash = {"NIGHTDESK_CRASH_AT": "before_call:1"}
    with start_simulator() as simulator:
        make_route("desk", (make_provider(base_url=f"{simulator.url}/v1"), "gpt-4o-mini"))
        for queue in ("allowed", "not-allowed"):
            make_job(site, queue=queue)
        allowed = {**environment, **crash, "NIGHTDESK_CHAOS": "1", "JOB_QUEUES": "allowed"}
        not_allowed = {**environment, **crash, "JOB_QUEUES": "not-allowed"}
        with _worker(allowed, tmp_path / "allowed.log") as doomed, _worker(not_allowed, tmp_path / "not.log"):
            assert wait_for(doomed.poll, seconds=40) == -signal.SIGKILL
            wait_for(lambda: Job.objects.filter(queue="not-allowed", state=JobState.SUCCEEDED).exists(), seconds=40)


@pytest.mark.parametrize("value", ["lunch:1", "after_claim"])
def test_a_worker_with_a_crash_point_that_does_not_exist_refuses_to_start(value: str) -> None:
    told = {
        **env.child_environment({}),
        "NIGHTDESK_CRASH_AT": value,
        "NIGHTDESK_CHAOS": "1",
        "PYTHONPATH": "platform:.",
    }

    refused = subprocess.run([sys.executable, *WORKER], cwd=ROOT, env=told, capture_output=True, text=True, check=False)

    assert refused.returncode != 0
    assert "NIGHTDESK_CRASH_AT must be point:n" in refused.stderr


@contextmanager
def _worker(environment: dict[str, str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    program = Program("worker", (sys.executable, *WORKER), environment, ROOT)
    with log.open("wb") as output:
        process = launch(program, output)
    try:
        yield process
    finally:
        stop(process, program)


def test_a_plan_is_a_function_of_its_seed() -> None:
    assert make_plan(7, 50) == make_plan(7, 50)
    assert make_plan(7, 50) != make_plan(8, 50)


@pytest.mark.parametrize("seed", range(5))
def test_one_worker_is_always_able_to_rescue_the_others_jobs(seed: int) -> None:
    plan = make_plan(seed, 600)
    blows = [blow for blow in plan.blows if blow.deed in ON_WORKERS]

    for blow in blows:
        met = {other.worker for other in blows if other.at <= blow.at < other.at + other.seconds + START_SECONDS}
        assert len(met) < plan.workers
    assert {Deed.KILL_WORKER, Deed.FREEZE_WORKER} <= {blow.deed for blow in plan.blows}
    assert ON_POSTGRES & {blow.deed for blow in plan.blows}
