"""Operator actions on batches: results, permissions and audit log."""

import re

import pytest
from django.test import Client

from jobs import pauses
from jobs.models import Batch, Job, Pause
from tenants.models import AuditEntry, Site
from tests.factories import make_batch, make_job
from tests.jobs.halfway import LIST, add_members, make_ended_batch, page_of, progress_of, text
from tests.operators import sign_in, words

pytestmark = pytest.mark.django_db


def post(browser: Client, batch: Batch, act: str) -> str:
    return words(browser.post(f"{LIST}{batch.public_id}/{act}/", follow=True).content.decode())


def buttons(browser: Client, batch: Batch) -> set[str]:
    html = browser.get(page_of(batch)).content.decode()
    return set(re.findall(rf"/{batch.public_id}/(pause|resume|cancel|retry)/", html))


def entry_of(batch: Batch) -> AuditEntry:
    entry = AuditEntry.objects.get()
    assert (entry.actor, entry.subject) == ("ada", batch.public_id)
    assert (entry.address, entry.site) == ("192.0.2.7", batch.site)
    return entry


def test_a_batch_is_paused_and_resumed(browser: Client, halfway: Batch) -> None:
    assert buttons(browser, halfway) == {"pause", "cancel"}
    assert "Paused: running requests finish, no more are started." in post(browser, halfway, "pause")
    assert (Pause.objects.get().batch, Pause.objects.get().actor) == (halfway, "ada")
    assert entry_of(halfway).action == "batch.pause"
    assert "Already paused." in post(browser, halfway, "pause")

    assert buttons(browser, halfway) == {"resume", "cancel"}
    assert "Resumed." in post(browser, halfway, "resume")
    assert "it was not paused." in post(browser, halfway, "resume")
    assert not Pause.objects.exists()
    assert AuditEntry.objects.count() == 2


def test_cancel_asks_for_confirmation_and_names_the_consequences(browser: Client, halfway: Batch) -> None:
    asked = text(browser, f"{LIST}{halfway.public_id}/cancel/")

    for fact in ("cannot be undone", "6 queued: canceled", "4 running: their workers", "10 ended: unchanged"):
        assert fact in asked, fact
    assert Batch.objects.get().state == "in_progress"
    assert not AuditEntry.objects.exists()


def test_canceling_a_batch_cancels_queued_requests_and_stops_running_ones(browser: Client, halfway: Batch) -> None:
    page = post(browser, halfway, "cancel")

    assert "Cancel requested; workers will stop its running requests." in page
    assert "Being canceled: 4 requests are still running" in page
    assert Batch.objects.get().state == "cancelling"
    assert not Job.objects.filter(state="queued").exists()
    assert Job.objects.filter(state="running", cancel_requested_at=None).count() == 0
    entry = entry_of(halfway)
    assert (entry.action, entry.details) == ("batch.cancel", {"state": ["in_progress", "cancelling"]})
    assert "batch.cancel by ada" in page
    assert "Already canceled." in post(browser, halfway, "cancel")
    assert buttons(browser, halfway) == set()


def test_a_validating_batch_is_canceled_completely(browser: Client, site: Site) -> None:
    batch = make_batch(site, state="validating")

    assert "Reading its file stops" in text(browser, f"{LIST}{batch.public_id}/cancel/")
    assert "Canceled." in post(browser, batch, "cancel")
    assert Batch.objects.get().state == "cancelled"


@pytest.mark.usefixtures("desk_route")
def test_failed_requests_are_retried_as_a_new_batch(browser: Client, site: Site) -> None:
    batch = make_ended_batch(site)
    add_members(batch, "succeeded", 1)
    add_members(batch, "failed", 3)
    assert buttons(browser, batch) == {"retry"}

    page = browser.post(f"{LIST}{batch.public_id}/retry/", follow=True).content.decode()

    new = Batch.objects.get(retry_of=batch)
    assert Job.objects.filter(batch=new, state="queued").count() == 3
    assert "3 requests retried as" in words(page)
    assert f'href="{page_of(new)}"' in page
    entry = entry_of(batch)
    assert (entry.action, entry.details) == ("batch.retry", {"new_batch": new.public_id, "members": 3})


