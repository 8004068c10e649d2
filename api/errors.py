"""What went wrong, as it is told. The only place that knows HTTP status codes of errors.

How a problem is then written down, `api.error_answers` says for Django, and `api.live.answer` for the live path.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import IntegrityError, InterfaceError, OperationalError
from django.http import Http404
from psycopg.errors import DiskFull
from rest_framework import exceptions as drf

from core.redis import RedisAway
from inference.errors import NoProvider, RequestTooLong, UnknownModel
from jobs.batches.mistakes import Mistake
from jobs.errors import (
    BatchEnded,
    BatchMissing,
    BatchNotRetryable,
    ErasedPayload,
    FileInUse,
    FileMissing,
    FileTooLarge,
    IdempotencyConflict,
    InvalidBatch,
    InvalidBody,
    InvalidTime,
    JobEnded,
    JobNotFound,
    LineTooLong,
    NotReplayable,
    PausedByOperator,
    UnfitFile,
    UnreadableFile,
    UnreadablePayload,
)
from providers.dialects.errors import InvalidRequest
from providers.errors import (
    ContentRefused,
    ContextTooLong,
    CredentialDead,
    Interrupted,
    ModelNotFound,
    Overloaded,
    ProviderError,
    RateLimited,
    Rejected,
    TimedOut,
    Transient,
    Unsupported,
)
from streams.errors import (
    CursorAhead,
    CursorExpired,
    CursorForeign,
    CursorMalformed,
    NeverBegan,
    Orphaned,
    StreamsClosed,
    StreamUnknown,
)
from tenants.errors import Forbidden, Unauthenticated
from webhooks.errors import TooManyEndpoints, UnknownEventType, UnsafeUrl

INVALID = "invalid_request_error"
UNAUTHENTICATED = "authentication_error"
FORBIDDEN = "permission_error"
NOT_FOUND = "not_found_error"
CONFLICT = "conflict_error"
BROKEN = "server_error"
UNAVAILABLE = "service_unavailable_error"
LIMITED = "rate_limit_error"

#: With these the rest of the body is not waited for.
CUTTING = (408, 413, 507)
#: When to come back, where we do not know better.
RETRY_AFTER_SECONDS = 5


class ApiError(Exception):
    """What only the edge can find wrong.

    * ApiError
      + Malformed        the body is not JSON as we take it; carries `param`
      + NotAForm         the body should be a form, with a file in it
      + TooLarge         the body is larger than its address allows (`api.body_limit`)
      + Unread           the body is not read to its end (`api.reading`)
        - TooSlow        its client keeps us waiting
        - TooManyUnproven   too much is kept already for clients that have not proven who they are
        - NoRoom         there is no room for it on the disk, here or in Postgres
      + ResourceNotFound no such resource of this site, or no such address
      + NotReady         something this desk needs does not answer
      + LimitReached     a limit of the site is used up for now (the live path)
        - TooManyAtOnce  as many of its requests are under way as may be
      + Draining         this process is about to stop
      + NoFastMemory     Redis is away, and nothing is let in without it
    """


class Malformed(ApiError):
    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class NotAForm(ApiError): ...


class TooLarge(ApiError): ...


class Unread(ApiError): ...


class TooSlow(Unread): ...


class TooManyUnproven(Unread):
    def __init__(self) -> None:
        super().__init__(
            "Too many signed uploads are under way at once. Try again soon, or send an API key or a token, which is "
            "checked before the upload."
        )


class NoRoom(Unread):
    def __init__(self) -> None:
        super().__init__("The desk has no room to store this, and kept nothing of it. Its operator has to see to that.")


class ResourceNotFound(ApiError): ...


class NotReady(ApiError): ...


class LimitReached(ApiError):
    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class TooManyAtOnce(LimitReached): ...


class Draining(ApiError):
    def __init__(self) -> None:
        super().__init__("This process of the desk is about to stop. Ask again: another one answers.")


class NoFastMemory(ApiError):
    def __init__(self) -> None:
        super().__init__("The desk cannot count requests at the moment, and lets none in uncounted. Try again soon.")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. An absent code is the error's own, and so is an absent message."""

    status: int
    type: str
    code: str | None = None
    message: str | None = None


