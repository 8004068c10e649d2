"""The admin page of pauses: list, form and permissions."""

import re
from typing import Any

import pytest
from django.test import Client
from pytest_django import DjangoCaptureOnCommitCallbacks

from jobs import pauses
from jobs.batches import pause as of_a_site
from jobs.models import Pause
from jobs.pauses import PauseScope, QueueName, scope_of
from jobs.tasks import bell
from tenants.audit import Actor
from tenants.models import AuditEntry, Site
from tests.factories import make_batch, make_job, make_site
from tests.operators import sign_in, words

pytestmark = pytest.mark.django_db

LIST = "/admin/jobs/pause/"
ADA = Actor("ada")


def add(browser: Client, **given: Any) -> str:
    """Submit the form; return the text of the resulting page."""
    form = {"site": "", "queue": "", "batch_id": "", "reason": "", **given}
    return words(browser.post(f"{LIST}add/", form, follow=True).content.decode())


def test_the_list_shows_target_actor_and_reason(site: Site) -> None:
    batch = make_batch(make_site("florist"))
    pauses.pause(site, ADA, "The invoice is open.")
    pauses.pause(QueueName.BATCH, Actor("ben"))
    pauses.pause(batch, Actor("florist"), "<script>alert(1)</script>")

    html = sign_in().get(LIST).content.decode()

    page = words(html)
    for fact in ("Bakery bakery", "The invoice is open.", "ben", batch.public_id, "of florist", "<script>alert(1)"):
        assert fact in page, fact
    assert "<script>alert" not in html
    assert f'href="/admin/jobs/batch/{batch.public_id}/change/"' in html
    assert f'href="/admin/jobs/job/?site__id__exact={site.id}&amp;state__exact=queued"' in html
    assert 'href="/admin/jobs/job/?queue=batch&amp;state__exact=queued"' in html


def test_each_pause_links_to_its_queued_jobs(site: Site) -> None:
    browser, batch = sign_in(), make_batch(site)
    single = make_job(site)
    member = make_job(site, batch=batch, queue="batch", custom_id="a")
    make_job(make_site("florist"))
    scopes: list[tuple[PauseScope, set[str]]] = [
        (site, {single.public_id, member.public_id}),
        (QueueName.BATCH, {member.public_id}),
        (batch, {member.public_id}),
    ]
    for scope, held_back in scopes:
        pauses.pause(scope, ADA)
        html = browser.get(LIST).content.decode()
        address = html.split('">queued jobs')[0].rsplit('href="', 1)[1].replace("&amp;", "&")
        jobs = browser.get(address).content.decode()
        assert {word for word in words(jobs).split() if word.startswith("job_") and len(word) == 30} == held_back
        pauses.resume(scope, ADA)


@pytest.mark.parametrize("what", ["site", "queue", "batch"])
def test_pausing_by_the_form_is_audited(site: Site, what: str) -> None:
    batch = make_batch(site)
    given = {"site": {"site": str(site.id)}, "queue": {"queue": "batch"}, "batch": {"batch_id": batch.public_id}}[what]

    page = add(sign_in(), reason="too dear", **given)

    scope = scope_of(Pause.objects.get())
    assert scope == {"site": site, "queue": QueueName.BATCH, "batch": batch}[what]
    assert (Pause.objects.get().actor, Pause.objects.get().reason) == ("ada", "too dear")
    assert "was added successfully" in page
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.subject, entry.address) == (
        f"{what}.pause",
        pauses.describe_scope(scope)[1],
        "192.0.2.7",
    )


def test_an_operator_can_pause_what_its_site_has_paused(site: Site) -> None:
    browser, batch = sign_in(), make_batch(site)
    of_a_site.pause(site, batch.public_id)
    address = f"/admin/jobs/batch/{batch.public_id}"
    page = browser.get(f"{address}/change/").content.decode()

    assert f"{address}/pause/" in page
    assert f"{address}/resume/" in page
    assert "was added successfully" in add(browser, batch_id=batch.public_id)
    assert Pause.objects.get().actor == "ada"
    assert f"{address}/pause/" not in browser.get(f"{address}/change/").content.decode()


