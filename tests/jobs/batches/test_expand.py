"""Expanding the file of a batch: all of its members or none, exactly once, also after crashes."""

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import InterfaceError, OperationalError, connection
from django.db.models.functions import Now
from pytest_django import Settings

from core.crypto import new_key
from jobs.batches import insert, requests
from jobs.batches.cancel import cancel
from jobs.batches.create import create
from jobs.batches.expand import MAX_CANDIDATES, expand_one
from jobs.batches.read import try_batch_lock
from jobs.errors import FileNotFound, InvalidFile
from jobs.models import Batch, BatchState, File, FileChunk, Job
from tenants.grant import Grant
from tenants.models import Site
from tests.factories import make_file, make_site
from tests.jobs.batches.making import BODY, line, states_of, submission_of, to_file
from webhooks.models import Event


def make_waiting(site: Site, lines: list[Any], **changes: Any) -> Batch:
    """A batch whose file has not been read yet."""
    file = make_file(site, to_file(lines))
    return create(site, submission_of([], input_file_id=file.public_id, **changes)).batch


def read(batch: Batch) -> Batch:
    """Let a worker read the file, and return the batch."""
    assert expand_one()
    return Batch.objects.get(id=batch.id)


def test_a_batch_with_a_file_waits_to_be_read(site: Site, desk_route: None) -> None:
    batch = make_waiting(site, [line("r1")])

    assert (batch.state, batch.total, batch.in_progress_at) == (BatchState.VALIDATING, 0, None)
    assert batch.input_file is not None
    assert not Job.objects.exists()


def test_lines_become_members_in_their_order(site: Site, desk_route: None) -> None:
    batch = read(make_waiting(site, [line("z"), b"", line("a"), line("m")], grant=Grant("desk")))

    assert (batch.state, batch.total, batch.model) == (BatchState.IN_PROGRESS, 3, "desk")
    assert batch.in_progress_at is not None
    assert list(states_of(batch)) == ["z", "a", "m"]
    assert not Event.objects.exists()
    assert not expand_one()


@pytest.mark.parametrize(
    ("second", "code", "param"),
    [
        (b"not JSON", "invalid_json_line", None),
        (line(...), "missing_required_parameter", "custom_id"),
        (line("r2", method=...), "missing_required_parameter", "method"),
        (line("r2", url=...), "missing_required_parameter", "url"),
        (line("r1"), "duplicate_custom_id", "custom_id"),
        (line("r2", method="GET"), "invalid_method", "method"),
        (line("r2", url="/v1/embeddings"), "invalid_url", "url"),
        (line("r2", body={**BODY, "stream": True}), "invalid_value", "body.stream"),
        (line("r2", body={**BODY, "model": "nobody"}), "model_not_found", "body.model"),
        (b'{"custom_id":"' + b"x" * 300_000, "line_too_long", None),
        (to_file([line("r2")])[:-2] + b',"custom_id":"r3"}', "invalid_json_line", None),
        (line("r2", body={**BODY, "tools": [10**20]}), "invalid_json_line", None),
        (to_file([line("r2")]).strip().replace(b'"desk"', b'"desk","seed":1e999'), "invalid_value", "body"),
    ],
)
def test_an_invalid_line_fails_the_batch_with_its_number(
    site: Site, desk_route: None, second: Any, code: str, param: str | None
) -> None:
    batch = read(make_waiting(site, [line("r1"), second]))

    assert batch.state == BatchState.FAILED
    assert [(each["code"], each["param"], each["line"]) for each in batch.errors] == [(code, param, 2)]
    assert batch.failed_at is not None
    assert not Job.objects.exists()
    assert list(Event.objects.values_list("type", "is_terminal")) == [("batch.failed", True)]


def test_an_empty_file_fails_the_batch(site: Site, desk_route: None) -> None:
    batch = read(make_waiting(site, [b"", b"  "]))

    assert [each["code"] for each in batch.errors] == ["empty_batch"]


def test_a_file_of_too_many_blank_lines_is_not_read_to_its_end(
    site: Site, desk_route: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "MAX_LINES", 3)

    batch = read(make_waiting(site, [line("r1"), *[b""] * 3, b"not JSON"]))

    assert [(each["code"], each["line"]) for each in batch.errors] == [("too_many_lines", 4)]


