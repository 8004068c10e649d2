"""Admin pages of batches: list, progress and page."""

import re
from datetime import timedelta

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test import Client
from django.test.utils import CaptureQueriesContext

from jobs import pauses
from jobs.models import Batch, Job
from jobs.pauses import PauseScope, QueueName
from jobs.worker.leases import acquire_lease
from tenants.audit import Actor
from tenants.models import Site
from tests.factories import make_batch, make_file, make_site
from tests.jobs.halfway import LIST, NOW, XSS, add_members, bill, make_ended_batch, page_of, progress_of, text
from tests.operators import words
from webhooks.models import Delivery, DeliveryAttempt, Endpoint, Event

pytestmark = pytest.mark.django_db

ADA = Actor("ada")


def count_queries(browser: Client, address: str) -> int:
    with CaptureQueriesContext(connection) as queries:
        assert browser.get(address).status_code == 200
    return len(queries)


# The list


def test_the_list_shows_the_state_and_progress_of_each_batch(browser: Client, halfway: Batch) -> None:
    html = browser.get(LIST).content.decode()

    page = words(html)
    for fact in (
        halfway.public_id,
        "In progress",
        "bakery",
        "desk Chat completion",
        "50 % 10 of 20, 3 failed",
        "$0.03",
    ):
        assert fact in page, fact
    assert f'href="{page_of(halfway)}"' in html


def test_the_list_shows_the_results_of_ended_batches(browser: Client, site: Site) -> None:
    make_ended_batch(site)
    make_batch(site, state="validating")
    make_ended_batch(site, "failed", completed=0, failed=0, canceled=0, expired=0, total=0)

    page = text(browser, LIST)

    for fact in ("100 % 4 of 4, 1 failed", "$1.00", "reading the input file", "no requests"):
        assert fact in page, fact


@pytest.mark.parametrize("what", ["batch", "site", "queue"])
def test_paused_batches_are_labeled_paused_on_every_list(browser: Client, halfway: Batch, what: str) -> None:
    scopes: dict[str, PauseScope] = {"batch": halfway, "site": halfway.site, "queue": QueueName.BATCH}
    pauses.pause(scopes[what], ADA)
    make_ended_batch(halfway.site)

    states = re.findall(r"(In progress|Paused|Completed)(?= bakery| \d+ %)", text(browser, LIST))
    assert states == ["Completed", "Paused"]
    assert re.search(r"Bakery Paused 50 % 10 of 20", text(browser, "/admin/"))


def test_queries_of_the_list_do_not_grow_with_batches(browser: Client, halfway: Batch) -> None:
    make_ended_batch(halfway.site)
    count_queries(browser, LIST)
    few = count_queries(browser, LIST)
    for number in range(5):
        site = make_site(f"site-{number}")
        add_members(make_batch(site), "queued", 2)
        make_ended_batch(site)

    assert count_queries(browser, LIST) == few


def test_filters_and_search_find_batches(browser: Client, site: Site) -> None:
    file = make_file(site, b"x")
    mine = make_batch(site, input_file=file, idempotency_key="night-1", request_id="req_1")
    theirs = make_ended_batch(make_site("florist"), kind="embeddings")
    event = Event.objects.create(site=site, type="batch.progress", subject_id=mine.id, payload=b"{}")

    def listed(query: str) -> list[str]:
        html = browser.get(f"{LIST}?{query}").content.decode()
        return re.findall(r'<span class="nd-id">(batch_\w+)</span>', html)

    assert listed("") == [theirs.public_id, mine.public_id]
    assert listed("state__exact=completed") == [theirs.public_id]
    assert listed(f"site__id__exact={site.id}") == [mine.public_id]
    assert listed("kind__exact=embeddings") == [theirs.public_id]
    names = (mine.public_id, str(mine.id), file.public_id, event.public_id, site.public_id)
    for word in (*names, "bakery", "night-1", " req_1 "):
        assert listed(f"q={word}") == [mine.public_id], word
    for word in ("batch_", "night", "%", "bak", "' OR 1=1 --", "%00"):
        assert listed(f"q={word}") == [] or word == "%00", word


# The page