def test_the_form_reports_invalid_targets(site: Site) -> None:
    browser, over = sign_in(), make_batch(site, state="completed")
    pauses.pause(site, ADA)

    assert "Choose exactly one" in add(browser)
    assert "Choose exactly one" in add(browser, queue="batch", batch_id=make_batch(site).public_id)
    assert "This batch does not exist." in add(browser, batch_id="batch_1")
    assert "it is completed" in add(browser, batch_id=over.public_id)
    assert "Already paused." in add(browser, site=str(site.id))
    assert "at most 200 characters" in add(browser, queue="batch", reason="r" * 201)
    assert Pause.objects.count() == 1


def test_the_form_accepts_a_preselected_site(site: Site) -> None:
    html = sign_in().get(f"{LIST}add/?site={site.id}").content.decode()

    assert f'<option value="{site.id}" selected>' in html


def test_the_page_of_a_site_links_to_the_pause_form(site: Site) -> None:
    page = f"/admin/tenants/site/{site.id}/change/"
    browser, reader = sign_in(), sign_in("tenants.view_site", name="ben")

    html = browser.get(page).content.decode()

    address = html.split("Pause this site")[0].rsplit('href="', 1)[1].split('"')[0]
    assert f'<option value="{site.id}" selected>' in browser.get(address).content.decode()
    assert "History" in html
    assert "Pause this site" not in reader.get(page).content.decode()


def test_resuming_selected_pauses_wakes_workers(
    site: Site, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    browser, florist = sign_in(), make_site("florist")
    chosen = [pauses.pause(scope, ADA).pause for scope in (site, QueueName.BATCH)]
    pauses.pause(florist, ADA)
    rings: list[bool] = []
    bell.set_listener(lambda: rings.append(True))
    try:
        with django_capture_on_commit_callbacks(execute=True):
            form = {"action": "resume_selected", "_selected_action": [row.pk for row in chosen]}
            page = words(browser.post(LIST, form, follow=True).content.decode())
    finally:
        bell.set_listener(None)

    assert "Resumed 2." in page
    assert scope_of(Pause.objects.get()) == florist
    assert rings
    resumed = AuditEntry.objects.filter(action__endswith=".resume")
    assert set(resumed.values_list("action", "actor")) == {("site.resume", "ada"), ("queue.resume", "ada")}


def test_view_permission_alone_allows_no_changes(site: Site) -> None:
    browser = sign_in("jobs.view_pause")
    row = pauses.pause(site, ADA).pause

    assert browser.get(f"{LIST}add/").status_code == 403
    assert browser.post(f"{LIST}add/", {"queue": "batch"}).status_code == 403
    browser.post(LIST, {"action": "resume_selected", "_selected_action": [row.pk]})
    assert 'value="resume_selected"' not in browser.get(LIST).content.decode()
    assert [scope_of(each) for each in Pause.objects.all()] == [site]


def test_a_pause_cannot_be_edited_or_deleted(site: Site) -> None:
    browser, row = sign_in(), pauses.pause(site, ADA, "why").pause

    assert browser.get(f"{LIST}{row.pk}/change/").status_code == 200
    assert browser.post(f"{LIST}{row.pk}/change/", {"reason": "other"}).status_code == 403
    assert browser.post(f"{LIST}{row.pk}/delete/", {"post": "yes"}).status_code == 403
    assert Pause.objects.get().reason == "why"


def test_pages_require_the_view_permission(site: Site) -> None:
    pauses.pause(site, ADA)
    browser = sign_in("jobs.view_job")

    assert browser.get(LIST).status_code == 403
    assert "was paused" not in words(browser.get("/admin/").content.decode())


def test_the_overview_lists_pauses(site: Site) -> None:
    pauses.pause(site, ADA, "The invoice is open.")

    page = words(sign_in("jobs.view_pause").get("/admin/").content.decode())

    assert re.search(r"The site bakery was paused by ada \d s ago: The invoice is open\.", page)
