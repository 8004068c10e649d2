"""`make demo`: one job on a real text, on a fresh desk, reported step by step.

A site posts the job as a signed request, twice with one idempotency key. The first provider responds with 503 and then
cuts the connection; the second, of the other dialect, succeeds. The webhook arrives and is verified. The usage events
equal the simulator's journal.
"""

import asyncio
import json
import secrets
import sys
import tempfile
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from core import clock
from core.signing import sign_request
from devstack import private_files
from devstack.card import DEMO_MODEL, Card
from devstack.demo_report import (
    ENDED,
    OPEN,
    DemoJob,
    ExpectedCalls,
    describe_call,
    describe_usage,
    dollars,
    excerpt,
    find_mismatches,
    to_job,
    to_journal,
)
from devstack.errors import DemoFailed
from devstack.options import StackOptions, system_variables
from devstack.ports import PortReservations, free_port
from devstack.postgres_data import remove_cluster
from devstack.stack import ROOT, StackPlan, make_plan, start_stack
from devstack.supervisor import OWN_NAME, Supervisor, run_until_stopped
from nightdesk import env

ARTICLE = ROOT / "docs" / "demo" / "article.txt"
#: As `demo_site` seeds the route.
EXPECTED = ExpectedCalls("sim-openai", "gpt-4o-mini", ("503", "cut"), "sim-anthropic")
JOB_TIMEOUT_SECONDS = 60.0
WEBHOOK_TIMEOUT_SECONDS = 30.0
POLL_SECONDS = 0.1
MAX_LOG_LINES = 60
INTERRUPTED_EXIT_CODE = 130


@dataclass(frozen=True, slots=True)
class DemoSummary:
    """The last line that a successful demo prints."""

    job_state: str
    calls: int
    webhook_verified: bool
    tokens: int
    cost_usd: str
    seconds: float


class DemoOutput:
    """Prints the steps of the demo. The lines of the programs are held back, and printed only if the demo fails."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._held_back: deque[str] = deque(maxlen=MAX_LOG_LINES)
        self._last = ""
        self.summary: DemoSummary | None = None

    @property
    def seconds(self) -> float:
        return round(time.monotonic() - self._began, 1)

    def step(self, line: str) -> None:
        print(f"[{self.seconds:5.1f} s] {line}", flush=True)

    def say(self, name: str, line: str) -> None:
        if name == OWN_NAME:
            self._last = line
            self.step(line)
        else:
            self._held_back.append(f"{name:<9} | {line}")

    def show_failure(self) -> None:
        """Print the programs' last lines, and the reason again below them."""
        print(*self._held_back, f"The demo failed: {self._last.removeprefix('failed: ')}", sep="\n", file=sys.stderr)


def run_demo() -> int:
    """Run the demo on a fresh desk, remove the desk, and return the exit code."""
    output = DemoOutput()
    with tempfile.TemporaryDirectory(prefix="nightdesk-demo-") as folder, PortReservations() as ports:
        options = StackOptions(free_port(), external_servers=False)
        plan = make_plan(Path(folder), options, ports, durable=False, receives=False)
        try:
            code = asyncio.run(_run_stack(output, plan))
        finally:
            remove_cluster(plan.folder.resolve() / "postgres")
    if code == 0 and output.summary:
        print(json.dumps(asdict(output.summary)), flush=True)
    elif code != INTERRUPTED_EXIT_CODE:
        output.show_failure()
    return code


async def _run_stack(output: DemoOutput, plan: StackPlan) -> int:
    supervisor = Supervisor(output.say)
    return await run_until_stopped(
        supervisor, _run_demo_steps(output, supervisor, plan), code_when_stopped=INTERRUPTED_EXIT_CODE
    )


async def _run_demo_steps(output: DemoOutput, supervisor: Supervisor, plan: StackPlan) -> int:
    output.step("starting a fresh desk: PostgreSQL, Valkey, simulator, web, worker and webhook receiver")
    # The demo is the same everywhere: it uses none of the user's settings and keys.
    card = await start_stack(supervisor, plan, system_variables(env.child_environment({})))
    output.step(f"ready at {card.base_url}")
    async with httpx.AsyncClient(timeout=15) as http:
        desk = DemoClient(http, card)
        try:
            output.summary = await _run_job(output, desk, plan)
        except (httpx.HTTPError, KeyError, TypeError, ValueError, IndexError) as error:
            raise DemoFailed(f"unexpected response: {type(error).__name__}: {error}") from error
    return 0


async def _run_job(output: DemoOutput, desk: "DemoClient", plan: StackPlan) -> DemoSummary:
    await desk.script_failures(EXPECTED)
    output.step(f"{EXPECTED.failing} will respond with 503 and then cut the connection")
    endpoint_id = await _register(desk, plan)
    output.step(f"webhook endpoint {endpoint_id} at {plan.receiver_url}")
    job_id = await _post_twice(output, desk)
    job = await _watch(output, desk, job_id)
    webhook = await _await_webhook(desk, job_id)
    output.step(f"webhook {webhook['type']} {webhook['id']} arrived; both signatures are valid")
    # Read again: the last usage events are written in the transaction that finishes the job.
    job = to_job(await desk.get(f"/v1/jobs/{job_id}"))
    if found := find_mismatches(job, to_journal(await desk.journal()), EXPECTED):
        raise DemoFailed("; ".join(found))
    _show_usage(output, job)
    return DemoSummary(job.state, len(job.calls), True, job.tokens, job.cost_usd, output.seconds)