def test_the_page_shows_the_progress_of_the_batch(browser: Client, halfway: Batch) -> None:
    html = browser.get(page_of(halfway)).content.decode()

    page = words(html)
    counts = ("Succeeded 6", "Failed 3", "Canceled or expired 1", "Running 4", "Queued 6", "50 % 10 of 20")
    money = ("Cost so far $0.0300", "Estimated total ≈ $0.0800", "Tokens 180 → 42")
    for fact in (*counts, *money, "rate_limited 2 Too many.", "rejected 1 "):
        assert fact in page, fact
    # Nine were worked off within the minute since it began; ten more are left.
    assert re.search(r"Rate [78]\.\d / min|Rate 9\.0 / min", page)
    assert "Time left about 1 min" in page
    assert "Paused" not in page
    assert 'aria-valuetext="10 of 20 requests ended (50 %): 6 succeeded, 3 failed, 1 canceled or expired; ' in html


def test_the_bar_has_one_segment_per_outcome(browser: Client, halfway: Batch) -> None:
    html = browser.get(progress_of(halfway)).content.decode()

    drawn = re.findall(r'<i class="nd-kind-(\w+)" style="width:([\d.]+)%">', html)
    assert drawn == [("ok", "30.0"), ("error", "15.0"), ("canceled", "5.0"), ("open", "20.0")]


def test_each_count_links_to_its_requests(browser: Client, halfway: Batch) -> None:
    html = browser.get(progress_of(halfway)).content.decode()

    addresses = [each.replace("&amp;", "&") for each in re.findall(r'href="(/admin/jobs/job/\?[^"]+)"', html)]
    found = {}
    for address in addresses:
        jobs = browser.get(address).content.decode()
        found[address.split("&", 1)[1]] = len(set(re.findall(r"job_\w{26}", jobs)))
    assert found == {
        "state__exact=succeeded": 6,
        "state__exact=failed": 3,
        "state__exact=canceled&state__exact=expired": 1,
        "state__exact=running": 4,
        "state__exact=queued": 6,
        "error=rate_limited": 2,
        "error=rejected": 1,
    }


def test_a_paused_batch_has_no_estimate(browser: Client, halfway: Batch) -> None:
    pauses.pause(halfway.site, ADA, "The invoice is open.")

    page = text(browser, progress_of(halfway))

    assert "Time left –" in page
    assert re.search(r"The site bakery was paused by ada \d+ s ago: The invoice is open\.", page)


def test_a_batch_that_will_expire_first_has_a_note(browser: Client, halfway: Batch) -> None:
    assert "before it expires" not in text(browser, progress_of(halfway))
    Batch.objects.update(expires_at=Now() + timedelta(seconds=5))

    assert "At this rate it will not finish before it expires" in text(browser, progress_of(halfway))


def test_a_batch_without_live_workers_has_a_note(browser: Client, site: Site) -> None:
    batch = make_batch(site)
    add_members(batch, "queued", 2)

    assert "No worker is running" in text(browser, progress_of(batch))
    acquire_lease()
    assert "No worker is running" not in text(browser, progress_of(batch))


def test_the_cost_without_a_price_is_unknown(browser: Client, site: Site) -> None:
    batch = make_batch(site)
    bill(add_members(batch, "succeeded", 2), 0, price_version="")

    page = text(browser, progress_of(batch))

    assert "Cost so far no price" in page
    assert "Estimated total –" in page


def test_the_page_of_an_ended_batch_shows_duration_cost_and_files(browser: Client, site: Site) -> None:
    output, errors = make_file(site, b"x" * 2048, filename="out.jsonl"), make_file(site, b"x", filename=f"{XSS}.jsonl")
    old = make_ended_batch(site)
    batch = make_ended_batch(
        site,
        output_file=output,
        error_file=errors,
        retry_of=old,
        created_at=Now() - timedelta(minutes=10),
        in_progress_at=Now() - timedelta(minutes=2),
        idempotency_key="night-1",
        metadata={"by": XSS},
        input_tokens=12_345_678,
        output_tokens=45_678,
    )
    new = make_batch(site, retry_of=batch)

    html = browser.get(page_of(batch)).content.decode()

    page = words(html)
    files = ("out.jsonl 2.0 KB", output.public_id, "Answers", "Errors")
    facts = ("Completed", "Took 10 min", "Cost $1.00", "Tokens 12.3 M → 45.7 k", "night-1", "Created", "Ended")
    for fact in (*files, *facts, old.public_id, new.public_id):
        assert fact in page, fact
    assert "Time left" not in page
    assert "data-moving" not in html
    assert XSS not in html