#: From exception class to answer; the closest ancestor of an error counts.
TABLE: Mapping[type[BaseException], Row] = {
    # The edge
    Malformed: Row(400, INVALID, "malformed_body"),
    NotAForm: Row(415, INVALID, "unsupported_media_type"),
    TooLarge: Row(413, INVALID, "body_too_large"),
    TooSlow: Row(408, INVALID, "request_timeout"),
    TooManyUnproven: Row(503, UNAVAILABLE, "too_many_uploads"),
    NoRoom: Row(507, BROKEN, "storage_full"),
    ResourceNotFound: Row(404, NOT_FOUND, "not_found"),
    NotReady: Row(503, UNAVAILABLE, "not_ready"),
    LimitReached: Row(429, LIMITED, "rate_limit_exceeded"),
    TooManyAtOnce: Row(429, LIMITED, "too_many_at_once"),
    Draining: Row(503, UNAVAILABLE, "stopping"),
    NoFastMemory: Row(503, UNAVAILABLE, "not_ready"),
    InvalidRequest: Row(400, INVALID),
    # Providers, on the live path
    ProviderError: Row(502, BROKEN, "upstream_error"),
    Rejected: Row(400, INVALID, "rejected"),
    ModelNotFound: Row(404, INVALID, "model_not_found"),
    ContextTooLong: Row(400, INVALID, "context_length_exceeded"),
    Unsupported: Row(400, INVALID, "unsupported_value"),
    ContentRefused: Row(400, INVALID, "content_policy_violation"),
    CredentialDead: Row(503, UNAVAILABLE, "no_provider", "No provider lets this desk in; tell its operator."),
    RateLimited: Row(429, LIMITED, "rate_limit_exceeded"),
    Overloaded: Row(503, UNAVAILABLE, "server_is_overloaded"),
    TimedOut: Row(504, BROKEN, "upstream_timeout"),
    Interrupted: Row(502, BROKEN, "upstream_stream_interrupted"),
    # Streams
    StreamUnknown: Row(404, NOT_FOUND, "not_found"),
    Orphaned: Row(502, BROKEN, "stream_lost", "The process that served this stream is gone; it has no end."),
    NeverBegan: Row(502, BROKEN, "stream_lost"),
    StreamsClosed: Row(503, UNAVAILABLE, "stopping"),
    CursorMalformed: Row(400, INVALID, "stream_cursor_malformed"),
    CursorForeign: Row(400, INVALID, "stream_cursor_foreign"),
    CursorAhead: Row(409, CONFLICT, "stream_cursor_ahead"),
    CursorExpired: Row(409, CONFLICT, "stream_cursor_expired"),
    RedisAway: Row(503, UNAVAILABLE, "not_ready", "The desk's fast memory does not answer; try again soon."),
    drf.ValidationError: Row(400, INVALID, "invalid_value"),
    drf.ParseError: Row(400, INVALID, "malformed_body"),
    drf.UnsupportedMediaType: Row(415, INVALID, "unsupported_media_type", "Send JSON: Content-Type: application/json."),
    drf.MethodNotAllowed: Row(405, INVALID, "method_not_allowed"),
    drf.NotFound: Row(404, NOT_FOUND, "not_found"),
    drf.PermissionDenied: Row(403, FORBIDDEN, "forbidden"),
    # Who asks
    Unauthenticated: Row(401, UNAUTHENTICATED),
    Forbidden: Row(403, FORBIDDEN),
    # Jobs
    InvalidBody: Row(400, INVALID, "invalid_value"),
    InvalidTime: Row(400, INVALID, "invalid_value"),
    UnreadablePayload: Row(409, CONFLICT, "job_unreadable"),
    ErasedPayload: Row(409, CONFLICT, "job_erased"),
    UnknownModel: Row(404, INVALID, "model_not_found"),
    RequestTooLong: Row(400, INVALID, "context_length_exceeded"),
    NoProvider: Row(503, UNAVAILABLE, "no_provider"),
    IdempotencyConflict: Row(422, INVALID, "idempotency_key_reused"),
    JobNotFound: Row(404, NOT_FOUND, "not_found"),
    JobEnded: Row(409, CONFLICT, "job_ended"),
    NotReplayable: Row(409, CONFLICT, "job_not_replayable"),
    # Files
    FileMissing: Row(404, NOT_FOUND, "not_found"),
    FileInUse: Row(409, CONFLICT, "file_in_use"),
    UnreadableFile: Row(409, CONFLICT, "file_unreadable"),
    LineTooLong: Row(400, INVALID, "line_too_long"),
    UnfitFile: Row(400, INVALID, "invalid_value"),
    FileTooLarge: Row(413, INVALID, "file_too_large"),
    # Batches
    InvalidBatch: Row(400, INVALID, "invalid_value"),
    BatchMissing: Row(404, NOT_FOUND, "not_found"),
    BatchEnded: Row(409, CONFLICT, "batch_ended"),
    BatchNotRetryable: Row(409, CONFLICT, "batch_not_retryable"),
    PausedByOperator: Row(409, CONFLICT, "batch_paused_by_operator"),
    # Webhooks
    UnsafeUrl: Row(400, INVALID, "unsafe_url"),
    UnknownEventType: Row(400, INVALID, "unknown_event_type"),
    TooManyEndpoints: Row(409, CONFLICT, "too_many_endpoints"),
    # Django and Postgres
    Http404: Row(404, NOT_FOUND, "not_found", "There is nothing at this address."),
    PermissionDenied: Row(403, FORBIDDEN, "forbidden", "This is not allowed."),
    RequestDataTooBig: Row(413, INVALID, "body_too_large", "The body is too large."),
    SuspiciousOperation: Row(400, INVALID, "bad_request", "The request cannot be served: check the Host header."),
    OperationalError: Row(503, UNAVAILABLE, "database_unavailable", "The database does not answer; try again soon."),
    InterfaceError: Row(503, UNAVAILABLE, "database_unavailable", "The database does not answer; try again soon."),
    IntegrityError: Row(409, CONFLICT, "conflict", "Something this depends on was changed meanwhile; try again."),
    Exception: Row(500, BROKEN, "internal_error", "Something broke here. The request id will find it in the logs."),
}

