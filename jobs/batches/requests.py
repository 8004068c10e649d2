"""Parses the requests of a batch: each line of a file, or item of a posted list, becomes one member.

This is a hot path: a batch may have fifty thousand requests.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
from django.conf import settings

from core import strict_json
from inference.errors import RequestTooLong, UnknownModel
from jobs.errors import MAX_ISSUES, BatchIssue, InvalidBatch, InvalidBody, LineTooLong
from jobs.files.read import LINE_OVERHEAD_BYTES
from jobs.models import JobKind
from jobs.payload import encode_body
from jobs.permit import permit_body
from providers.types import InferenceRequest
from tenants.errors import ModelNotAllowed
from tenants.grant import UNRESTRICTED, Grant
from tenants.models import Site

MAX_MEMBERS = 50_000
#: Of a file, including blank lines: two hundred megabytes of them would keep a reader busy for minutes.
MAX_LINES = 1_000_000
MAX_CUSTOM_ID_LENGTH = 200

#: The endpoints of batches, and the kind of their members.
ENDPOINTS = {
    "/v1/chat/completions": JobKind.CHAT,
    "/v1/embeddings": JobKind.EMBEDDINGS,
    "/v1/messages": JobKind.MESSAGES,
}
ENDPOINT_OF = {kind: endpoint for endpoint, kind in ENDPOINTS.items()}

REQUIRED = ("custom_id", "method", "url", "body")


class RequestLine(msgspec.Struct, forbid_unknown_fields=True):
    """One request as submitted. Posted requests may omit method and url, which the batch's endpoint implies."""

    custom_id: str
    body: msgspec.Raw
    method: str | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True)
class BatchRules:
    """What the requests of one batch are checked against."""

    site: Site
    kind: JobKind
    grant: Grant = UNRESTRICTED


@dataclass(frozen=True, slots=True)
class BatchMember:
    """One valid request. `payload` is the plaintext of the encrypted column."""

    custom_id: str
    model: str
    #: The provider of the first target: see `Job.provider`.
    provider: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class ParsedMember:
    """A member, and its request in neutral form, which is not kept: there may be fifty thousand."""

    member: BatchMember
    request: InferenceRequest


