"""Pausing and resuming sites, queues and batches."""

from datetime import timedelta
from uuid import UUID

import pytest
from django.db.models.functions import Now
from pytest_django import DjangoCaptureOnCommitCallbacks

from jobs import pauses
from jobs.batches import pause as of_a_site
from jobs.errors import BatchEnded, BatchNotFound, PausedByOperator
from jobs.models import Batch, Pause
from jobs.pauses import PauseScope, QueueName, paused_batch_ids, pauses_of_batch, pauses_of_job, scope_of
from jobs.tasks import bell
from jobs.worker.claim import claim
from tenants.audit import Actor
from tenants.models import AuditEntry, Site
from tests.factories import make_batch, make_job, make_site

pytestmark = pytest.mark.django_db

ADA = Actor("ada", "192.0.2.7")


@pytest.fixture
def batch(site: Site) -> Batch:
    return make_batch(site)


@pytest.fixture(params=["site", "queue", "batch"])
def scope(request: pytest.FixtureRequest, site: Site, batch: Batch) -> PauseScope:
    scopes: dict[str, PauseScope] = {"site": site, "queue": QueueName.BATCH, "batch": batch}
    return scopes[request.param]


def test_jobs_of_a_paused_scope_are_claimed_only_after_it_is_resumed(
    scope: PauseScope, site: Site, batch: Batch, worker_id: UUID
) -> None:
    member = make_job(site, batch=batch, queue="batch", custom_id="a")
    pauses.pause(scope, ADA)

    assert claim(worker_id, 9) == []
    pauses.resume(scope, ADA)
    assert [claimed.job_id for claimed in claim(worker_id, 9)] == [member.id]


def test_jobs_outside_a_paused_scope_are_claimed(site: Site, batch: Batch, worker_id: UUID) -> None:
    for scope in (make_site("florist"), QueueName.BATCH, batch):
        pauses.pause(scope, ADA)
    job = make_job(site)

    assert [claimed.job_id for claimed in claim(worker_id, 9)] == [job.id]


def test_an_operators_pause_replaces_the_sites_own(site: Site, batch: Batch) -> None:
    of_a_site.pause(site, batch.public_id)

    assert pauses.pause(batch, ADA, "The invoice is open.").is_new
    of_a_site.pause(site, batch.public_id)

    with pytest.raises(PausedByOperator):
        of_a_site.resume(site, batch.public_id)
    assert (Pause.objects.get().actor, Pause.objects.get().reason) == ("ada", "The invoice is open.")
    assert AuditEntry.objects.get().action == "batch.pause"


def test_a_site_lifts_its_own_pause_also_under_a_new_slug(site: Site, batch: Batch) -> None:
    of_a_site.pause(site, batch.public_id)
    site.slug = "renamed"
    site.save()

    of_a_site.resume(site, batch.public_id)

    assert not Pause.objects.exists()


def test_actor_and_reason_of_a_pause_are_stored_and_audited(scope: PauseScope, site: Site) -> None:
    paused = pauses.pause(scope, ADA, "The invoice is open.")

    row = Pause.objects.get()
    assert paused.is_new
    assert (row.actor, row.reason, scope_of(row)) == ("ada", "The invoice is open.", scope)
    kind, subject = pauses.describe_scope(scope)
    entry = AuditEntry.objects.get()
    assert (entry.actor, entry.address, entry.action) == ("ada", "192.0.2.7", f"{kind}.pause")
    assert (entry.subject, entry.details) == (subject, {"reason": "The invoice is open."})
    assert entry.site == (None if kind == "queue" else site)


def test_pausing_is_idempotent_and_keeps_the_first_reason(scope: PauseScope) -> None:
    pauses.pause(scope, ADA, "first")
    again = pauses.pause(scope, Actor("ben"), "second")

    assert (again.is_new, again.pause.actor, again.pause.reason) == (False, "ada", "first")
    assert AuditEntry.objects.count() == 1


