"""What went wrong, as it is told. The only place that knows HTTP status codes of errors.

How a problem is then written down, `api.error_responses` says for Django, and `api.live.respond` for the live path.
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

from core.redis import RedisUnavailable
from inference.errors import NoProviderKey, RequestTooLong, UnknownModel
from jobs.batches.mistakes import BatchIssue
from jobs.errors import (
    BatchEnded,
    BatchNotFound,
    BatchNotRetryable,
    ErasedPayload,
    FileInUse,
    FileNotFound,
    FileTooLarge,
    IdempotencyConflict,
    InvalidBatch,
    InvalidBody,
    InvalidFile,
    InvalidTime,
    JobEnded,
    JobNotFound,
    JobNotRetryable,
    LineTooLong,
    PausedByOperator,
    UnreadableFile,
    UnreadablePayload,
)
from providers.errors import (
    ContentRefused,
    ContextTooLong,
    ModelNotFound,
    ProviderError,
    ProviderKeyRejected,
    ProviderOverloaded,
    ProviderRateLimited,
    ProviderTimeout,
    RequestRejected,
    ResponseInterrupted,
    TransientFailure,
    UnsupportedFeature,
)
from providers.invalid_request import InvalidRequest
from streams.errors import (
    CursorAhead,
    CursorExpired,
    CursorForeign,
    CursorMalformed,
    StreamEndedEmpty,
    StreamOrphaned,
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
SERVER_ERROR = "server_error"
UNAVAILABLE = "service_unavailable_error"
RATE_LIMIT = "rate_limit_error"

#: With these the rest of the body is not waited for.
CLOSING_STATUSES = (408, 413, 507)
#: When to come back, where we do not know better.
RETRY_AFTER_SECONDS = 5


class ApiError(Exception):
    """What only the edge can find wrong.

    * ApiError
      + Malformed        the body is not JSON as we take it; carries `param`
      + NotAForm         the body should be a form, with a file in it
      + TooLarge         the body is larger than its address allows (`api.request_body.size_limit`)
      + Unread           the body is not read to its end (`api.request_body.reader`)
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


class MalformedBody(ApiError):
    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class NotMultipart(ApiError): ...


class BodyTooLarge(ApiError): ...


class UnreadBody(ApiError): ...


class BodyTimeout(UnreadBody): ...


class TooManyUnverifiedUploads(UnreadBody):
    def __init__(self) -> None:
        super().__init__(
            "Too many signed uploads are in progress. Try again soon, or send an API key or a token, which is "
            "checked before the upload."
        )


class StorageFull(UnreadBody):
    def __init__(self) -> None:
        super().__init__("Storage is full; nothing was stored. Contact your administrator.")


class ResourceNotFound(ApiError): ...


class NotReady(ApiError): ...


class RateLimitExceeded(ApiError):
    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class ConcurrencyLimitExceeded(RateLimitExceeded): ...


class ShuttingDown(ApiError):
    def __init__(self) -> None:
        super().__init__("This server process is shutting down. Retry: another one will answer.")


class RateLimiterUnavailable(ApiError):
    def __init__(self) -> None:
        super().__init__("Rate limiting is unavailable and this gateway is configured to fail closed. Try again soon.")


@dataclass(frozen=True, slots=True)
class ErrorMapping:
    """One line of the table. An absent code is the error's own, and so is an absent message."""

    status: int
    type: str
    code: str | None = None
    message: str | None = None


