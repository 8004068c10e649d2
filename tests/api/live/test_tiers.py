"""A call in a service tier has the price of that tier, to the pico-USD, live and as a job."""

import json
from typing import Any, NamedTuple

import pytest

from jobs.models import Job
from metering.models import UsageEvent
from tests.api.live.conftest import Live
from tests.factories import make_job, make_provider, make_route
from tests.polling import wait_for

HELLO = [{"role": "user", "content": "Say hello."}]


class Case(NamedTuple):
    """A request, the recorded tier, and USD per million tokens, taken from the price lists by hand."""

    model: str
    parameters: dict[str, str]
    tier: str
    input_usd: float
    output_usd: float


GPT, OPUS, HAIKU = "gpt-6-luna", "claude-opus-5-5", "claude-haiku-4-5"
CASES = [
    Case(GPT, {}, "standard", 0.1, 0.5),
    Case(GPT, {"service_tier": "auto"}, "standard", 0.1, 0.5),
    Case(GPT, {"service_tier": "flex"}, "flex", 0.05, 0.25),
    Case(GPT, {"service_tier": "priority"}, "priority", 0.2, 1.0),
    Case(GPT, {"service_tier": "fast"}, "priority", 0.2, 1.0),
    Case("gpt-4o-mini", {"service_tier": "flex"}, "flex", 0.15, 0.6),
    Case(OPUS, {}, "standard", 4, 20),
    Case(OPUS, {"speed": "fast"}, "fast", 8, 40),
    Case(OPUS, {"inference_geo": "us"}, "us", 4.4, 22),
    Case(OPUS, {"speed": "fast", "inference_geo": "us"}, "fast-us", 8.8, 44),
    Case(HAIKU, {"inference_geo": "us"}, "us", 1.1, 5.5),
]


@pytest.fixture
def priced(live: Live) -> Live:
    openai = make_provider("openai-itself", base_url=live.simulator.openai_url)
    claude = make_provider("claude-itself", dialect="anthropic", base_url=live.simulator.url, price_list="anthropic")
    for model in (GPT, "gpt-4o-mini"):
        make_route(model, (openai, model))
    for model in (OPUS, HAIKU):
        make_route(model, (claude, model))
    make_route("gpt-at-anthropic", (claude, HAIKU))
    return live


def body_of(case: Case, **fields: Any) -> dict[str, Any]:
    return {"model": case.model, "messages": HELLO, "max_tokens": 100, **case.parameters, **fields}


def ask(live: Live, case: Case, **fields: Any) -> int:
    if case.model.startswith("claude"):
        return live.post("/v1/messages", body_of(case, **fields), anthropic_version="2023-06-01").status_code
    return live.post("/v1/chat/completions", body_of(case, **fields)).status_code


def check(event: UsageEvent, case: Case) -> None:
    # A price in micro-USD per million tokens, times tokens, is pico-USD.
    rates = round(case.input_usd * 1_000_000), round(case.output_usd * 1_000_000)
    assert event.output_tokens > 0
    assert (event.tier, event.cost_pico_usd) == (
        case.tier,
        event.input_tokens * rates[0] + event.output_tokens * rates[1],
    )


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case.model}-{'-'.join(case.parameters.values()) or 'plain'}"
)
def test_a_live_call_has_the_price_of_its_tier_streamed_and_complete(priced: Live, case: Case) -> None:
    for stream in (False, True):
        assert ask(priced, case, stream=stream) == 200

    for event in priced.usage(2):
        assert not event.estimated
        check(event, case)


@pytest.mark.parametrize(
    ("case", "fields"),
    [
        (CASES[2], {}),
        (CASES[3], {}),
        # Fields of one dialect only make the job's call non-streaming; all others stream.
        (CASES[2], {"n": 2}),
        (CASES[3], {"n": 2}),
        (CASES[7], {}),
        (CASES[9], {}),
    ],
    ids=lambda value: value.tier if isinstance(value, Case) else "-".join(value) or "plain",
)
def test_a_job_has_the_price_of_its_tier(priced: Live, worker: None, case: Case, fields: dict[str, Any]) -> None:
    kind = "messages" if case.model == OPUS else "chat"
    payload = json.dumps(body_of(case, **fields)).encode()

    job = make_job(priced.made.site, kind=kind, model=case.model, payload=payload)
    done = wait_for(lambda: Job.objects.filter(id=job.id, finished_at__isnull=False).first())

    assert done.state == "succeeded", done.error_message
    check(UsageEvent.objects.get(billable=True), case)
    result = json.loads(done.result or b"")
    assert case.tier in (result.get("service_tier"), result["usage"].get("speed"), f"{result['usage'].get('speed')}-us")