def test_limits_of_the_token_apply_when_the_file_is_read(site: Site, desk_route: None) -> None:
    batch = read(make_waiting(site, [line("r1")], grant=Grant("another")))

    assert [each["param"] for each in batch.errors] == ["body.model"]


def test_a_narrow_tokens_file_may_not_request_a_premium_tier(site: Site, desk_route: None) -> None:
    lines = [line(f"r-{tier}", body={**BODY, "service_tier": tier}) for tier in ("flex", "priority")]

    refused = read(make_waiting(site, lines, grant=Grant(allows_premium_tiers=False)))
    taken = read(make_waiting(site, lines))

    assert [(each["param"], each["line"]) for each in refused.errors] == [("body.service_tier", 2)]
    assert taken.total == 2


def test_only_the_sites_own_input_files_are_accepted(site: Site) -> None:
    other = make_file(make_site("florist"), b"{}\n")
    output = File.objects.create(site=site, purpose="batch_output", filename="o", bytes=0)

    for file, refusal in ((other, FileNotFound), (output, InvalidFile)):
        with pytest.raises(refusal):
            create(site, submission_of([], input_file_id=file.public_id))
    assert not Batch.objects.exists()


def test_a_deleted_or_broken_file_fails_the_batch(site: Site, desk_route: None) -> None:
    gone, broken = make_waiting(site, [line("r1")]), make_waiting(site, [line("r1")])
    File.objects.filter(batches=gone).delete()
    FileChunk.objects.filter(file__batches=broken).delete()

    assert [each["code"] for each in read(gone).errors] == ["file_not_found"]
    assert [each["code"] for each in read(broken).errors] == ["file_unreadable"]


def test_a_file_that_kills_three_readers_fails_the_batch(site: Site, desk_route: None) -> None:
    batch = make_waiting(site, [line("r1")])
    Batch.objects.update(read_count=3)

    assert [each["code"] for each in read(batch).errors] == ["file_unreadable"]
    assert not Job.objects.exists()


def test_a_reader_without_the_key_skips_the_file_and_reads_others(
    site: Site, desk_route: None, settings: Settings
) -> None:
    ours = settings.ENCRYPTION_KEYS
    settings.ENCRYPTION_KEYS = f"newer:{new_key()}"
    encrypted = make_waiting(site, [line("r1")])
    settings.ENCRYPTION_KEYS = ours
    open_to_us = make_waiting(site, [line("r1")])

    assert read(open_to_us).state == BatchState.IN_PROGRESS
    assert not expand_one()

    encrypted.refresh_from_db()
    assert (encrypted.state, encrypted.read_count) == (BatchState.VALIDATING, 0)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("error", [OperationalError("No space left on device"), InterfaceError("gone")])