def test_resuming_is_audited_once_and_rings_the_doorbell(
    scope: PauseScope, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    pauses.pause(scope, ADA)
    rings: list[bool] = []
    bell.set_listener(lambda: rings.append(True))
    try:
        with django_capture_on_commit_callbacks(execute=True):
            assert pauses.resume(scope, ADA)
            assert rings == []
    finally:
        bell.set_listener(None)

    assert rings == [True]
    assert not pauses.resume(scope, ADA)
    kind, _ = pauses.describe_scope(scope)
    assert list(AuditEntry.objects.order_by("id").values_list("action", flat=True)) == [
        f"{kind}.pause",
        f"{kind}.resume",
    ]


@pytest.mark.parametrize("state", ["finalizing", "completed", "failed", "expired", "cancelling", "cancelled"])
def test_an_ended_batch_is_not_paused(batch: Batch, state: str) -> None:
    Batch.objects.filter(id=batch.id).update(state=state)

    with pytest.raises(BatchEnded, match=state):
        pauses.pause(batch, ADA)
    assert not Pause.objects.exists()
    assert not AuditEntry.objects.exists()


def test_a_long_reason_is_truncated(site: Site) -> None:
    assert len(pauses.pause(site, Actor("a" * 300), "r" * 300).pause.reason) == 200


def test_a_site_pauses_its_own_batches_and_no_others(batch: Batch, site: Site) -> None:
    of_a_site.pause(site, batch.public_id, reason="later")

    assert (Pause.objects.get().batch, Pause.objects.get().actor) == (batch, "site bakery")
    with pytest.raises(BatchNotFound):
        of_a_site.resume(make_site("florist"), batch.public_id)
    of_a_site.resume(site, batch.public_id)
    of_a_site.resume(site, batch.public_id)
    assert not Pause.objects.exists()
    assert not AuditEntry.objects.exists()


def test_a_site_cannot_resume_what_the_operator_paused(batch: Batch, site: Site) -> None:
    pauses.pause(batch, ADA)

    of_a_site.pause(site, batch.public_id)
    with pytest.raises(PausedByOperator):
        of_a_site.resume(site, batch.public_id)

    assert Pause.objects.get().actor == "ada"


def test_pauses_of_a_job_are_those_of_its_site_queue_and_batch(site: Site, batch: Batch) -> None:
    single = make_job(site)
    member = make_job(site, batch=batch, queue="batch", custom_id="a")
    scopes: list[PauseScope] = [site, QueueName.BATCH, QueueName.DEFAULT, batch, make_site("florist"), make_batch(site)]
    for scope in scopes:
        pauses.pause(scope, ADA)

    assert {pauses.describe_scope(scope_of(row)) for row in pauses_of_job(single)} == {
        pauses.describe_scope(scope) for scope in (site, QueueName.DEFAULT)
    }
    assert {scope_of(row) for row in pauses_of_job(member)} == {site, QueueName.BATCH, batch}
    assert {scope_of(row) for row in pauses_of_batch(batch)} == {site, QueueName.BATCH, batch}


def test_a_batch_is_paused_by_its_own_pause_its_sites_and_that_of_the_queue(site: Site) -> None:
    first, second = make_batch(site), make_batch(site)
    theirs, over = make_batch(make_site("florist")), make_batch(site, state="completed")
    batches = [first, second, theirs, over]

    assert paused_batch_ids(batches) == set()
    pauses.pause(first, ADA)
    assert paused_batch_ids(batches) == {first.id}
    pauses.pause(site, ADA)
    assert paused_batch_ids(batches) == {first.id, second.id}
    pauses.pause(QueueName.DEFAULT, ADA)
    assert paused_batch_ids(batches) == {first.id, second.id}
    pauses.pause(QueueName.BATCH, ADA)
    assert paused_batch_ids(batches) == {first.id, second.id, theirs.id}


def test_the_completion_window_of_a_paused_batch_continues(site: Site) -> None:
    batch = make_batch(site, expires_at=Now() + timedelta(hours=1))

    before = Batch.objects.get(id=batch.id).expires_at
    pauses.pause(batch, ADA)
    assert Batch.objects.get(id=batch.id).expires_at == before
