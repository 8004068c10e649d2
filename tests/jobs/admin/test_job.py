"""Admin pages of jobs and workers: lists, page, actions and audit log."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from core.ids import new_uuid
from jobs.models import Attempt, Job, JobState, WorkerLease
from jobs.periods import first_id_at
from metering.models import UsageEvent
from tenants.grant import Grant
from tenants.models import AuditEntry, Site
from tests.factories import make_batch, make_job, make_site
from tests.operators import sign_in, words
from webhooks.models import Delivery, DeliveryAttempt, Endpoint, Event

pytestmark = pytest.mark.django_db

LIST = "/admin/jobs/job/"
PROMPT = b'{"model":"desk","messages":[{"role":"user","content":"What the baker whispered"}]}'
ANSWER = b'{"choices":[{"message":{"content":"What the oven replied"}}]}'

NOW = timezone.now()


def page_of(job: Job) -> str:
    return f"{LIST}{job.public_id}/change/"


def make_ended(site: Site, state: str = "succeeded", **fields: Any) -> Job:
    return make_job(site, state=state, payload=PROMPT, finished_at=NOW, **fields)


def make_running(site: Site) -> Job:
    return make_job(site, state="running", worker_id=new_uuid(), deadline_at=NOW + timedelta(minutes=9))


def make_call(job: Job, attempt: int = 1, call: int = 1, **fields: Any) -> UsageEvent:
    wanted = {"provider": "sim-openai", "upstream_model": "gpt-4o-mini", "outcome": "ok", "price_version": "v1"}
    return UsageEvent.objects.create(
        dedupe_key=f"{job.id}:{attempt}:{call}",
        site=job.site,
        job_id=job.id,
        attempt=attempt,
        call=call,
        model=job.model,
        started_at=job.created_at,
        duration_ms=1200,
        **{**wanted, **fields},
    )


def make_delivery(job: Job, endpoint: Endpoint, **fields: Any) -> Delivery:
    event, _ = Event.objects.get_or_create(
        site=job.site, type=f"job.{job.state}", subject_id=job.id, defaults={"payload": b"{}"}
    )
    wanted = {"state": "delivered", "due_at": None, "finished_at": NOW, "attempts": 1}
    return Delivery.objects.create(site=job.site, event=event, endpoint=endpoint, **{**wanted, **fields})


def listed(browser: Client, query: str = "") -> list[str]:
    """Return the ids on the list, in its order."""
    response = browser.get(f"{LIST}?{query}")
    assert response.status_code == 200, response
    return re.findall(r'<span class="nd-id">(job_\w+)</span>', response.content.decode())


def count_queries(browser: Client, address: str) -> int:
    with CaptureQueriesContext(connection) as queries:
        assert browser.get(address).status_code == 200
    return len(queries)


# The list


def test_the_list_shows_the_state_of_each_job(browser: Client, site: Site) -> None:
    job = make_ended(site, "failed", attempt=2, max_attempts=3, error_code="rate_limited", model="some-model")
    make_call(job, billable=True, cost_pico_usd=150_000_000)

    page = words(browser.get(LIST).content.decode())

    for fact in (job.public_id, "Failed", "bakery", "chat", "some-model", "2/3", "0.00015", "rate_limited"):
        assert fact in page


def test_every_state_has_its_label(browser: Client, site: Site) -> None:
    for state in ("canceled", "expired"):
        make_ended(site, state)

    states = [
        words("<p " + row).split()[0]
        for row in browser.get(LIST).content.decode().split('class="field-shown_state')[1:]
    ]

    assert states == ["Expired", "Canceled"]


def test_the_newest_job_comes_first(browser: Client, site: Site) -> None:
    jobs = [make_job(site) for _ in range(3)]

    assert listed(browser) == [job.public_id for job in reversed(jobs)]


def test_neither_prompt_nor_answer_is_on_the_list(browser: Client, site: Site) -> None:
    make_ended(site, result=ANSWER)

    with CaptureQueriesContext(connection) as queries:
        html = browser.get(LIST).content.decode()

    assert "whispered" not in html
    assert "replied" not in html
    assert not any('"jobs_job"."payload"' in query["sql"] for query in queries)


def test_an_empty_list_renders(browser: Client) -> None:
    assert listed(browser) == []


def test_queries_of_the_list_do_not_grow_with_jobs(browser: Client, site: Site) -> None:
    for job in (make_ended(site), make_ended(make_site("florist"))):
        make_call(job, billable=True)
    count_queries(browser, LIST)
    few = count_queries(browser, LIST)
    for number in range(30):
        make_call(make_ended(make_site(f"site-{number}")), billable=True)

    assert count_queries(browser, LIST) == few


def test_a_cost_without_a_price_is_not_shown_as_zero(browser: Client, site: Site) -> None:
    make_call(make_ended(site), billable=True, price_version="", input_tokens=5)

    row = browser.get(LIST).content.decode().split('class="field-cost')[1]
    assert words("<p " + row).startswith(" –")


def test_filters_narrow_the_list(browser: Client, site: Site) -> None:
    florist = make_site("florist")
    queued = make_job(site)
    failed = make_ended(site, "failed", model="other")
    theirs = make_ended(florist, "succeeded", kind="embeddings")

    assert listed(browser, "state__exact=queued") == [queued.public_id]
    assert listed(browser, "state__exact=queued&state__exact=failed") == [failed.public_id, queued.public_id]
    assert listed(browser, f"site__id__exact={florist.id}") == [theirs.public_id]
    assert listed(browser, "kind__exact=embeddings") == [theirs.public_id]
    assert listed(browser, "model=other") == [failed.public_id]
    assert listed(browser, "model=othe") == []


def test_a_period_includes_both_of_its_days(browser: Client, site: Site) -> None:
    moments = [datetime(2026, 3, day, hour, tzinfo=UTC) for day, hour in ((1, 23), (2, 0), (3, 23), (4, 0))]
    jobs = [make_job(site, id=first_id_at(at), created_at=at).public_id for at in moments]

    assert listed(browser, "created_at_from=2026-03-02&created_at_to=2026-03-03") == [jobs[2], jobs[1]]
    assert listed(browser, "created_at_from=2026-03-03") == [jobs[3], jobs[2]]
    assert listed(browser, "created_at_to=2026-03-01") == [jobs[0]]


def test_a_job_is_found_by_each_of_its_ids_and_names(browser: Client, site: Site, endpoint: Endpoint) -> None:
    job = make_ended(site, idempotency_key="post-1", request_id="req_1", metadata={"post": "17", "by": "ines"})
    event = make_delivery(job, endpoint).event
    make_job(make_site("florist"), idempotency_key="post-2", request_id="req_2", metadata={"post": "18"})

    for word in (job.public_id, str(job.id), event.public_id, site.public_id, "post-1", " req_1 ", "post=17"):
        assert listed(browser, f"q={quote(word)}") == [job.public_id], word


@pytest.mark.parametrize(
    "word", ["post", "job_", "job_01", "evt_" + "0" * 26, "=", "post=", "%", "' OR 1=1 --", "é" * 900]
)
def test_an_unknown_search_word_finds_no_job(browser: Client, site: Site, word: str) -> None:
    make_job(site, idempotency_key="post-1", metadata={"post": "17"})

    assert listed(browser, f"q={quote(word)}") == []


@pytest.mark.parametrize(
    "query",
    [
        "q=%00",
        "q=post%00",
        "%00=1",
        "state__exact=%00",
        "model=%00",
        "q=%ED%A0%80",
        "q=%FF%FE",
        "p=%00",
        "p=999999999999",
        "p=-1",
        "o=99.-x",
        "state__exact=asleep",
        "site__id__exact=nobody",
        "created_at_from=yesterday",
        "created_at_from=0001-01-01&created_at_to=9999-12-31",
        "id__exact=job_1",
        "attempt=99999999999999999999",
        "site__credentials__hint=a",
        "nonsense=1",
    ],
)
def test_invalid_query_parameters_do_not_fail(browser: Client, site: Site, query: str) -> None:
    make_job(site)

    assert browser.get(f"{LIST}?{query}", follow=True).status_code in (200, 400)


# The page of one job


@pytest.fixture
def story(site: Site, endpoint: Endpoint) -> Job:
    """A job that took two attempts and three calls, and whose webhook first failed."""
    job = make_ended(
        site,
        attempt=2,
        idempotency_key="post-4711",
        request_id="req_abc",
        metadata={"post_id": "4711"},
        result=ANSWER,
        created_at=NOW - timedelta(seconds=20),
    )
    begin = job.created_at
    worker = WorkerLease.objects.create(
        worker_id=new_uuid(), host="worker-7", pid=99, version="1", expires_at=NOW + timedelta(hours=1)
    )
    for number, outcome, first, last in ((1, "error", 1, 6), (2, "ok", 9, 20)):
        Attempt.objects.create(
            job=job,
            number=number,
            worker_id=worker.worker_id,
            started_at=begin + timedelta(seconds=first),
            ended_at=begin + timedelta(seconds=last),
            outcome=outcome,
            error_code="" if outcome == "ok" else "unavailable",
        )
    make_call(job, 1, 1, outcome="error", http_status=503, error_kind="unavailable", error_code="server_error")
    make_call(job, 2, 1, outcome="timeout", http_status=None, provider="sim-azure", estimated=True, cost_pico_usd=10**8)
    make_call(
        job,
        2,
        2,
        provider="sim-anthropic",
        billable=True,
        input_tokens=3120,
        output_tokens=214,
        cost_pico_usd=5 * 10**8,
    )
    delivery = make_delivery(job, endpoint, attempts=2, last_status=204)
    DeliveryAttempt.objects.create(delivery=delivery, number=1, status=502, error="The endpoint answered 502.")
    DeliveryAttempt.objects.create(delivery=delivery, number=2, status=204, duration_ms=88)
    return job


def test_the_page_shows_steps_attempts_calls_and_webhooks(browser: Client, story: Job) -> None:
    page = words(browser.get(page_of(story)).content.decode())

    facts = (story.public_id, "Succeeded", "Bakery", "post-4711", "req_abc", "0 of 3", '"post_id": "4711"')
    attempts = ("Attempt 1", "Attempt 2", "worker-7:99", "unavailable")
    calls = ("sim-openai", "HTTP 503", "server_error", "Timed out", "sim-azure", "Estimated", "sim-anthropic", "Billed")
    money = ("3,120 → 214", "$0.0005", "$0.0006")
    told = ("job.succeeded", "Delivered", "https://bakery.test/hook", "HTTP 502: The endpoint answered 502.", "88 ms")
    for fact in (*facts, *attempts, *calls, *money, *told):
        assert fact in page, fact


def test_the_page_draws_attempts_and_calls_by_their_outcome(browser: Client, story: Job) -> None:
    html = browser.get(page_of(story)).content.decode()

    drawn = re.findall(r'class="nd-bar nd-(\w+) nd-kind-(\w+)"', html)
    assert [kind for role, kind in drawn if role == "attempt"] == ["error", "ok"]
    assert [kind for role, kind in drawn if role == "call"] == ["error", "timeout", "ok"]
    assert [kind for role, kind in drawn if role == "wait"] == ["wait", "wait"]


def test_queries_of_the_page_do_not_grow_with_attempts_and_deliveries(browser: Client, story: Job, site: Site) -> None:
    count_queries(browser, page_of(story))
    few = count_queries(browser, page_of(story))
    for number in range(3, 20):
        Attempt.objects.create(job=story, number=number, worker_id=new_uuid(), ended_at=NOW, outcome="error")
        make_call(story, number, outcome="error")
        make_delivery(story, Endpoint.objects.create(site=site, url=f"https://bakery.test/{number}"))

    assert count_queries(browser, page_of(story)) == few


@pytest.mark.parametrize("state", JobState.values)
def test_a_job_without_attempts_has_a_page_in_every_state(browser: Client, site: Site, state: str) -> None:
    ended_at = None if state == "queued" else NOW
    job = make_running(site) if state == "running" else make_job(site, state=state, finished_at=ended_at)

    page = words(browser.get(page_of(job)).content.decode())

    assert "No worker has started it yet." in page
    assert "No webhooks yet." in page


def test_the_page_links_a_retry_and_its_original(browser: Client, site: Site) -> None:
    first = make_ended(site, "failed")
    second = make_ended(site, "failed", retry_of=first)
    third = make_job(site, retry_of=second)

    html = browser.get(page_of(second)).content.decode()

    assert f'href="{page_of(first)}"' in html
    assert f'href="{page_of(third)}"' in html


def test_the_page_is_found_by_the_database_id_too(browser: Client, site: Site) -> None:
    assert browser.get(f"{LIST}{make_job(site).id}/change/").status_code == 200


@pytest.mark.parametrize("text", ["job_nothing", str(UUID(int=0)), "job_%00", "1", "site_" + "0" * 26])
@pytest.mark.parametrize("act", ["change", "cancel", "retry", "reveal"])
def test_an_unknown_job_redirects_to_the_list(browser: Client, text: str, act: str) -> None:
    assert browser.post(f"{LIST}{text}/{act}/").headers["Location"] == LIST


def test_nothing_can_be_edited_added_or_deleted(browser: Client, site: Site) -> None:
    job = make_job(site)

    assert browser.post(page_of(job), {"state": "failed", "model": "x"}).status_code == 200
    assert browser.get(f"{LIST}add/").status_code == 403
    assert browser.post(f"{LIST}{job.id}/delete/", {"post": "yes"}).status_code == 403
    assert (Job.objects.get().state, Job.objects.get().model) == ("queued", "desk")


# Prompt and answer


def test_prompt_and_answer_are_not_on_the_page(browser: Client, story: Job) -> None:
    html = browser.get(page_of(story)).content.decode()

    assert "whispered" not in html
    assert "replied" not in html
    assert not AuditEntry.objects.exists()


def test_revealing_prompt_and_answer_is_audited(browser: Client, story: Job) -> None:
    response = browser.post(f"{LIST}{story.public_id}/reveal/")

    html = response.content.decode()
    assert "What the baker whispered" in html
    assert "What the oven replied" in html
    assert "no-store" in response.headers["Cache-Control"]
    entry = AuditEntry.objects.get()
    assert (entry.actor, entry.action, entry.subject) == ("ada", "job.reveal", story.public_id)
    assert (entry.site, entry.address) == (story.site, "192.0.2.7")
    assert "whispered" not in str(entry.details)


def test_get_reveals_nothing(browser: Client, story: Job) -> None:
    response = browser.get(f"{LIST}{story.public_id}/reveal/")

    assert response.headers["Location"] == page_of(story)
    assert not AuditEntry.objects.exists()


def test_the_page_of_an_erased_job_says_when_it_was_erased(browser: Client, story: Job) -> None:
    Job.objects.filter(id=story.id).update(payload=None, result=None, erased_at=datetime(2026, 11, 21, 9, tzinfo=UTC))

    shown = words(browser.get(page_of(story)).content.decode())
    revealed = words(browser.post(f"{LIST}{story.public_id}/reveal/").content.decode())

    assert "Prompt and answer erased 2026-11-21 09:00" in shown
    assert "This cannot be shown. The request was erased at 2026-11-21 09:00 UTC" in revealed


def test_revealing_requires_its_own_permission(story: Job) -> None:
    browser = sign_in("jobs.view_job", "jobs.cancel_job", "jobs.retry_job")

    assert "Read prompt" not in browser.get(page_of(story)).content.decode()
    assert browser.post(f"{LIST}{story.public_id}/reveal/").status_code == 403
    assert not AuditEntry.objects.exists()


def test_the_page_renders_when_the_encryption_key_is_lost(browser: Client, story: Job, settings: Any) -> None:
    settings.ENCRYPTION_KEYS = "other:" + "A" * 43 + "="

    assert browser.get(LIST).status_code == 200
    assert browser.get(page_of(story)).status_code == 200
    revealed = words(browser.post(f"{LIST}{story.public_id}/reveal/").content.decode())
    assert revealed.count("which is not in ENCRYPTION_KEYS") == 2


def test_an_unreadable_prompt_does_not_hide_the_answer(browser: Client, site: Site) -> None:
    job = make_ended(site, result=ANSWER)
    Job.objects.filter(id=job.id).update(payload=b"{broken")

    page = words(browser.post(f"{LIST}{job.public_id}/reveal/").content.decode())

    assert "This cannot be shown." in page
    assert "What the oven replied" in page


def test_markup_in_a_prompt_is_escaped(browser: Client, site: Site) -> None:
    job = make_job(site, payload=b'{"model":"<script>alert(1)</script>"}', metadata={"a": "<script>alert(2)</script>"})

    for response in (browser.get(page_of(job)), browser.post(f"{LIST}{job.public_id}/reveal/")):
        assert "<script>alert" not in response.content.decode()


# Cancel and try again


def test_a_queued_job_is_canceled_from_its_page(browser: Client, site: Site) -> None:
    job = make_job(site)

    assert browser.post(f"{LIST}{job.public_id}/cancel/").headers["Location"] == page_of(job)

    assert Job.objects.get().state == "canceled"
    assert Event.objects.get().type == "job.canceled"
    entry = AuditEntry.objects.get()
    assert (entry.actor, entry.action, entry.subject) == ("ada", "job.cancel", job.public_id)
    assert (entry.address, entry.site, entry.details) == ("192.0.2.7", site, {"state": ["queued", "canceled"]})
    assert f"Canceled: {job.public_id}." in words(browser.get(page_of(job)).content.decode())


def test_canceling_a_running_job_requests_its_worker_to_stop(browser: Client, site: Site) -> None:
    job = make_running(site)

    page = words(browser.post(f"{LIST}{job.public_id}/cancel/", follow=True).content.decode())

    assert f"Cancel requested; its worker will stop it: {job.public_id}." in page
    assert "cancel requested" in page
    assert Job.objects.get().cancel_requested_at is not None


def test_selected_jobs_are_canceled_and_each_is_reported(browser: Client, site: Site) -> None:
    queued = [make_job(site), make_job(site)]
    running, canceled, ended = make_running(site), make_ended(site, "canceled"), make_ended(site)

    selected = [str(job.id) for job in (*queued, running, canceled, ended)]
    page = browser.post(LIST, {"action": "cancel_selected", "_selected_action": selected}, follow=True)

    text = words(page.content.decode())
    assert f"Canceled: {queued[1].public_id}, {queued[0].public_id}." in text
    assert f"Cancel requested; its worker will stop it: {running.public_id}." in text
    assert f"Already canceled: {canceled.public_id}." in text
    assert f"Not canceled. The job has already finished: it is succeeded: {ended.public_id}." in text
    assert set(AuditEntry.objects.values_list("subject", flat=True)) == {j.public_id for j in (*queued, running)}


def test_a_failed_job_is_retried_from_its_page(browser: Client, site: Site, desk_route: None) -> None:
    job = make_ended(site, "failed")

    page = browser.post(f"{LIST}{job.public_id}/retry/", follow=True).content.decode()

    new = Job.objects.get(retry_of=job)
    assert (new.state, bytes(new.payload)) == ("queued", PROMPT)
    assert f"Retried: {job.public_id} as {new.public_id}" in re.sub(r" +", " ", words(page))
    assert f'href="{page_of(new)}"' in page
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.subject, entry.details["new_job"]) == ("job.retry", job.public_id, new.public_id)


def test_a_member_is_retried_under_the_restrictions_of_its_batch(browser: Client, site: Site, desk_route: None) -> None:
    batch = make_batch(site, grant=Grant(max_tokens=40))
    member = make_job(site, batch=batch, custom_id="r1", state="failed", finished_at=timezone.now())

    browser.post(f"{LIST}{member.public_id}/retry/", follow=True)

    assert b'"max_completion_tokens":40' in (Job.objects.get(retry_of=member).payload or b"")


def test_selected_jobs_are_retried_and_the_others_are_reported(browser: Client, site: Site, desk_route: None) -> None:
    failed, queued = make_ended(site, "failed"), make_job(site)

    selected = [str(failed.id), str(queued.id)]
    page = browser.post(LIST, {"action": "retry_selected", "_selected_action": selected}, follow=True)

    text = words(page.content.decode())
    assert Job.objects.get(retry_of=failed).state == "queued"
    assert "Only a failed, canceled or expired job can be retried; this one is queued" in text
    assert AuditEntry.objects.count() == 1


def test_a_retry_that_the_site_may_not_make_is_reported(browser: Client, site: Site) -> None:
    job, lost = make_ended(site, "failed"), make_ended(site, "failed")
    Job.objects.filter(id=lost.id).update(payload=b"{broken")
    Site.objects.update(allowed_models=["another"])

    selected = [str(job.id), str(lost.id)]
    page = browser.post(LIST, {"action": "retry_selected", "_selected_action": selected}, follow=True)

    text = words(page.content.decode())
    assert f"Not retried. This site may not use the model 'desk': {job.public_id}." in text
    assert f"can no longer be read. Submit it again: {lost.public_id}." in text
    assert not AuditEntry.objects.exists()


def test_operator_actions_are_listed_on_the_page(browser: Client, site: Site) -> None:
    job = make_job(site)
    browser.post(f"{LIST}{job.public_id}/cancel/")

    page = words(browser.get(page_of(job)).content.decode())

    assert "job.cancel by ada from 192.0.2.7" in page


@pytest.mark.parametrize(("act", "state"), [("cancel", "queued"), ("retry", "failed")])
def test_an_action_requires_its_permission(site: Site, act: str, state: str) -> None:
    job = make_job(site) if state == "queued" else make_ended(site, state)
    other = {"cancel": "jobs.retry_job", "retry": "jobs.cancel_job"}[act]
    browser = sign_in("jobs.view_job", other)

    assert browser.post(f"{LIST}{job.public_id}/{act}/").status_code == 403
    browser.post(LIST, {"action": f"{act}_selected", "_selected_action": [str(job.id)]})
    assert f"/{act}/" not in browser.get(page_of(job)).content.decode()
    assert f'value="{act}_selected"' not in browser.get(LIST).content.decode()
    assert list(Job.objects.values_list("state", flat=True)) == [state]
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize("act", ["cancel", "retry"])
def test_get_does_not_act(browser: Client, site: Site, act: str) -> None:
    job = make_job(site) if act == "cancel" else make_ended(site, "failed")

    assert browser.get(f"{LIST}{job.public_id}/{act}/").headers["Location"] == page_of(job)
    assert Job.objects.get().state == job.state


@pytest.mark.parametrize("act", ["cancel", "retry", "reveal"])
def test_actions_require_a_csrf_token(site: Site, act: str) -> None:
    job = make_job(site)

    assert sign_in(csrf=True).post(f"{LIST}{job.public_id}/{act}/").status_code == 403
    assert Job.objects.get().state == "queued"


@pytest.mark.parametrize("act", ["cancel", "retry", "reveal", "change"])
def test_actions_require_a_login(site: Site, act: str) -> None:
    job = make_job(site)

    assert "/admin/login/" in Client().post(f"{LIST}{job.public_id}/{act}/").headers["Location"]
    assert Job.objects.get().state == "queued"


def test_too_many_selected_jobs_are_refused_together(browser: Client, site: Site) -> None:
    row = {"site": site, "kind": "chat", "model": "desk", "request_hash": b"h" * 32, "payload": b"{}"}
    jobs = Job.objects.bulk_create([Job(**row) for _ in range(101)])

    selected = [str(job.id) for job in jobs]
    page = browser.post(
        LIST, {"action": "cancel_selected", "_selected_action": selected, "select_across": "1"}, follow=True
    )

    assert "Select at most 100 jobs" in words(page.content.decode())
    assert Job.objects.filter(state="queued").count() == 101


def test_an_invalid_selection_does_not_fail(browser: Client, site: Site) -> None:
    make_job(site)

    page = browser.post(LIST, {"action": "cancel_selected", "_selected_action": ["nonsense"]}, follow=True)

    assert "not on this list" in words(page.content.decode())
    assert Job.objects.get().state == "queued"


# Who sees what


def test_pages_require_the_view_permission(story: Job) -> None:
    browser = sign_in("tenants.view_site")

    assert browser.get(LIST).status_code == 403
    assert browser.get(page_of(story)).status_code == 403
    assert browser.get("/admin/jobs/workerlease/").status_code == 403


def test_job_permission_alone_shows_neither_costs_nor_webhooks(story: Job) -> None:
    browser = sign_in("jobs.view_job")

    page, jobs = (words(browser.get(address).content.decode()) for address in (page_of(story), LIST))

    assert "Attempt 2" in page
    for secret in ("sim-anthropic", "$", "3,120", "job.succeeded", "bakery.test", "Operator actions"):
        assert secret not in page, secret
    assert "Cost" not in jobs


# Workers


def make_lease(host: str, seconds: int, **fields: Any) -> WorkerLease:
    expires_at = NOW + timedelta(seconds=seconds)
    return WorkerLease.objects.create(
        worker_id=new_uuid(), host=host, pid=1, version="0.1.0", expires_at=expires_at, **fields
    )


def rows(html: str) -> Iterator[str]:
    return (words("<tr " + row) for row in html.split("<tr ")[1:])


def test_the_list_of_workers_shows_live_draining_and_expired(browser: Client, site: Site) -> None:
    live = make_lease("live-one", 3600)
    make_lease("leaving-one", 3600, draining=True)
    make_lease("dead-one", -60)
    for _ in range(2):
        make_job(site, state="running", worker_id=live.worker_id, deadline_at=NOW)

    found = list(rows(browser.get("/admin/jobs/workerlease/").content.decode()))

    assert any("live-one" in row and "Live" in row and " 2 " in row for row in found)
    assert any("leaving-one" in row and "Draining" in row for row in found)
    assert any("dead-one" in row and "Expired" in row for row in found)