#: From exception class to answer; the closest ancestor of an error counts.
ERROR_TABLE: Mapping[type[BaseException], ErrorMapping] = {
    # The edge
    MalformedBody: ErrorMapping(400, INVALID, "malformed_body"),
    NotMultipart: ErrorMapping(415, INVALID, "unsupported_media_type"),
    BodyTooLarge: ErrorMapping(413, INVALID, "body_too_large"),
    BodyTimeout: ErrorMapping(408, INVALID, "request_timeout"),
    TooManyUnverifiedUploads: ErrorMapping(503, UNAVAILABLE, "too_many_uploads"),
    StorageFull: ErrorMapping(507, SERVER_ERROR, "storage_full"),
    ResourceNotFound: ErrorMapping(404, NOT_FOUND, "not_found"),
    NotReady: ErrorMapping(503, UNAVAILABLE, "not_ready"),
    RateLimitExceeded: ErrorMapping(429, RATE_LIMIT, "rate_limit_exceeded"),
    ConcurrencyLimitExceeded: ErrorMapping(429, RATE_LIMIT, "concurrency_limit_exceeded"),
    ShuttingDown: ErrorMapping(503, UNAVAILABLE, "shutting_down"),
    RateLimiterUnavailable: ErrorMapping(503, UNAVAILABLE, "not_ready"),
    InvalidRequest: ErrorMapping(400, INVALID),
    # Providers, on the live path
    ProviderError: ErrorMapping(502, SERVER_ERROR, "upstream_error"),
    RequestRejected: ErrorMapping(400, INVALID, "rejected"),
    ModelNotFound: ErrorMapping(404, INVALID, "model_not_found"),
    ContextTooLong: ErrorMapping(400, INVALID, "context_length_exceeded"),
    UnsupportedFeature: ErrorMapping(400, INVALID, "unsupported_value"),
    ContentRefused: ErrorMapping(400, INVALID, "content_policy_violation"),
    ProviderKeyRejected: ErrorMapping(
        503,
        UNAVAILABLE,
        "no_provider",
        "All providers rejected this gateway's credentials. Contact your administrator.",
    ),
    ProviderRateLimited: ErrorMapping(429, RATE_LIMIT, "rate_limit_exceeded"),
    ProviderOverloaded: ErrorMapping(503, UNAVAILABLE, "server_is_overloaded"),
    ProviderTimeout: ErrorMapping(504, SERVER_ERROR, "upstream_timeout"),
    ResponseInterrupted: ErrorMapping(502, SERVER_ERROR, "upstream_stream_interrupted"),
    # Streams
    StreamUnknown: ErrorMapping(404, NOT_FOUND, "not_found"),
    StreamOrphaned: ErrorMapping(
        502, SERVER_ERROR, "stream_lost", "The process that served this stream was lost; the stream is incomplete."
    ),
    StreamEndedEmpty: ErrorMapping(502, SERVER_ERROR, "stream_lost"),
    StreamsClosed: ErrorMapping(503, UNAVAILABLE, "shutting_down"),
    CursorMalformed: ErrorMapping(400, INVALID, "stream_cursor_malformed"),
    CursorForeign: ErrorMapping(400, INVALID, "stream_cursor_foreign"),
    CursorAhead: ErrorMapping(409, CONFLICT, "stream_cursor_ahead"),
    CursorExpired: ErrorMapping(409, CONFLICT, "stream_cursor_expired"),
    RedisUnavailable: ErrorMapping(503, UNAVAILABLE, "not_ready", "Redis is unavailable; try again soon."),
    drf.ValidationError: ErrorMapping(400, INVALID, "invalid_value"),
    drf.ParseError: ErrorMapping(400, INVALID, "malformed_body"),
    drf.UnsupportedMediaType: ErrorMapping(
        415, INVALID, "unsupported_media_type", "Send JSON: Content-Type: application/json."
    ),
    drf.MethodNotAllowed: ErrorMapping(405, INVALID, "method_not_allowed"),
    drf.NotFound: ErrorMapping(404, NOT_FOUND, "not_found"),
    drf.PermissionDenied: ErrorMapping(403, FORBIDDEN, "forbidden"),
    # Who asks
    Unauthenticated: ErrorMapping(401, UNAUTHENTICATED),
    Forbidden: ErrorMapping(403, FORBIDDEN),
    # Jobs
    InvalidBody: ErrorMapping(400, INVALID, "invalid_value"),
    InvalidTime: ErrorMapping(400, INVALID, "invalid_value"),
    UnreadablePayload: ErrorMapping(409, CONFLICT, "job_unreadable"),
    ErasedPayload: ErrorMapping(409, CONFLICT, "job_erased"),
    UnknownModel: ErrorMapping(404, INVALID, "model_not_found"),
    RequestTooLong: ErrorMapping(400, INVALID, "context_length_exceeded"),
    NoProviderKey: ErrorMapping(503, UNAVAILABLE, "no_provider"),
    IdempotencyConflict: ErrorMapping(422, INVALID, "idempotency_key_reused"),
    JobNotFound: ErrorMapping(404, NOT_FOUND, "not_found"),
    JobEnded: ErrorMapping(409, CONFLICT, "job_ended"),
    JobNotRetryable: ErrorMapping(409, CONFLICT, "job_not_retryable"),
    # Files
    FileNotFound: ErrorMapping(404, NOT_FOUND, "not_found"),
    FileInUse: ErrorMapping(409, CONFLICT, "file_in_use"),
    UnreadableFile: ErrorMapping(409, CONFLICT, "file_unreadable"),
    LineTooLong: ErrorMapping(400, INVALID, "line_too_long"),
    InvalidFile: ErrorMapping(400, INVALID, "invalid_value"),
    FileTooLarge: ErrorMapping(413, INVALID, "file_too_large"),
    # Batches
    InvalidBatch: ErrorMapping(400, INVALID, "invalid_value"),
    BatchNotFound: ErrorMapping(404, NOT_FOUND, "not_found"),
    BatchEnded: ErrorMapping(409, CONFLICT, "batch_ended"),
    BatchNotRetryable: ErrorMapping(409, CONFLICT, "batch_not_retryable"),
    PausedByOperator: ErrorMapping(409, CONFLICT, "batch_paused_by_operator"),
    # Webhooks
    UnsafeUrl: ErrorMapping(400, INVALID, "unsafe_url"),
    UnknownEventType: ErrorMapping(400, INVALID, "unknown_event_type"),
    TooManyEndpoints: ErrorMapping(409, CONFLICT, "too_many_endpoints"),
    # Django and Postgres
    Http404: ErrorMapping(404, NOT_FOUND, "not_found", "Not found."),
    PermissionDenied: ErrorMapping(403, FORBIDDEN, "forbidden", "Permission denied."),
    RequestDataTooBig: ErrorMapping(413, INVALID, "body_too_large", "The body is too large."),
    SuspiciousOperation: ErrorMapping(
        400, INVALID, "bad_request", "The request cannot be served: check the Host header."
    ),
    OperationalError: ErrorMapping(
        503, UNAVAILABLE, "database_unavailable", "The database is unavailable; try again soon."
    ),
    InterfaceError: ErrorMapping(
        503, UNAVAILABLE, "database_unavailable", "The database is unavailable; try again soon."
    ),
    IntegrityError: ErrorMapping(409, CONFLICT, "conflict", "A related resource was changed concurrently; try again."),
    Exception: ErrorMapping(
        500, SERVER_ERROR, "internal_error", "Internal server error. Quote the request id to your administrator."
    ),
}