class BatchRequestRejected(Exception):
    """This request is invalid; the reader continues with the next one."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.issue = BatchIssue(code, message, param)


class BatchRequestReader:
    """Reads the requests of one batch, one after the other, and collects issues with them."""

    def __init__(self, rules: BatchRules) -> None:
        self.issues: list[BatchIssue] = []
        #: The requested models.
        self.models: set[str] = set()
        self._rules = rules
        self._url = ENDPOINT_OF[rules.kind]
        self._seen: set[str] = set()

    def read_lines(self, lines: Iterable[bytes]) -> Iterator[ParsedMember]:
        """Yield a member for each line of a file, up to the first issue. After that it only looks for more issues.

        Blank lines are skipped, but count in line numbers.
        """
        try:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield from self._take(line, is_line=True, prefix="", line=number)
                if self._has_enough():
                    return
                if number > MAX_LINES:
                    message = f"A file has at most {MAX_LINES:,} lines, including blank ones."
                    self.issues.append(BatchIssue("too_many_lines", message, line=number))
                    return
        except LineTooLong as error:
            self.issues.append(BatchIssue("line_too_long", str(error), line=error.line))

    def read_list(self, items: Iterable[msgspec.Raw]) -> Iterator[ParsedMember]:
        """Yield a member for each item of a posted list, up to the first issue; see `read_lines`."""
        for index, item in enumerate(items):
            yield from self._take(item, is_line=False, prefix=f"requests.{index}", line=None)
            if self._has_enough():
                return

    def check(self) -> None:
        """Raise `InvalidBatch` if there were issues, or no requests."""
        if not self.issues and not self._seen:
            self.issues.append(BatchIssue("empty_batch", "The batch contains no requests; it needs at least one."))
        if self.issues:
            raise InvalidBatch(self.issues)

    def _take(
        self, data: bytes | msgspec.Raw, *, is_line: bool, prefix: str, line: int | None
    ) -> Iterator[ParsedMember]:
        try:
            parsed = self._read(data, is_line)
        except BatchRequestRejected as error:
            issue = error.issue
            param = ".".join(filter(None, (prefix, issue.param))) or None
            self.issues.append(BatchIssue(issue.code, issue.message, param, line))
            return
        if not self.issues:
            yield parsed

    def _has_enough(self) -> bool:
        return len(self.issues) >= MAX_ISSUES or len(self._seen) > MAX_MEMBERS

    def _read(self, data: bytes | msgspec.Raw, is_line: bool) -> ParsedMember:
        line = _parse(data)
        self._check_custom_id(line.custom_id)
        self._check_address(line, is_line)
        body = _parse_body(line.body)
        _check_strictly(data)
        try:
            permitted = permit_body(self._rules.site, self._rules.grant, self._rules.kind, body)
        except InvalidBody as error:
            raise BatchRequestRejected(
                "invalid_value", str(error), f"body.{error.param}" if error.param else "body"
            ) from error
        except ModelNotAllowed as error:
            raise BatchRequestRejected(error.code, str(error), "body.model") from error
        except UnknownModel as error:
            raise BatchRequestRejected("model_not_found", str(error), "body.model") from error
        except RequestTooLong as error:
            raise BatchRequestRejected("context_length_exceeded", str(error), f"body.{error.param}") from error
        request = permitted.request
        self.models.add(request.model)
        return ParsedMember(
            BatchMember(line.custom_id, request.model, permitted.provider, encode_body(permitted.body)), request
        )

    def _check_custom_id(self, custom_id: str) -> None:
        if not 1 <= len(custom_id) <= MAX_CUSTOM_ID_LENGTH or not custom_id.isprintable():
            raise BatchRequestRejected(
                "invalid_value", f"Must be 1 to {MAX_CUSTOM_ID_LENGTH} printable characters.", "custom_id"
            )
        if custom_id in self._seen:
            raise BatchRequestRejected(
                "duplicate_custom_id",
                f"The custom_id {custom_id[:60]!r} is already used in this batch.",
                "custom_id",
            )
        self._seen.add(custom_id)
        if len(self._seen) > MAX_MEMBERS:
            raise BatchRequestRejected("too_many_requests", f"A batch has at most {MAX_MEMBERS:,} requests.")

    def _check_address(self, line: RequestLine, is_line: bool) -> None:
        for name, value, expected, code in (
            ("method", line.method, "POST", "invalid_method"),
            ("url", line.url, self._url, "invalid_url"),
        ):
            if value is None and is_line:
                raise _missing(name)
            if value is not None and value != expected:
                raise BatchRequestRejected(
                    code, f"Must be {expected!r}, the endpoint of the batch; got {value[:60]!r}.", name
                )


#: Created at import: two threads that create the first decoder of a type at the same time crash the process.
_decoder = msgspec.json.Decoder(RequestLine)


def _parse(data: bytes | msgspec.Raw) -> RequestLine:
    longest = settings.MAX_BODY_BYTES + LINE_OVERHEAD_BYTES
    if len(memoryview(data)) > longest:
        raise BatchRequestRejected("line_too_long", f"A request has at most {longest:,} bytes.")
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise _explain_malformed(data, error) from error


def _check_strictly(data: bytes | msgspec.Raw) -> None:
    try:
        strict_json.check_unambiguous(bytes(data).decode())
    except (strict_json.AmbiguousJson, RecursionError) as error:
        raise BatchRequestRejected("invalid_json_line", str(error)) from error


def _explain_malformed(data: bytes | msgspec.Raw, error: Exception) -> BatchRequestRejected:
    """Return the error for a request that is not a valid `RequestLine`."""
    try:
        decoded = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return BatchRequestRejected("invalid_json_line", "This is not JSON in UTF-8.")
    if not isinstance(decoded, dict):
        return BatchRequestRejected("invalid_json_line", "Must be a JSON object with custom_id, method, url and body.")
    for name in ("custom_id", "body"):
        if name not in decoded:
            return _missing(name)
    if unknown := sorted(set(decoded) - set(REQUIRED)):
        known = ", ".join(REQUIRED)
        return BatchRequestRejected(
            "unknown_parameter", f"Unknown field. Known fields: {known}.", repr(unknown[0][:60])[1:-1]
        )
    return BatchRequestRejected(
        "invalid_value", "custom_id, method and url must be strings.", _first_not_string(decoded)
    )


def _first_not_string(decoded: dict[str, Any]) -> str | None:
    return next((name for name in ("custom_id", "method", "url") if not isinstance(decoded.get(name, ""), str)), None)


def _missing(name: str) -> BatchRequestRejected:
    return BatchRequestRejected("missing_required_parameter", f"Missing required parameter: {name!r}.", name)


def _parse_body(raw: msgspec.Raw) -> dict[str, Any]:
    try:
        return msgspec.json.decode(raw, type=dict[str, Any])
    except msgspec.ValidationError as error:
        if bytes(raw).lstrip().startswith(b"{"):
            raise BatchRequestRejected(
                "invalid_value", "The body contains a number that is too large.", "body"
            ) from error
        raise BatchRequestRejected(
            "invalid_value", "Must be an object: the body of a request to the endpoint.", "body"
        ) from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise BatchRequestRejected("invalid_json_line", "This is not JSON in UTF-8.", "body") from error
