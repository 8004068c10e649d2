"""`/v1/files` over HTTP."""

import json
from datetime import timedelta
from typing import Any, cast

import pytest
from django.db import OperationalError
from django.http import HttpResponse, StreamingHttpResponse
from pytest_django import Settings

from api import examples
from core import clock
from jobs.files.store import DEFAULT_TTL_SECONDS, FileUpload
from jobs.models import File, FileChunk
from tenants.credentials import NewSite
from tests.api.calling import Caller, error_of
from tests.api.forms import BOUNDARY, FORM, LINE, PURPOSE, WHOLE, form, is_empty, part
from tests.factories import make_batch, make_file, make_job
from tests.request_signing import bearer, token


def post(desk: Caller, body: bytes, kind: str = FORM) -> HttpResponse:
    return desk.post("/v1/files", body, content_type=kind)


def read(answer: HttpResponse) -> dict[str, Any]:
    assert answer.status_code == 200, answer.content
    found: dict[str, Any] = json.loads(answer.content)
    return found


def problem(answer: HttpResponse) -> tuple[int, str, str | None]:
    error = error_of(answer)
    return answer.status_code, error["code"], error["param"]


def content(answer: HttpResponse) -> bytes:
    return cast(StreamingHttpResponse, answer).getvalue()


# Uploading


def test_a_file_is_uploaded_with_its_expiry(desk: Caller) -> None:
    kept = [part("expires_after[anchor]", b"created_at"), part("expires_after[seconds]", b"7200")]

    usual, short = (read(post(desk, form(PURPOSE, *more, part("file", LINE, "a.jsonl")))) for more in ([], kept))

    assert set(usual) == set(examples.FILE)
    assert usual["expires_at"] - usual["created_at"] == DEFAULT_TTL_SECONDS
    assert short["expires_at"] - short["created_at"] == 7200
    assert read(desk.get(f"/v1/files/{short['id']}")) == short
    assert content(desk.get(f"/v1/files/{short['id']}/content")) == LINE


@pytest.mark.parametrize(
    ("body", "expected", "words"),
    [
        (form(part("file", LINE, "a")), (400, "missing_required_parameter", "purpose"), "required"),
        (form(part("purpose", b"fine-tune"), part("file", LINE, "a")), (400, "invalid_value", "purpose"), "'batch'"),
        (form(PURPOSE), (400, "invalid_value", "file"), "no file"),
        (form(PURPOSE, part("file", LINE)), (400, "invalid_value", "file"), "with a filename"),
        (form(PURPOSE, part("file", LINE, "..")), (400, "invalid_value", "file"), "with a filename"),
        (form(PURPOSE, part("file", b"", "a")), (400, "invalid_value", "file"), "empty"),
        (form(PURPOSE, part("photo", LINE, "a")), (400, "invalid_value", "photo"), "`file`"),
        (form(PURPOSE, *[part("file", LINE, "a")] * 2), (400, "invalid_value", "file"), "more than one"),
        (form(PURPOSE, part("poem", b"x"), part("file", LINE, "a")), (400, "unknown_parameter", "poem"), "Unknown"),
        (form(PURPOSE, part("expires_after[anchor]", b"created_at"), part("file", LINE, "a")),
         (400, "missing_required_parameter", "expires_after[seconds]"), "together"),
        (form(PURPOSE, part("expires_after[anchor]", b"created_at"), part("expires_after[seconds]", b"3599"),
              part("file", LINE, "a")), (400, "invalid_value", "expires_after[seconds]"), "3600"),
        (form(PURPOSE, part("file", LINE * 20_000, "a"), end=""), (400, "malformed_body", "file"), "cut short"),
        (form(PURPOSE, part("file", LINE, "a"), end=f"--{BOUNDARY}"), (400, "malformed_body", "file"), "cut short"),
        (WHOLE[:-40], (400, "malformed_body", "file"), "cut short"),
        (form(*[part(f"f{n}", b"x") for n in range(1100)]), (400, "malformed_body", None), "too many fields"),
    ],
)  # fmt: skip
def test_an_invalid_upload_is_rejected_and_stores_nothing(
    desk: Caller, body: bytes, expected: tuple[int, str, str], words: str
) -> None:
    answer = post(desk, body)

    assert problem(answer) == expected
    assert words in error_of(answer)["message"]
    assert is_empty()


@pytest.mark.parametrize("kind", ["application/json", "application/octet-stream", "multipart/mixed; boundary=a", ""])
def test_a_body_that_is_not_multipart_is_rejected(desk: Caller, kind: str) -> None:
    assert problem(post(desk, WHOLE, kind)) == (415, "unsupported_media_type", None)


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; x"])
def test_a_form_without_a_boundary_is_rejected(desk: Caller, kind: str) -> None:
    assert problem(post(desk, WHOLE, kind))[:2] == (400, "malformed_body")


@pytest.mark.parametrize(("more", "accepted"), [(0, True), (1, False)])
def test_a_file_may_be_as_large_as_max_file_bytes_and_no_larger(
    desk: Caller, settings: Settings, more: int, accepted: bool
) -> None:
    settings.MAX_FILE_BYTES = 1_000_000

    answer = post(desk, form(PURPOSE, part("file", b"x" * (1_000_000 + more), "a")))

    assert answer.status_code == (200 if accepted else 413)
    if not accepted:
        assert problem(answer)[1] == "file_too_large"
        assert is_empty()


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (r"..\\..\\windows\\requests.jsonl", "requests.jsonl"),
        ("../../etc/requests.jsonl", "requests.jsonl"),
        ("re\x00que\x1bsts.jsonl", "requests.jsonl"),
        ("täglich 🌙.jsonl", "täglich 🌙.jsonl"),
        ("x" * 300, "x" * 255),
    ],
)
def test_the_path_of_a_filename_is_removed(desk: Caller, sent: str, kept: str) -> None:
    answer = post(desk, form(PURPOSE, part("file", LINE, sent)))

    assert read(answer)["filename"] == kept


