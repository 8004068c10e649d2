"""Reading files: lines out of chunks, limits, and only files of the same site."""

from datetime import timedelta

import pytest
from django.db import connection
from pytest_django import Settings

from core import clock
from jobs.errors import FileNotFound, LineTooLong, UnreadableFile
from jobs.files.read import LINE_OVERHEAD_BYTES, find_file, iter_chunks, iter_lines
from jobs.models import FileChunk
from tenants.models import Site
from tests.factories import make_file, make_site


def read_lines(site: Site, *parts: bytes) -> list[bytes]:
    return list(iter_lines(make_file(site, *parts)))


@pytest.mark.parametrize(
    ("parts", "found"),
    [
        ((b"one\ntwo\n",), [b"one", b"two"]),
        ((b"one\ntwo",), [b"one", b"two"]),
        ((b"one\r\ntwo\r\n",), [b"one", b"two"]),
        ((b"one\r", b"\ntwo\r"), [b"one", b"two"]),
        ((b"on", b"e", b"\nt", b"wo"), [b"one", b"two"]),
        ((b"one\n", b"two\n"), [b"one", b"two"]),
        ((b"one\n\n\ntwo\n\n",), [b"one", b"", b"", b"two", b""]),
        ((b"\xef\xbb\xbfone\n\xef\xbb\xbftwo",), [b"one", b"\xef\xbb\xbftwo"]),
        ((b"\xef\xbb", b"\xbfone"), [b"one"]),
        (("ü".encode()[:1], "ü\n".encode()[1:]), ["ü".encode()]),
        ((b"\n",), [b""]),
        ((), []),
    ],
)
def test_lines_are_complete_wherever_the_chunks_end(site: Site, parts: tuple[bytes, ...], found: list[bytes]) -> None:
    assert read_lines(site, *parts) == found


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_line_may_be_as_long_as_a_job_body_with_overhead(site: Site, settings: Settings, end: bytes) -> None:
    settings.MAX_BODY_BYTES = 1024
    longest = b"x" * (1024 + LINE_OVERHEAD_BYTES)

    assert read_lines(site, longest[:1000], longest[1000:] + end) == [longest]
    with pytest.raises(LineTooLong, match=r"Line 2 is longer than 3,072 bytes, the maximum\."):
        read_lines(site, b"short\n", longest[:1000], longest[1000:] + b"x" + end)


def test_an_endless_line_is_read_only_up_to_the_limit(site: Site, settings: Settings) -> None:
    settings.MAX_BODY_BYTES = 1024
    file = make_file(site, *(b"x" * 1000 for _ in range(50)))
    # Reading further would find this chunk broken.
    FileChunk.objects.filter(file=file, number=10).delete()

    with pytest.raises(LineTooLong):
        list(iter_lines(file))


def test_an_expired_file_and_another_sites_file_are_not_found(site: Site) -> None:
    now = clock.now()
    own, theirs = make_file(site, b"own"), make_file(make_site("florist"), b"theirs")
    expired = make_file(site, b"old", expires_at=now - timedelta(seconds=1))
    kept = make_file(site, b"new", expires_at=now + timedelta(minutes=1))

    assert find_file(site, own.public_id) == own
    assert find_file(site, kept.public_id) == kept
    for missing in (theirs.public_id, expired.public_id, own.public_id[:-1], "file-abc", ""):
        with pytest.raises(FileNotFound):
            find_file(site, missing)


def test_a_file_with_a_missing_chunk_raises_unreadable_file(site: Site) -> None:
    file = make_file(site, b"one\n", b"two\n", b"three\n")
    FileChunk.objects.filter(file=file, number=2).delete()

    found = iter_chunks(file)
    assert (next(found), next(found)) == (b"one\n", b"two\n")
    with pytest.raises(UnreadableFile):
        next(found)


def test_a_chunk_that_cannot_be_decrypted_raises_unreadable_file(site: Site) -> None:
    file = make_file(site, b"one\n")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE jobs_filechunk SET content = %s", [b"not encrypted"])

    with pytest.raises(UnreadableFile):
        list(iter_lines(file))


def test_content_is_encrypted_in_the_database(site: Site) -> None:
    make_file(site, b"a product description")

    with connection.cursor() as cursor:
        cursor.execute("SELECT content FROM jobs_filechunk")
        (encrypted,) = cursor.fetchone()

    assert b"product" not in bytes(encrypted)
