"""The events of a job: its states, its tokens as they arrive, and its answer after it has ended."""

import json
import uuid
from dataclasses import replace
from typing import Any

import httpx
import pytest
from django.conf import settings as desk_settings
from django.db import connection
from pytest_django import Settings
from redis import Redis

from core import clock
from jobs.cancel import cancel
from jobs.models import Job
from jobs.watchers import attempt_stream_id
from streams.entries import record_key
from tenants.credentials import create_site
from tests.api.live.conftest import ANTHROPIC_MODEL, OPENAI_MODEL, Live
from tests.api.live.websocket.client import socket, text_of
from tests.factories import make_job, make_provider, make_route
from tests.polling import wait_for

Event = tuple[str, str, Any]
MESSAGES = [{"role": "user", "content": "Say hello."}]


@pytest.fixture
def paced(live: Live) -> Live:
    """Routes to models that answer slowly enough to be followed."""
    openai = make_provider("sim-paced", base_url=live.simulator.openai_url)
    anthropic = make_provider("sim-claude", dialect="anthropic", base_url=live.simulator.url, price_list="anthropic")
    make_route("paced", (openai, f"{OPENAI_MODEL}@deltas=30,tokens=30,inter_token_ms=60"))
    make_route("paced-claude", (anthropic, f"{ANTHROPIC_MODEL}@deltas=30,tokens=30,inter_token_ms=60"))
    make_route("stumbling", (openai, f"{OPENAI_MODEL}@cut_after_n=20,times=1,deltas=30,tokens=30,inter_token_ms=60"))
    return live


def queued(live: Live, model: str = "paced", *, answers: int = 1, **fields: Any) -> Job:
    body = {"model": model, "messages": MESSAGES, "max_tokens": 100} | ({"n": answers} if answers > 1 else {})
    return make_job(live.made.site, model=model, payload=json.dumps(body).encode(), request_id="req_1", **fields)


def events_of(text: str) -> list[Event]:
    """Return id, name and data of each event."""
    events = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            data = fields["data"] if fields["data"] == "[DONE]" else json.loads(fields["data"])
            events.append((fields.get("id", ""), fields.get("event", ""), data))
    return events


def read(live: Live, job: Job, **headers: str) -> list[Event]:
    answer = live.get(f"/v1/jobs/{job.public_id}/events", **headers)
    assert answer.status_code == 200, answer.text
    return events_of(answer.text)


def text_in(events: list[Event]) -> str:
    return text_of([{"type": "event", "ref": "", "data": data} for _, name, data in events if not name], "")


def states_in(events: list[Event]) -> list[str]:
    return [data["state"] for _, name, data in events if name == "state"]


def answer_of(job: Job) -> str:
    job.refresh_from_db()
    return str(json.loads(job.result)["choices"][0]["message"]["content"])


def test_tokens_arrive_while_the_job_runs_and_the_end_comes_from_postgres(paced: Live, worker: None) -> None:
    job = queued(paced)

    events = read(paced, job)

    assert states_in(events)[-1] == "succeeded"
    assert len(events) > 10
    assert not [name for _, name, _ in events if name == "answer"]
    assert text_in(events) == answer_of(job) != ""


def test_several_choices_come_as_one_complete_answer(paced: Live, worker: None) -> None:
    job = queued(paced, answers=2)

    events = read(paced, job)

    assert states_in(events)[-1] == "succeeded"
    (answer,) = [data for _, name, data in events if name == "answer"]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert answer_of(job) == answer["choices"][0]["message"]["content"] != ""
    assert not text_in(events)


def test_missed_events_are_read_on_another_connection(paced: Live, worker: None) -> None:
    job = queued(paced)
    url, text = f"{paced.url}/v1/jobs/{job.public_id}/events", ""
    with httpx.stream("GET", url, headers=paced.headers, timeout=20) as answer:
        for chunk in answer.iter_text():
            text += chunk
            if len([each for each in events_of(text) if each[0]]) >= 3:
                break
    first = [event for event in events_of(text) if event[0]]

    rest = read(paced, job, last_event_id=first[-1][0])

    assert text_in(first) + text_in(rest) == answer_of(job)
    assert "answer" not in [name for _, name, _ in rest]


def test_an_anthropic_job_has_events_of_its_dialect(paced: Live, worker: None) -> None:
    names = [name for _, name, _ in read(paced, queued(paced, "paced-claude", kind="messages"))]

    assert names.index("message_start") < names.index("content_block_delta") < names.index("message_stop")
    assert names[-1] == "state"