#: A provider's statuses that are ours as well: for each of them, callers' SDKs raise an error of its own.
PASSED_ON: Mapping[type[BaseException], tuple[int, ...]] = {Rejected: (413, 422), Transient: (504,)}

#: Which part of the request an error is about, where its class says so.
PARAMS: Mapping[type[BaseException], str] = {
    UnknownModel: "body.model",
    IdempotencyConflict: "Idempotency-Key",
    UnsafeUrl: "url",
    UnknownEventType: "event_types",
}
#: DRF's words for a mistake, in ours.
VALIDATION_CODES = {"required": "missing_required_parameter", "unknown": "unknown_parameter"}


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as it is told."""

    status: int
    type: str
    code: str
    message: str
    param: str | None = None
    #: Where there may be many mistakes (in a batch): the first hundred, this one among them.
    errors: tuple[Mistake, ...] = ()
    #: When to come back, where it is known.
    wait_seconds: float | None = None

    @property
    def is_ours(self) -> bool:
        """The desk is to blame, or what it needs, and not whoever asked."""
        return self.status >= 500

    @property
    def is_unforeseen(self) -> bool:
        """Nobody thought of it: it has no line in the table."""
        return self.status == 500

    @property
    def headers(self) -> dict[str, str]:
        """What an answer says of it beside its body."""
        headers = {}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if self.status in CUTTING:
            # The rest of the body is not read, so the connection cannot carry another request.
            headers["Connection"] = "close"
        if self.retry_after_seconds is not None:
            headers["Retry-After"] = str(self.retry_after_seconds)
        return headers

    @property
    def retry_after_seconds(self) -> int | None:
        if self.status not in (429, 503):
            return None
        return RETRY_AFTER_SECONDS if self.wait_seconds is None else max(1, math.ceil(self.wait_seconds))


# From exception to problem


def problem_of(error: BaseException) -> Problem:
    """Say what an error is to whoever asked."""
    if isinstance(error, drf.ValidationError):
        return _problem_of_validation(error)
    if isinstance(error.__cause__, DiskFull):
        return problem_of(NoRoom())
    if isinstance(error, InvalidBatch):
        first = error.mistakes[0]
        return Problem(400, INVALID, first.code, first.message, first.param, error.mistakes)
    row = row_of(type(error))
    return Problem(
        _status_of(error, row),
        row.type,
        row.code or str(getattr(error, "code", None) or "invalid_value"),
        row.message or str(error),
        _param_of(error),
        wait_seconds=getattr(error, "retry_after_seconds", None),
    )


def row_of(error: type[BaseException]) -> Row:
    """Find the line of the table for a class: its own, or its closest ancestor's."""
    return next((TABLE[ancestor] for ancestor in error.__mro__ if ancestor in TABLE), TABLE[Exception])


def code_of(error: type[BaseException]) -> str:
    """Find the code of a class: in the table, or else on the class itself."""
    return row_of(error).code or str(getattr(error, "code", "error"))


def _status_of(error: BaseException, row: Row) -> int:
    status: int | None = getattr(error, "status", None)
    return status if status is not None and status in PASSED_ON.get(type(error), ()) else row.status


def _param_of(error: BaseException) -> str | None:
    if isinstance(error, InvalidBody):
        # Where in the wire body, which itself stands in the job's field `body`.
        return f"body.{error.param}" if error.param else "body"
    if isinstance(error, Malformed | InvalidTime | UnfitFile | InvalidRequest | RequestTooLong):
        return error.param
    return PARAMS.get(type(error))


def _problem_of_validation(error: drf.ValidationError) -> Problem:
    path, mistake = next(_mistakes(error.detail))
    code = VALIDATION_CODES.get(str(mistake.code), "invalid_value")
    return Problem(400, INVALID, code, str(mistake), ".".join(path) or None)


def _mistakes(detail: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], drf.ErrorDetail]]:
    """Yield every mistake in DRF's nested lists and dictionaries, with the way to it."""
    if isinstance(detail, Mapping):
        for key, inner in detail.items():
            yield from _mistakes(inner, path if key == "non_field_errors" else (*path, str(key)))
    elif isinstance(detail, list | tuple):
        for inner in detail:
            yield from _mistakes(inner, path)
    else:
        yield path, detail
