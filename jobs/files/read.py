"""Read files, always within one site, and piece by piece: a file is never whole in memory."""

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

#: What stands around a job's body in a line of a batch.
LINE_OVERHEAD_BYTES = 2048
#: Some editors begin a text with it.
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def files_of(site: Site) -> QuerySet[File]:
    """Return the site's files, without those that expired and are not swept away yet."""
    return File.objects.filter(Q(expires_at=None) | Q(expires_at__gt=Now()), site=site)


def find_file(site: Site, public_id: str, *, lock: bool = False) -> File:
    """Return the site's file. Raises `FileNotFound`, also for another site's, an expired one and nonsense."""
    try:
        wanted = from_public(File.ID_PREFIX, public_id)
    except InvalidId:
        raise FileNotFound from None
    files = files_of(site)
    file = (files.select_for_update() if lock else files).filter(id=wanted).first()
    if file is None:
        raise FileNotFound
    return file


def iter_chunks(file: File) -> Iterator[bytes]:
    """Yield the content of an uploaded file. Nothing is held in the database from one piece to the next.

    Raises:
        UnreadableFile: a piece is missing (the file was deleted meanwhile) or broken.
        UnknownKey: a piece was sealed with a key that this process does not have, and another may.
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
    """Yield the lines of an uploaded file without their ends, empty ones included, so that they can be counted.

    Raises:
        LineTooLong: a line is longer than a job's body may be, by more than stands around it.
        UnreadableFile: as `iter_chunks`.
    """
    longest = settings.MAX_BODY_BYTES + LINE_OVERHEAD_BYTES
    for number, line in enumerate(_split_lines(iter_chunks(file), longest), 1):
        if len(line) > longest:
            raise LineTooLong(number, longest)
        yield line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line


def _read_chunk(file: File, number: int) -> bytes | None:
    found = FileChunk.objects.filter(file_id=file.id, number=number).values_list("content", flat=True)
    try:
        return next((bytes(content) for content in found), None)
    except TamperedCiphertext as error:
        raise UnreadableFile(file.public_id) from error


def _split_lines(found: Iterator[bytes], longest: int) -> Iterator[bytes]:
    """Yield lines. One longer than the longest is cut after a little more than that, and is the last."""
    rest = b""
    for piece in found:
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r")
        if len(rest) > longest + 1:
            break
    if rest:
        yield rest.removesuffix(b"\r")
