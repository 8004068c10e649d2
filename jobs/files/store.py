"""Stores and deletes files: encrypted chunks in one transaction, so that no reader sees half a file."""

from datetime import timedelta
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.models.functions import Now

from core.ids import new_uuid
from jobs.errors import FileInUse, FileTooLarge, InvalidFile
from jobs.files.read import find_file
from jobs.models import Batch, BatchState, File, FileChunk, FilePurpose
from tenants.models import Site

#: A chunk is encrypted and decrypted as a whole, so this is the memory that a file needs.
CHUNK_BYTES = 512 * 1024
DEFAULT_TTL_SECONDS = 30 * 24 * 3600
MAX_FILENAME_LENGTH = 255

COPY = "COPY jobs_filechunk (file_id, number, content) FROM STDIN (FORMAT BINARY)"
CONTENT_FIELD = FileChunk._meta.get_field("content")


class FileUpload:
    """A file whose content is still being uploaded. It belongs to the caller's transaction."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._id: UUID = new_uuid()
        self._chunks = 0
        self.bytes = 0

    def write(self, chunk: bytes) -> None:
        """Store the next chunk. Raises `FileTooLarge`."""
        self.bytes += len(chunk)
        if self.bytes > settings.MAX_FILE_BYTES:
            raise FileTooLarge(settings.MAX_FILE_BYTES)
        # One statement per chunk: all together could exceed the statement timeout. Binary COPY, which the ORM lacks.
        with connection.wrap_database_errors, connection.cursor() as cursor, cursor.copy(COPY) as copy:
            copy.set_types(["uuid", "int4", "bytea"])
            copy.write_row((self._id, self._chunks, CONTENT_FIELD.encrypt(chunk)))
        self._chunks += 1

    def finish(self, filename: str, *, ttl_seconds: int | None = None) -> File:
        """Create the input file of a batch from the written chunks. Raises `InvalidFile` if it is empty."""
        if not self.bytes:
            raise InvalidFile("The file is empty.")
        file = File.objects.create(
            id=self._id,
            site=self._site,
            purpose=FilePurpose.BATCH,
            filename=filename[:MAX_FILENAME_LENGTH],
            bytes=self.bytes,
            expires_at=Now() + timedelta(seconds=ttl_seconds or DEFAULT_TTL_SECONDS),
        )
        file.refresh_from_db()
        return file


def delete_file(site: Site, public_id: str) -> None:
    """Delete a file with its content.

    Raises:
        FileNotFound: no file of this site has that id.
        FileInUse: a batch has not read it yet.
    """
    with transaction.atomic():
        # A concurrent creation of a batch from it waits for this lock, and then finds no file.
        file = find_file(site, public_id, lock=True)
        waiting = Batch.objects.filter(input_file=file, state=BatchState.VALIDATING).first()
        if waiting is not None:
            raise FileInUse(waiting.public_id)
        file.delete()
