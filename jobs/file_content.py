"""The content of any file: uploaded, or generated from the members of a batch."""

from collections.abc import Iterator

from jobs.batches.results import error_lines, output_lines
from jobs.errors import UnreadableFile
from jobs.files.read import iter_chunks
from jobs.models import Batch, File, FilePurpose


def content_of(file: File) -> Iterator[bytes]:
    """Yield the content in chunks or line by line. Raises `UnreadableFile`."""
    if file.purpose == FilePurpose.BATCH:
        return iter_chunks(file)
    if batch := Batch.objects.filter(output_file=file).first():
        return output_lines(batch)
    if batch := Batch.objects.filter(error_file=file).first():
        return error_lines(batch)
    raise UnreadableFile(file.public_id)
