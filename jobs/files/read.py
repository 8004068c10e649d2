"""Reads files, always within one site, and chunk by chunk: a whole file is never in memory."""

from collections.abc import Iterator
from itertools import count

from django.conf import settings
from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from core.crypto import TamperedCiphertext
from core.ids import InvalidId, from_public
from jobs.errors import FileNotFound, LineTooLong, UnreadableFile
from jobs.models import File, FileChunk
from tenants.models import Site

#: The maximum size of what surrounds a job's body in a line of a batch.
LINE_OVERHEAD_BYTES = 2048
#: Some editors put it at the beginning of a text file.
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def files_of(site: Site) -> QuerySet[File]:
    """Return the site's files, without those that have expired and are not deleted yet."""
    return File.objects.filter(Q(expires_at=None) | Q(expires_at__gt=Now()), site=site)


def find_file(site: Site, public_id: str, *, lock: bool = False) -> File:
    """Return the site's file. Raises `FileNotFound`, also for another site's, an expired one and a malformed id."""
    try:
        file_id = from_public(File.ID_PREFIX, public_id)
    except InvalidId:
        raise FileNotFound from None
    files = files_of(site)
    file = (files.select_for_update() if lock else files).filter(id=file_id).first()
    if file is None:
        raise FileNotFound
    return file


def iter_chunks(file: File) -> Iterator[bytes]:
    """Yield the content of an uploaded file. No transaction or cursor is open between two chunks.

    Raises:
        UnreadableFile: a chunk is missing (the file was deleted meanwhile) or broken.
        UnknownEncryptionKey: a chunk was encrypted with a key that this process does not have; another may.
    """
    read = 0
    for number in count():
        if (piece := _read_chunk(file, number)) is None:
            break
        read += len(piece)
        yield piece
    if read != file.bytes:
        raise UnreadableFile(file.public_id)


def iter_lines(file: File) -> Iterator[bytes]:
    """Yield the lines of an uploaded file without line ends. Empty lines are included, so that they can be counted.

    Raises:
        LineTooLong: a line is longer than a job's body and `LINE_OVERHEAD_BYTES`.
        UnreadableFile: as `iter_chunks`.
    """
    longest = settings.MAX_BODY_BYTES + LINE_OVERHEAD_BYTES
    for number, line in enumerate(_split_lines(iter_chunks(file), longest), 1):
        if len(line) > longest:
            raise LineTooLong(number, longest)
        yield line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line


def _read_chunk(file: File, number: int) -> bytes | None:
    contents = FileChunk.objects.filter(file_id=file.id, number=number).values_list("content", flat=True)
    try:
        return next((bytes(content) for content in contents), None)
    except TamperedCiphertext as error:
        raise UnreadableFile(file.public_id) from error


def _split_lines(chunks: Iterator[bytes], longest: int) -> Iterator[bytes]:
    """Yield lines. A line longer than `longest` is cut a little after that, and is the last one."""
    rest = b""
    for chunk in chunks:
        *complete, rest = (rest + chunk).split(b"\n")
        for line in complete:
            yield line.removesuffix(b"\r")
        if len(rest) > longest + 1:
            break
    if rest:
        yield rest.removesuffix(b"\r")