#: A provider's statuses that are ours as well: for each of them, callers' SDKs raise an error of its own.
PASSTHROUGH_STATUSES: Mapping[type[BaseException], tuple[int, ...]] = {
    RequestRejected: (413, 422),
    TransientFailure: (504,),
}

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
class ApiProblem:
    """An error as it is told."""

    status: int
    type: str
    code: str
    message: str
    param: str | None = None
    #: Where there may be many mistakes (in a batch): the first hundred, this one among them.
    errors: tuple[BatchIssue, ...] = ()
    #: When to come back, where it is known.
    wait_seconds: float | None = None

    @property
    def is_server_error(self) -> bool:
        """The desk is to blame, or what it needs, and not whoever asked."""
        return self.status >= 500

    @property
    def is_unexpected(self) -> bool:
        """Nobody thought of it: it has no line in the table."""
        return self.status == 500

    @property
    def headers(self) -> dict[str, str]:
        """What an answer says of it beside its body."""
        headers = {}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if self.status in CLOSING_STATUSES:
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


def to_problem(error: BaseException) -> ApiProblem:
    """Say what an error is to whoever asked."""
    if isinstance(error, drf.ValidationError):
        return _validation_problem(error)
    if isinstance(error.__cause__, DiskFull):
        return to_problem(StorageFull())
    if isinstance(error, InvalidBatch):
        first = error.issues[0]
        return ApiProblem(400, INVALID, first.code, first.message, first.param, error.issues)
    row = mapping_for(type(error))
    return ApiProblem(
        _status_of(error, row),
        row.type,
        row.code or str(getattr(error, "code", None) or "invalid_value"),
        row.message or str(error),
        _param_of(error),
        wait_seconds=getattr(error, "retry_after_seconds", None),
    )


def mapping_for(error: type[BaseException]) -> ErrorMapping:
    """Find the line of the table for a class: its own, or its closest ancestor's."""
    return next(
        (ERROR_TABLE[ancestor] for ancestor in error.__mro__ if ancestor in ERROR_TABLE), ERROR_TABLE[Exception]
    )


def code_of(error: type[BaseException]) -> str:
    """Find the code of a class: in the table, or else on the class itself."""
    return mapping_for(error).code or str(getattr(error, "code", "error"))


def _status_of(error: BaseException, row: ErrorMapping) -> int:
    status: int | None = getattr(error, "status", None)
    return status if status is not None and status in PASSTHROUGH_STATUSES.get(type(error), ()) else row.status


def _param_of(error: BaseException) -> str | None:
    if isinstance(error, InvalidBody):
        # Where in the wire body, which itself stands in the job's field `body`.
        return f"body.{error.param}" if error.param else "body"
    if isinstance(error, MalformedBody | InvalidTime | InvalidFile | InvalidRequest | RequestTooLong):
        return error.param
    return PARAMS.get(type(error))


def _validation_problem(error: drf.ValidationError) -> ApiProblem:
    path, mistake = next(_validation_errors(error.detail))
    code = VALIDATION_CODES.get(str(mistake.code), "invalid_value")
    return ApiProblem(400, INVALID, code, str(mistake), ".".join(path) or None)


def _validation_errors(detail: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], drf.ErrorDetail]]:
    """Yield every mistake in DRF's nested lists and dictionaries, with the way to it."""
    if isinstance(detail, Mapping):
        for key, inner in detail.items():
            yield from _validation_errors(inner, path if key == "non_field_errors" else (*path, str(key)))
    elif isinstance(detail, list | tuple):
        for inner in detail:
            yield from _validation_errors(inner, path)
    else:
        yield path, detail