def test_actions_that_are_not_possible_say_why(browser: Client, halfway: Batch) -> None:
    over = make_ended_batch(halfway.site, failed=0, canceled=0, expired=0)

    assert "Not paused. The batch has already finished: it is completed." in post(browser, over, "pause")
    assert "Not canceled. The batch has already finished" in post(browser, over, "cancel")
    assert "Not retried. Every request of the batch succeeded" in post(browser, over, "retry")
    assert "Not retried. The batch is still in progress" in post(browser, halfway, "retry")
    assert buttons(browser, over) == set()
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize("act", ["pause", "resume", "cancel", "retry"])
def test_an_action_requires_its_permission(halfway: Batch, act: str) -> None:
    own = {"resume": "pause"}.get(act, act)
    others = [f"jobs.{each}_batch" for each in ("pause", "cancel", "retry") if each != own]
    Batch.objects.update(**({"state": "completed", "failed": 3, "completed": 1} if act == "retry" else {}))
    if act == "resume":
        pauses.create_pause(halfway, "bakery")
    browser = sign_in("jobs.view_batch", *others)

    assert act not in buttons(browser, halfway)
    assert browser.post(f"{LIST}{halfway.public_id}/{act}/").status_code == 403
    assert browser.get(f"{LIST}{halfway.public_id}/{act}/").status_code == 403
    assert not AuditEntry.objects.exists()
    assert act in buttons(sign_in("jobs.view_batch", f"jobs.{own}_batch", name="ben"), halfway)


@pytest.mark.parametrize("act", ["pause", "resume", "retry"])
def test_get_does_not_act(browser: Client, halfway: Batch, act: str) -> None:
    assert browser.get(f"{LIST}{halfway.public_id}/{act}/").headers["Location"] == page_of(halfway)
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize("act", ["pause", "resume", "cancel", "retry"])
def test_actions_require_a_csrf_token_and_a_login(halfway: Batch, act: str) -> None:
    address = f"{LIST}{halfway.public_id}/{act}/"

    assert sign_in(csrf=True).post(address).status_code == 403
    assert "/admin/login/" in Client().post(address).headers["Location"]
    assert "/admin/login/" in Client().get(progress_of(halfway)).headers["Location"]
    assert not AuditEntry.objects.exists()
    assert Batch.objects.get().state == "in_progress"


def test_nothing_can_be_edited_added_or_deleted(browser: Client, halfway: Batch) -> None:
    assert browser.post(page_of(halfway), {"state": "failed"}).status_code == 200
    assert browser.get(f"{LIST}add/").status_code == 403
    assert browser.post(f"{LIST}{halfway.id}/delete/", {"post": "yes"}).status_code == 403
    assert Batch.objects.get().state == "in_progress"


# Who sees what


def test_batch_permission_alone_shows_neither_costs_nor_requests_nor_webhooks(halfway: Batch) -> None:
    browser = sign_in("jobs.view_batch")

    html = browser.get(page_of(halfway)).content.decode()

    page = words(html)
    assert "50 %" in page
    for secret in ("$0", "Cost", "Tokens", "Webhooks", "Operator actions"):
        assert secret not in page, secret
    for address in ("/admin/jobs/job/", "/admin/tenants/"):
        assert address not in html, address
    assert "Cost" not in text(browser, LIST)


def test_pages_require_the_view_permission(halfway: Batch) -> None:
    browser = sign_in("jobs.view_job")

    for address in (LIST, page_of(halfway), progress_of(halfway)):
        assert browser.get(address).status_code == 403
    assert halfway.public_id not in browser.get("/admin/").content.decode()


# The requests of a batch among the jobs


def test_the_page_of_a_batch_member_names_its_batch_and_who_sends_webhooks(browser: Client, halfway: Batch) -> None:
    member = Job.objects.filter(batch=halfway, state="succeeded").first()
    assert member is not None

    html = browser.get(f"/admin/jobs/job/{member.public_id}/change/").content.decode()

    page = words(html)
    assert f'href="{page_of(halfway)}"' in html
    for fact in (f"Batch {halfway.public_id}", f"custom_id {member.custom_id}", "The batch sends the webhooks."):
        assert fact in page, fact
    assert "Webhook delivered" not in page
    assert "Queue batch, normal priority" in page


def test_jobs_are_found_by_batch_custom_id_queue_provider_and_error(browser: Client, site: Site) -> None:
    batch = make_batch(site)
    (member,) = add_members(batch, "failed", 1, custom_id="product-7", error_code="rejected", provider="sim")
    make_job(site)
    add_members(make_batch(site), "failed", 1, custom_id="product-8")

    def listed(query: str) -> set[str]:
        return set(re.findall(r"job_\w{26}", browser.get(f"/admin/jobs/job/?{query}").content.decode()))

    mine = {member.public_id}
    assert listed(f"batch={batch.public_id}") == mine
    assert listed("custom_id=product-7") == mine
    assert listed("error=rejected") == mine
    assert listed("provider=sim") == mine
    assert listed(f"q={batch.public_id}") == listed("q=product-7") == mine
    assert len(listed("queue=batch")) == 2
    assert len(listed("queue=default")) == 1
    assert listed("batch=nonsense") == listed("custom_id=product") == set()
