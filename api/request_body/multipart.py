"""Parser of multipart forms with one file, which is stored chunk by chunk and never held in memory as a whole."""

from io import BufferedIOBase
from typing import IO, Any

from django.core.exceptions import SuspiciousOperation
from django.core.files.uploadhandler import FileUploadHandler
from django.http import HttpRequest, QueryDict
from django.http.multipartparser import MultiPartParser, MultiPartParserError
from django.utils.http import parse_header_parameters

from api.errors import MalformedBody, NotMultipart
from jobs.errors import InvalidFile
from jobs.files.store import CHUNK_BYTES, FileUpload

#: Bytes that may follow the last boundary of a form.
MAX_EPILOGUE_BYTES = 1024


def read_form(request: HttpRequest, draft: FileUpload) -> tuple[QueryDict, str]:
    """Write the file of the form to the draft; return the other fields and the file's name.

    Raises:
        NotMultipart: the body has another content type.
        MalformedBody: the form is not complete, or the client disconnected.
        InvalidFile: the form has no file, or more than one.
        FileTooLarge: the file exceeds MAX_FILE_BYTES.
    """
    kind, parameters = parse_header_parameters(request.META.get("CONTENT_TYPE", ""))
    if kind != "multipart/form-data":
        raise NotMultipart("Send a form that contains the file: Content-Type: multipart/form-data.")
    body, part = _TrackedBody(request), _FileWriter(draft)
    fields = _parse(request, body, part)
    if not body.ends_with(f"--{parameters.get('boundary')}--".encode()):
        raise MalformedBody("The form ends before its last boundary: the upload was cut short. Send it again.", "file")
    if part.filename is None:
        raise InvalidFile("The form contains no file; send one in the field `file`, with a filename.")
    return fields, part.filename


def _parse(request: HttpRequest, body: "_TrackedBody", part: "_FileWriter") -> QueryDict:
    try:
        fields, _ = MultiPartParser(request.META, body, [part], "utf-8").parse()
    except MultiPartParserError as error:
        raise MalformedBody(f"The form cannot be read: {error}") from error
    except SuspiciousOperation as error:
        raise MalformedBody("The form has too many fields.") from error
    except ValueError as error:
        if not body.is_disconnected:
            raise
        raise MalformedBody("The client disconnected.") from error
    return fields


class _TrackedBody(BufferedIOBase):
    """The request's body, which keeps its last bytes to detect a truncated form."""

    def __init__(self, request: HttpRequest) -> None:
        self._request = request
        self._end = b""

    def read(self, size: int | None = -1, /) -> bytes:
        data = self._request.read(-1 if size is None else size)
        self._end = (self._end + data)[-MAX_EPILOGUE_BYTES:]
        return data

    def ends_with(self, delimiter: bytes) -> bool:
        return delimiter in self._end

    @property
    def is_disconnected(self) -> bool:
        # When the client disconnects, the web server closes the stream while this thread reads it.
        stream: IO[bytes] | None = getattr(self._request, "_stream", None)
        return stream is not None and stream.closed


class _FileWriter(FileUploadHandler):
    """Upload handler of Django's form parser: it writes the form's file to the draft."""

    chunk_size = CHUNK_BYTES

    def __init__(self, draft: FileUpload) -> None:
        super().__init__()
        self._draft = draft
        self.filename: str | None = None

    def new_file(self, field_name: str, file_name: str, *args: Any, **kwargs: Any) -> None:
        if field_name != "file":
            raise InvalidFile("Send the file in the field `file`; other fields cannot have files.", field_name[:60])
        if self.filename is not None:
            raise InvalidFile("The form contains more than one file; send each in a request of its own.")
        self.filename = file_name

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        self._draft.write(raw_data)

    def file_complete(self, file_size: int) -> None:
        return None