# The steps


async def _register(desk: "DemoClient", plan: StackPlan) -> str:
    made = await desk.post("/v1/webhook-endpoints", {"url": plan.receiver_url})
    private_files.write_private(plan.receiver_secrets, json.dumps([made["secret"]]))
    return str(made["id"])


async def _post_twice(output: DemoOutput, desk: "DemoClient") -> str:
    """Post the job twice, as a site does that lost the first response, and return the id of the one job."""
    article = ARTICLE.read_text()
    request = {
        "kind": "chat",
        "body": {
            "model": DEMO_MODEL,
            "messages": [
                {"role": "system", "content": "You write for readers of a magazine about work."},
                {"role": "user", "content": f"Summarize this article in five paragraphs.\n\n{article}"},
            ],
        },
        "metadata": {"post_id": "1776"},
    }
    key = secrets.token_hex(16)
    first, second = [await desk.post_signed("/v1/jobs", request, key) for _ in range(2)]
    if first["id"] != second["id"]:
        raise DemoFailed(f"one idempotency key created two jobs, {first['id']} and {second['id']}")
    output.step(f"posted {len(article.split())} words as a signed request, twice: one job, {first['id']}")
    return str(first["id"])


async def _watch(output: DemoOutput, desk: "DemoClient", job_id: str) -> DemoJob:
    """Poll the job until it finishes, and report each call when it ends."""
    reported, state = 0, ""
    deadline = time.monotonic() + JOB_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        job = to_job(await desk.get(f"/v1/jobs/{job_id}"))
        ended = [call for call in job.calls if call.outcome != OPEN]
        for call in ended[reported:]:
            output.step(describe_call(call))
        reported = max(reported, len(ended))
        if job.state != state:
            output.step(f"job state: {job.state}")
            state = job.state
        if state in ENDED:
            return job
        await asyncio.sleep(POLL_SECONDS)
    raise DemoFailed(f"the job is still {state} after {JOB_TIMEOUT_SECONDS:g} s")


async def _await_webhook(desk: "DemoClient", job_id: str) -> dict[str, Any]:
    """Wait for the job's webhook, and return it as the receiver reports it."""
    deadline = time.monotonic() + WEBHOOK_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        for webhook in await desk.received():
            if not webhook["verified"]:
                raise DemoFailed(f"a webhook arrived with an invalid signature: {webhook['reason']}")
            if webhook["payload"]["data"]["job_id"] == job_id:
                return webhook
        await asyncio.sleep(POLL_SECONDS)
    raise DemoFailed(f"no webhook of {job_id} arrived within {WEBHOOK_TIMEOUT_SECONDS:g} s")


def _show_usage(output: DemoOutput, job: DemoJob) -> None:
    output.step("usage events, equal to the simulator's journal:")
    for call in job.calls:
        output.step(f"  {describe_usage(call)}")
    output.step(f"the job cost {dollars(job.cost_usd)} for {job.tokens} tokens")
    output.step(f"the answer begins: {excerpt(job.answer)}")


# The desk as a site sees it, and the simulator and the receiver


class DemoClient:
    """HTTP client of the desk, with the demo site's keys, and of the simulator and the receiver."""

    def __init__(self, http: httpx.AsyncClient, card: Card) -> None:
        self._http = http
        self._card = card

    async def get(self, path: str) -> dict[str, Any]:
        return _json_of(await self._http.get(f"{self._card.base_url}{path}", headers=self._key()))

    async def post(self, path: str, body: object) -> dict[str, Any]:
        return _json_of(await self._http.post(f"{self._card.base_url}{path}", json=body, headers=self._key()))

    async def post_signed(self, path: str, body: object, idempotency_key: str) -> dict[str, Any]:
        content = json.dumps(body).encode()
        timestamp, nonce = str(clock.unix_seconds()), secrets.token_hex(16)
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": idempotency_key,
            "X-Site-ID": self._card.site_id,
            "X-Timestamp": timestamp,
            "X-Nonce": nonce,
            "X-Signature": sign_request(
                self._card.site_secret, timestamp=timestamp, nonce=nonce, method="POST", target=path, body=content
            ),
        }
        return _json_of(await self._http.post(f"{self._card.base_url}{path}", content=content, headers=headers))

    async def script_failures(self, expected: ExpectedCalls) -> None:
        """Script the outcomes of the next calls in the simulator."""
        script = {"model": expected.failing_model, "outcomes": list(expected.faults)}
        _json_of(await self._http.put(f"{self._card.simulator_url}/__sim/script", json=script))

    async def journal(self) -> dict[str, Any]:
        return _json_of(await self._http.get(f"{self._card.simulator_url}/__sim/journal"))

    async def received(self) -> list[dict[str, Any]]:
        response = await self._http.get(self._card.receiver_url)
        webhooks: list[dict[str, Any]] = response.raise_for_status().json()
        return webhooks

    def _key(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._card.api_key}"}


def _json_of(response: httpx.Response) -> dict[str, Any]:
    if not response.is_success:
        request = response.request
        raise DemoFailed(f"{request.method} {request.url} returned {response.status_code}: {response.text[:500]}")
    body: dict[str, Any] = response.json()
    return body