def test_database_errors_do_not_count_as_read_attempts(
    site: Site, desk_route: None, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def copy(rows: list[tuple[Any, ...]]) -> None:
        raise error

    batch = make_waiting(site, [line("r1")])
    monkeypatch.setattr(insert, "_copy", copy)
    for _ in range(4):
        with pytest.raises(type(error)):
            expand_one()

    batch.refresh_from_db()
    assert (batch.state, batch.read_count) == (BatchState.VALIDATING, 0)


@pytest.mark.django_db(transaction=True)
def test_a_reader_whose_connection_breaks_is_rolled_back_and_another_reads_the_file(
    site: Site, desk_route: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = make_waiting(site, [line(f"r{n}") for n in range(5)])
    monkeypatch.setattr(insert, "CHUNK_ROWS", 2)
    copy = insert._copy

    def break_second(rows: list[tuple[Any, ...]]) -> None:
        if Job.objects.exists():
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        copy(rows)

    monkeypatch.setattr(insert, "_copy", break_second)
    with pytest.raises(OperationalError):
        expand_one()
    assert not Job.objects.exists()

    monkeypatch.setattr(insert, "_copy", copy)
    found = read(batch)
    assert (found.state, found.read_count) == (BatchState.IN_PROGRESS, 1)
    assert Job.objects.filter(batch=batch).count() == 5


@pytest.mark.django_db(transaction=True)
def test_concurrent_readers_create_the_members_once(site: Site, desk_route: None, rung: list[int]) -> None:
    batch = make_waiting(site, [line(f"r{n}") for n in range(50)])
    start, did = threading.Barrier(4), list[bool]()

    def go() -> None:
        start.wait()
        did.append(expand_one())
        connection.close()

    threads = [threading.Thread(target=go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    batch.refresh_from_db()
    assert (batch.state, batch.total, batch.read_count) == (BatchState.IN_PROGRESS, 50, 1)
    assert did.count(True) == 1
    assert Job.objects.count() == 50


@pytest.mark.django_db(transaction=True)
def test_a_batch_that_another_worker_reads_is_skipped(site: Site, desk_route: None) -> None:
    first, second = make_waiting(site, [line("r1")]), make_waiting(site, [line("r1")])
    reading, done = threading.Event(), threading.Event()

    def hold() -> None:
        with try_batch_lock(first.id) as is_mine:
            assert is_mine
            reading.set()
            done.wait(20)
        connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    reading.wait(20)
    assert expand_one()
    done.set()
    thread.join()

    assert (states_of(first), states_of(second)) == ({}, {"r1": "queued"})


@pytest.mark.django_db(transaction=True)
def test_a_cancel_does_not_wait_for_the_reader_which_is_rolled_back(
    site: Site, desk_route: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = make_waiting(site, [line("r1")])
    copy = insert._copy

    def cancel_meanwhile() -> None:
        cancel(site, batch.public_id)
        connection.close()

    def be_canceled(rows: list[tuple[Any, ...]]) -> None:
        copy(rows)
        thread = threading.Thread(target=cancel_meanwhile)
        thread.start()
        thread.join(20)
        assert not thread.is_alive()

    monkeypatch.setattr(insert, "_copy", be_canceled)

    assert read(batch).state == BatchState.CANCELLED
    assert not Job.objects.exists()
    assert list(Event.objects.values_list("type", flat=True)) == ["batch.cancelled"]


def test_a_batch_canceled_before_its_file_is_read_ends_immediately(site: Site, desk_route: None) -> None:
    batch = make_waiting(site, [line("r1")])

    canceled = cancel(site, batch.public_id)

    assert (canceled.state, canceled.completed, canceled.failed) == (BatchState.CANCELLED, 0, 0)
    assert not expand_one()
    assert list(Event.objects.values_list("type", flat=True)) == ["batch.cancelled"]


def test_a_stopping_worker_leaves_the_file_to_another(site: Site, desk_route: None) -> None:
    batch = make_waiting(site, [line(f"r{n}") for n in range(5)])
    answers = iter([False, False, False])

    assert not expand_one(lambda: next(answers, True))

    batch.refresh_from_db()
    assert (batch.state, batch.read_count) == (BatchState.VALIDATING, 0)
    assert not Job.objects.exists()
    assert not expand_one(lambda: True)
    assert read(batch).total == 5


def test_batches_with_a_restriction_of_a_newer_version_are_left_to_a_newer_worker(site: Site, desk_route: None) -> None:
    newer = [make_waiting(site, [line("r1")], grant=Grant(unknown=(("budget", 5),))) for _ in range(MAX_CANDIDATES)]
    other = make_waiting(site, [line("r1")], grant=Grant("desk", 100, allows_premium_tiers=False))

    assert expand_one()
    assert not expand_one()

    other.refresh_from_db()
    assert other.state == BatchState.IN_PROGRESS
    assert {(each.state, each.read_count) for each in Batch.objects.filter(id__in=[batch.id for batch in newer])} == {
        (BatchState.VALIDATING, 0)
    }


def test_a_batch_with_a_restriction_of_a_newer_version_fails_at_the_end_of_its_window(
    site: Site, desk_route: None
) -> None:
    batch = make_waiting(site, [line("r1")], grant=Grant(unknown=(("budget", 5),)))
    Batch.objects.filter(id=batch.id).update(expires_at=Now() - timedelta(seconds=1))

    assert expand_one()

    batch.refresh_from_db()
    assert (batch.state, batch.errors[0]["code"]) == (BatchState.FAILED, "restriction_unknown")