def test_a_failed_validation_lists_its_errors_by_line(browser: Client, site: Site) -> None:
    mistakes = [
        {"code": "invalid_json_line", "message": f"No JSON {XSS}.", "param": None, "line": 1204},
        {"code": "duplicate_custom_id", "message": "Used before.", "param": "custom_id", "line": 7},
    ]
    batch = make_ended_batch(site, "failed", total=0, failed=0, canceled=0, expired=0, completed=0, errors=mistakes)

    html = browser.get(page_of(batch)).content.decode()

    page = words(html)
    for fact in ("line 1,204 invalid_json_line No JSON", "line 7, custom_id duplicate_custom_id Used before."):
        assert fact in page, fact
    assert "None of its requests was started." in page
    assert XSS not in html


def test_markup_from_sites_and_providers_is_escaped(browser: Client, halfway: Batch) -> None:
    Batch.objects.update(model=XSS, metadata={"a": XSS}, idempotency_key=XSS, request_id="<b>")
    file = make_file(halfway.site, b"x", filename=XSS)
    Batch.objects.update(input_file=file)
    pauses.pause(halfway, Actor(XSS), XSS)
    member = Job.objects.get(custom_id=f"{XSS}9")

    for address in (page_of(halfway), progress_of(halfway), LIST, "/admin/", f"/admin/jobs/job/{member.id}/change/"):
        html = browser.get(address).content.decode()
        assert XSS not in html, address
    assert words(browser.get(page_of(halfway)).content.decode()).count("alert(1)") >= 6


def test_the_page_lists_webhooks(browser: Client, halfway: Batch, endpoint: Endpoint) -> None:
    event = Event.objects.create(site=halfway.site, type="batch.progress", subject_id=halfway.id, payload=b"{}")
    delivery = Delivery.objects.create(
        site=halfway.site, event=event, endpoint=endpoint, state="delivered", due_at=None, finished_at=NOW, attempts=1
    )
    DeliveryAttempt.objects.create(delivery=delivery, number=1, status=204, duration_ms=88)

    page = text(browser, page_of(halfway))

    for fact in ("batch.progress", event.public_id, "Delivered", "HTTP 204", "88 ms"):
        assert fact in page, fact


def test_queries_of_the_page_do_not_grow_with_requests_failures_and_events(browser: Client, halfway: Batch) -> None:
    Event.objects.create(site=halfway.site, type="batch.progress", subject_id=halfway.id, payload=b"{}")
    count_queries(browser, page_of(halfway))
    few = count_queries(browser, page_of(halfway)), count_queries(browser, progress_of(halfway))
    for number in range(12):
        bill(add_members(halfway, "succeeded", 1), 10**9)
        add_members(halfway, "failed", 1, error_code=f"code-{number}")
        add_members(halfway, "running", 1)
        Event.objects.create(site=halfway.site, type="batch.progress", subject_id=halfway.id, payload=b"{}")

    assert (count_queries(browser, page_of(halfway)), count_queries(browser, progress_of(halfway))) == few
    assert few[1] <= 12


def test_neither_requests_nor_answers_are_read(browser: Client, halfway: Batch) -> None:
    with CaptureQueriesContext(connection) as queries:
        browser.get(page_of(halfway))
        browser.get(LIST)

    assert not any(f'"jobs_job"."{name}"' in query["sql"] for query in queries for name in ("payload", "result"))


@pytest.mark.parametrize("state", ["validating", "finalizing", "cancelling", "cancelled", "expired"])
def test_a_batch_has_a_page_in_every_state(browser: Client, site: Site, state: str) -> None:
    ended = {"completed": 0, "failed": 0} if state in ("cancelled", "expired") else {}

    assert state.title() in text(browser, page_of(make_batch(site, state=state, **ended)))


def test_a_running_batch_refreshes_and_reloads_when_its_stage_changes(browser: Client, halfway: Batch) -> None:
    page, part = (browser.get(address).content.decode() for address in (page_of(halfway), progress_of(halfway)))

    assert '<script src="/static/desk/live.js" defer></script>' in page
    assert f'data-live="{progress_of(halfway)}"' in page
    assert "data-moving" in page
    assert "<html" not in part
    (stage,) = set(re.findall(r'data-stage="([^"]+)"', page + part))
    pauses.pause(halfway.site, ADA)
    assert f'data-stage="{stage}"' not in browser.get(progress_of(halfway)).content.decode()
    assert "fetch(" in b"".join(browser.get("/static/desk/live.js")).decode()


@pytest.mark.parametrize("name", ["batch_nothing", "1", "site_" + "0" * 26])
@pytest.mark.parametrize("act", ["change", "progress", "pause", "resume", "cancel", "retry"])
def test_an_unknown_batch_redirects_to_the_list(browser: Client, name: str, act: str) -> None:
    assert browser.post(f"{LIST}{name}/{act}/").headers["Location"] == LIST
