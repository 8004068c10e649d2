"""The `openai` SDK, unchanged, against the batches of a real server."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from inference.models import Route
from jobs.batches.expand import expand_one
from jobs.batches.finalize import finalize_ended
from jobs.models import Batch, JobState
from tenants.credentials import NewSite
from tests.api.calling import CHAT
from tests.jobs.batches.making import end, to_file

pytestmark = pytest.mark.django_db(transaction=True)

LINES = [{"custom_id": f"r{n}", "method": "POST", "url": "/v1/chat/completions", "body": CHAT} for n in range(1, 4)]


@pytest.fixture
def sdk(url: str, bakery: NewSite, route: Route) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=bakery.api_key.secret, max_retries=0) as client:
        yield client


def made_by(sdk: openai.OpenAI, lines: list[dict[str, Any]]) -> Any:
    file = sdk.files.create(file=to_file(lines), purpose="batch")
    return sdk.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"night": "1"},
        output_expires_after={"anchor": "created_at", "seconds": 3600},
    )


def test_the_sdk_creates_and_reads_a_batch(sdk: openai.OpenAI) -> None:
    made = made_by(sdk, LINES)
    expand_one()
    under_way = sdk.batches.retrieve(made.id)
    batch = Batch.objects.get()
    end(batch, "r1")
    end(batch, "r2")
    end(batch, "r3", JobState.FAILED, error_code="rejected", error_message="No.")
    finalize_ended()
    ended = sdk.batches.retrieve(made.id)
    output = sdk.files.content(ended.output_file_id or "")
    errors = sdk.files.content(ended.error_file_id or "")

    assert (made.object, made.status, made.endpoint) == ("batch", "validating", "/v1/chat/completions")
    assert (made.metadata, made.completion_window, made.errors) == ({"night": "1"}, "24h", None)
    assert (under_way.status, under_way.model) == ("in_progress", "gpt-5-mini")
    assert ended.status == "completed"
    assert ended.request_counts is not None
    assert (ended.request_counts.total, ended.request_counts.completed, ended.request_counts.failed) == (3, 2, 1)
    assert ended.usage is not None
    assert ended.usage.total_tokens == 0
    lines = [json.loads(line) for line in output.text.splitlines()]
    assert [(line["custom_id"], line["response"]["status_code"]) for line in lines] == [("r1", 200), ("r2", 200)]
    assert json.loads(errors.text)["error"] == {"code": "rejected", "message": "No."}
    file = sdk.files.retrieve(ended.output_file_id or "")
    assert (file.purpose, file.bytes) == ("batch_output", len(output.content))


def test_a_batch_with_an_invalid_file_lists_the_errors(sdk: openai.OpenAI) -> None:
    made = made_by(sdk, [LINES[0], {**LINES[1], "url": "/v1/embeddings"}])
    expand_one()

    failed = sdk.batches.retrieve(made.id)

    assert failed.status == "failed"
    assert failed.errors is not None
    (mistake,) = failed.errors.data or []
    assert (mistake.code, mistake.line, mistake.param) == ("invalid_url", 2, "url")


def test_batches_are_listed_and_canceled(sdk: openai.OpenAI) -> None:
    ids = [made_by(sdk, LINES).id for _ in range(3)]
    expand_one()

    assert [batch.id for batch in sdk.batches.list(limit=2)] == ids[::-1]
    assert sdk.batches.cancel(ids[0]).status == "cancelling"
    assert sdk.batches.cancel(ids[1]).status == "cancelled"
    finalize_ended()
    assert sdk.batches.retrieve(ids[0]).status == "cancelled"


def test_results_are_streamed(sdk: openai.OpenAI, url: str, bakery: NewSite) -> None:
    made = made_by(sdk, LINES)
    expand_one()
    end(Batch.objects.get(), "r2")

    found = httpx.get(f"{url}/v1/batches/{made.id}/results", headers={"x-api-key": bakery.api_key.secret})

    assert (found.headers["x-results-complete"], found.headers["transfer-encoding"]) == ("false", "chunked")
    assert [json.loads(line)["custom_id"] for line in found.text.splitlines()] == ["r2"]