def test_a_database_failure_during_an_upload_stores_nothing(desk: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(draft: FileUpload, filename: str, **how: Any) -> File:
        raise OperationalError("the connection was closed")

    monkeypatch.setattr(FileUpload, "finish", gone)

    answer = post(desk, WHOLE)

    assert problem(answer)[:2] == (503, "database_unavailable")
    assert is_empty()


# Access


def test_another_sites_file_is_not_found(desk: Caller, florist: NewSite) -> None:
    theirs = make_file(florist.site, LINE)

    for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        answer = desk.call(method, f"/v1/files/{theirs.public_id}{path}")
        assert problem(answer) == (404, "not_found", None)
    assert read(desk.get("/v1/files"))["data"] == []
    assert File.objects.count() == 1


def test_a_token_needs_the_scope_for_files(desk: Caller, bakery: NewSite) -> None:
    file = make_file(bakery.site, LINE)
    reads, writes = (bearer(token(bakery, scope=scope))["Authorization"] for scope in ("jobs:read", "jobs:write"))

    def status(method: str, path: str, authorization: str) -> int:
        return desk.call(method, f"/v1/files{path}", authorization=authorization).status_code

    assert status("GET", "", writes) == 403
    assert status("GET", f"/{file.public_id}", writes) == 403
    assert status("GET", f"/{file.public_id}/content", writes) == 403
    assert status("DELETE", f"/{file.public_id}", reads) == 403
    assert status("GET", f"/{file.public_id}/content", reads) == 200
    assert status("DELETE", f"/{file.public_id}", writes) == 200


# Listing, deleting, downloading


def test_files_are_listed_in_pages_in_both_orders(desk: Caller, bakery: NewSite) -> None:
    one, two, three = (make_file(bakery.site, LINE).public_id for _ in range(3))
    make_file(bakery.site, LINE, expires_at=clock.now() - timedelta(seconds=1))

    def page(query: str) -> tuple[list[str], bool]:
        found = read(desk.get(f"/v1/files?{query}"))
        ids = [file["id"] for file in found["data"]]
        assert (found["first_id"], found["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))
        return ids, found["has_more"]

    assert page("") == ([three, two, one], False)
    assert page("limit=2") == ([three, two], True)
    assert page(f"limit=2&after={two}") == ([one], False)
    assert page(f"order=asc&after={one}&limit=1") == ([two], True)
    assert page("purpose=batch_output") == ([], False)
    for wrong in ("limit=0", "limit=10001", "order=up", "purpose=vision", "page=2"):
        assert desk.get(f"/v1/files?{wrong}").status_code == 400


def test_a_file_is_deleted_with_its_content_unless_a_batch_needs_it(desk: Caller, bakery: NewSite) -> None:
    file = make_file(bakery.site, LINE)
    batch = make_batch(bakery.site, state="validating", input_file=file)

    refused = desk.call("DELETE", f"/v1/files/{file.public_id}")
    type(batch).objects.update(state="in_progress")
    deleted = desk.call("DELETE", f"/v1/files/{file.public_id}")

    assert problem(refused) == (409, "file_in_use", None)
    assert batch.public_id in error_of(refused)["message"]
    assert read(deleted) == {"id": file.public_id, "object": "file", "deleted": True}
    assert is_empty()
    assert type(batch).objects.get().input_file_id is None


def test_output_files_are_generated_from_the_results_of_a_batch(desk: Caller, bakery: NewSite) -> None:
    output, errors, orphan = (make_file(bakery.site, purpose="batch_output", bytes=1) for _ in range(3))
    batch = make_batch(bakery.site, state="completed", output_file=output, error_file=errors)
    ended = {"batch": batch, "finished_at": clock.now()}
    make_job(bakery.site, **ended, custom_id="good", state="succeeded", result=b'{"id":"1"}')
    make_job(bakery.site, **ended, custom_id="bad", state="failed", error_code="rejected")

    good, bad, gone = (desk.get(f"/v1/files/{file.public_id}/content") for file in (output, errors, orphan))

    assert [json.loads(line)["custom_id"] for line in content(good).splitlines()] == ["good"]
    assert [json.loads(line)["custom_id"] for line in content(bad).splitlines()] == ["bad"]
    assert problem(gone)[:2] == (409, "file_unreadable")


def test_downloading_an_unreadable_file_gets_409(desk: Caller, bakery: NewSite) -> None:
    file = make_file(bakery.site, LINE)
    FileChunk.objects.all().delete()

    assert problem(desk.get(f"/v1/files/{file.public_id}/content"))[:2] == (409, "file_unreadable")


def test_head_of_a_files_content_returns_its_length(desk: Caller, bakery: NewSite) -> None:
    file = make_file(bakery.site, LINE, LINE)

    answer = desk.call("HEAD", f"/v1/files/{file.public_id}/content")

    assert (answer.status_code, answer["Content-Length"]) == (200, str(2 * len(LINE)))