@pytest.mark.parametrize("case", [CASES[2], CASES[3], CASES[7], CASES[9]], ids=lambda case: f"{case.model}-{case.tier}")
def test_a_cut_stream_has_the_price_of_its_tier(priced: Live, case: Case) -> None:
    priced.simulator.script(case.model, ["cut"])

    assert ask(priced, case, stream=True) == 200

    (event,) = priced.usage(1)
    assert (event.outcome, event.estimated) == ("error", True)
    check(event, case)


def test_a_provider_of_the_other_dialect_gets_no_tier_and_has_the_standard_price(priced: Live) -> None:
    case = Case("gpt-at-anthropic", {"service_tier": "priority"}, "standard", 1, 5)

    for stream in (False, True):
        assert ask(priced, case, stream=stream) == 200

    for event in priced.usage(2):
        check(event, case)


def mint(live: Live, **wanted: Any) -> str:
    answer = live.post("/v1/tokens", {"scope": "chat:write streams:write jobs:write", **wanted})
    assert answer.status_code == 201, answer.text
    return f"Bearer {answer.json()['token']}"


@pytest.mark.parametrize(
    ("path", "parameters", "field"),
    [
        ("/v1/chat/completions", {"service_tier": "priority"}, "service_tier"),
        ("/v1/chat/completions", {"service_tier": "fast", "stream": True}, "service_tier"),
        ("/v1/chat", {"service_tier": "one-of-tomorrow"}, "service_tier"),
        ("/v1/streams", {"service_tier": "priority"}, "service_tier"),
        ("/v1/messages", {"speed": "fast"}, "speed"),
        ("/v1/messages", {"inference_geo": "us"}, "inference_geo"),
        ("/v1/messages", {"inference_geo": "moon"}, "inference_geo"),
    ],
)
def test_a_narrow_token_cannot_request_a_premium_tier(
    priced: Live, path: str, parameters: dict[str, Any], field: str
) -> None:
    body = {"model": OPUS if path == "/v1/messages" else GPT, "messages": HELLO, "max_tokens": 100, **parameters}

    version = {"anthropic_version": "2023-06-01"} if path == "/v1/messages" else {}
    answer = priced.post(path, body, authorization=mint(priced), **version)

    assert answer.status_code == 400, answer.text
    assert f"Your token does not allow this {field}" in answer.json()["error"]["message"]
    assert priced.simulator.journal() == []


@pytest.mark.parametrize("tier", ["flex", "auto", "default"])
def test_a_narrow_token_may_request_a_tier_that_costs_no_more(priced: Live, tier: str) -> None:
    body = {"model": GPT, "messages": HELLO, "service_tier": tier}

    assert priced.post("/v1/chat/completions", body, authorization=mint(priced)).status_code == 200


CLAUDE_BODY = {"model": OPUS, "messages": HELLO, "max_tokens": 100, "speed": "fast"}
GPT_BODY = {"model": GPT, "messages": HELLO, "service_tier": "priority"}


@pytest.mark.parametrize(
    ("kind", "endpoint", "body", "field"),
    [("chat", "/v1/chat/completions", GPT_BODY, "service_tier"), ("messages", "/v1/messages", CLAUDE_BODY, "speed")],
)
def test_a_narrow_token_cannot_request_a_premium_tier_by_a_job_or_a_batch(
    priced: Live, kind: str, endpoint: str, body: dict[str, Any], field: str
) -> None:
    bearer = mint(priced)
    member = {"custom_id": "r1", "body": body}

    job = priced.post("/v1/jobs", {"kind": kind, "body": body}, authorization=bearer)
    batch = priced.post("/v1/batches", {"endpoint": endpoint, "requests": [member]}, authorization=bearer)

    assert (job.status_code, batch.status_code) == (400, 400), (job.text, batch.text)
    for answer in (job, batch):
        assert f"Your token does not allow this {field}" in answer.text
    assert not Job.objects.exists()