def test_a_new_attempt_starts_with_a_restart_event(paced: Live, worker: None, settings: Settings) -> None:
    settings.JOB_RETRY_BASE_SECONDS = settings.JOB_RETRY_CAP_SECONDS = 0
    job = queued(paced, "stumbling")

    events = read(paced, job)

    restart = [name for _, name, _ in events].index("restart")
    assert text_in(events[:restart])
    assert text_in(events[restart:]) == answer_of(job)
    assert states_in(events)[-1] == "succeeded"


def test_a_job_without_readers_writes_nothing_to_redis(paced: Live, worker: None) -> None:
    job = queued(paced)
    wait_for(lambda: Job.objects.filter(id=job.id, finished_at__isnull=False).exists())

    events = read(paced, job)

    with Redis.from_url(desk_settings.REDIS_URL) as server:
        assert not server.exists(record_key(attempt_stream_id(job.id, 1)))
    assert [name for _, name, _ in events] == ["answer", "state"]
    job.refresh_from_db()
    assert events[0][2] == json.loads(job.result)
    assert [name for _, name, _ in read(paced, job, last_event_id=events[0][0])] == ["state"]


def test_a_reader_of_a_waiting_job_gets_each_state_until_it_ends(paced: Live) -> None:
    job = queued(paced)
    url, text = f"{paced.url}/v1/jobs/{job.public_id}/events", ""

    with httpx.stream("GET", url, headers=paced.headers, timeout=20) as answer:
        for chunk in answer.iter_text():
            if not text:
                cancel(paced.made.site, job.public_id)
            text += chunk

    events = events_of(text)
    assert states_in(events) == ["queued", "canceled"]


def test_an_error_while_following_is_reported_and_ends_the_connection(paced: Live) -> None:
    job = queued(paced)
    url, text = f"{paced.url}/v1/jobs/{job.public_id}/events", ""

    with httpx.stream("GET", url, headers=paced.headers, timeout=10) as answer:
        for chunk in answer.iter_text():
            if not text:
                # A result that cannot be decrypted.
                with connection.cursor() as cursor:
                    cursor.execute(
                        "UPDATE jobs_job SET state = 'succeeded', result = 'x', finished_at = now() WHERE id = %s",
                        [job.id],
                    )
            text += chunk

    name, data = events_of(text)[-1][1:]
    assert (name, data["error"]["code"]) == ("error", "internal_error")


def test_several_jobs_are_followed_over_one_socket(paced: Live, worker: None) -> None:
    jobs = {f"j{number}": queued(paced) for number in range(3)}

    with socket(paced) as client:
        for ref, job in jobs.items():
            client.send("follow", ref=ref, job=job.public_id)
        words = [word for _ in jobs for word in client.receive_until("end")]
        client.send("cancel", ref="j0")
        assert client.receive()["error"]["code"] == "ref_unknown"

    for ref, job in jobs.items():
        chunks = [word for word in words if word["type"] == "event" and not word.get("event")]
        assert text_of(chunks, ref) == answer_of(job)
        states = [word["data"]["state"] for word in words if word.get("event") == "state" and word["ref"] == ref]
        assert states[-1] == "succeeded"


def test_a_job_is_read_only_by_its_site_or_its_ticket(paced: Live) -> None:
    over: dict[str, Any] = {"state": "failed", "error_code": "rejected", "error_message": "No."}
    job, other = queued(paced, finished_at=clock.now(), **over), queued(paced)
    ticket = paced.post("/v1/tickets", {"job": job.public_id}).json()["ticket"]
    stranger = replace(paced, made=create_site("Library", f"library-{uuid.uuid4().hex[:8]}"))
    bearer = {"authorization": f"Bearer {ticket}"}

    events = read(paced, job, **bearer)
    statuses = [
        paced.get(f"/v1/jobs/{other.public_id}/events", **bearer).status_code,
        stranger.get(f"/v1/jobs/{job.public_id}/events").status_code,
        paced.get("/v1/jobs/job_nonsense/events").status_code,
        paced.get(f"/v1/jobs/{job.public_id}/events", last_event_id="x").status_code,
    ]
    with socket(paced, "nightdesk.v1", f"ticket.{ticket}") as client:
        client.send("follow", ref="a", job=job.public_id)
        followed = client.receive_until("end")

    error = {"code": "rejected", "message": "No."}
    assert events == [("", "state", {"id": job.public_id, "state": "failed", "attempt": 0, "error": error})]
    assert statuses == [401, 404, 404, 400]
    assert followed[-1]["kind"] == "error"
