"""Mapping of exceptions to API errors: the only module that knows the HTTP status and code of an error.

`api.error_responses` writes an `ApiProblem` as a Django response, `api.live.respond` in the wire format of a caller.
`docs/reference/errors.md` lists every code.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import IntegrityError
from django.http import Http404
from psycopg.errors import DiskFull
from rest_framework import exceptions as drf

from core.database_threads import DATABASE_UNAVAILABLE
from core.redis import RedisUnavailable
from inference.errors import NoProviderKey, RequestTooLong, UnknownModel
from jobs.errors import (
    BatchEnded,
    BatchIssue,
    BatchNotFound,
    BatchNotRetryable,
    ErasedPayload,
    FileInUse,
    FileNotFound,
    FileTooLarge,
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
from live.errors import (
    ConcurrencyLimitExceeded,
    RateLimiterUnavailable,
    RateLimitExceeded,
    ResponseCanceled,
    ShuttingDown,
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
from tenants.errors import Forbidden, IdempotencyConflict, Unauthenticated
from webhooks.errors import TooManyEndpoints, UnknownEventType, UnsafeUrl

INVALID = "invalid_request_error"
UNAUTHENTICATED = "authentication_error"
FORBIDDEN = "permission_error"
NOT_FOUND = "not_found_error"
CONFLICT = "conflict_error"
SERVER_ERROR = "server_error"
UNAVAILABLE = "service_unavailable_error"
RATE_LIMIT = "rate_limit_error"

#: The rest of the request body is not read, so the connection cannot carry another request.
CLOSING_STATUSES = (408, 413, 507)
#: `Retry-After` of a 429 or 503 whose error does not carry a better time.
DEFAULT_RETRY_AFTER_SECONDS = 5


class ApiError(Exception):
    """Base of the errors that only the API layer raises.

    * ApiError
      + MalformedBody                the body is not acceptable JSON; carries `param`
      + NotMultipart                 the body must be a multipart form with a file
      + BodyTooLarge                 the body exceeds the limit of its path (`api.request_body.size_limit`)
      + UnreadBody                   the body was not read to its end (`api.request_body.reader`)
        - BodyTimeout                the client sent it too slowly
        - TooManyUnverifiedUploads   the budget for bodies of unauthenticated senders is used up
        - StorageFull                no space left on the local disk or in Postgres
      + ResourceNotFound             no such resource of this site, or no such path
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
            "Too many signed uploads are in progress. Retry later, or authenticate with an API key or a token, which "
            "is checked before the upload."
        )


class StorageFull(UnreadBody):
    def __init__(self) -> None:
        super().__init__("Storage is full; nothing was stored. Contact your administrator.")


class ResourceNotFound(ApiError): ...


@dataclass(frozen=True, slots=True)
class ErrorMapping:
    """One row of the table. Without a code or a message, those of the exception itself are used."""

    status: int
    type: str
    code: str | None = None
    message: str | None = None


#: By exception class; an error without a row has that of its closest ancestor.
ERROR_TABLE: Mapping[type[BaseException], ErrorMapping] = {
    # The API layer
    MalformedBody: ErrorMapping(400, INVALID, "malformed_body"),
    NotMultipart: ErrorMapping(415, INVALID, "unsupported_media_type"),
    BodyTooLarge: ErrorMapping(413, INVALID, "body_too_large"),
    BodyTimeout: ErrorMapping(408, INVALID, "request_timeout"),
    TooManyUnverifiedUploads: ErrorMapping(503, UNAVAILABLE, "too_many_uploads"),
    StorageFull: ErrorMapping(507, SERVER_ERROR, "storage_full"),
    ResourceNotFound: ErrorMapping(404, NOT_FOUND, "not_found"),
    InvalidRequest: ErrorMapping(400, INVALID),
    # Live requests
    RateLimitExceeded: ErrorMapping(429, RATE_LIMIT, "rate_limit_exceeded"),
    ConcurrencyLimitExceeded: ErrorMapping(429, RATE_LIMIT, "concurrency_limit_exceeded"),
    RateLimiterUnavailable: ErrorMapping(503, UNAVAILABLE, "rate_limiter_unavailable"),
    ShuttingDown: ErrorMapping(503, UNAVAILABLE, "shutting_down"),
    ResponseCanceled: ErrorMapping(499, SERVER_ERROR, "stream_canceled"),
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
        "All providers of this model rejected this gateway's API keys. Contact your administrator.",
    ),
    ProviderRateLimited: ErrorMapping(429, RATE_LIMIT, "rate_limit_exceeded"),
    ProviderOverloaded: ErrorMapping(503, UNAVAILABLE, "server_is_overloaded"),
    ProviderTimeout: ErrorMapping(504, SERVER_ERROR, "upstream_timeout"),
    ResponseInterrupted: ErrorMapping(502, SERVER_ERROR, "upstream_stream_interrupted"),
    # Streams
    StreamUnknown: ErrorMapping(404, NOT_FOUND, "not_found"),
    StreamOrphaned: ErrorMapping(
        502,
        SERVER_ERROR,
        "stream_lost",
        "The process that served this stream was lost, so the stream is incomplete. Send the request again.",
    ),
    StreamEndedEmpty: ErrorMapping(502, SERVER_ERROR, "stream_lost"),
    StreamsClosed: ErrorMapping(503, UNAVAILABLE, "shutting_down"),
    CursorMalformed: ErrorMapping(400, INVALID, "stream_cursor_malformed"),
    CursorForeign: ErrorMapping(400, INVALID, "stream_cursor_foreign"),
    CursorAhead: ErrorMapping(409, CONFLICT, "stream_cursor_ahead"),
    CursorExpired: ErrorMapping(409, CONFLICT, "stream_cursor_expired"),
    # Redis
    RedisUnavailable: ErrorMapping(503, UNAVAILABLE, "redis_unavailable", "Redis is unavailable. Retry later."),
    # Django REST framework
    drf.ValidationError: ErrorMapping(400, INVALID, "invalid_value"),
    drf.ParseError: ErrorMapping(400, INVALID, "malformed_body"),
    drf.UnsupportedMediaType: ErrorMapping(
        415, INVALID, "unsupported_media_type", "Send JSON: Content-Type: application/json."
    ),
    drf.MethodNotAllowed: ErrorMapping(405, INVALID, "method_not_allowed"),
    drf.NotFound: ErrorMapping(404, NOT_FOUND, "not_found"),
    drf.PermissionDenied: ErrorMapping(403, FORBIDDEN, "forbidden"),
    # Authentication and access
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
    SuspiciousOperation: ErrorMapping(400, INVALID, "bad_request", "The request is not valid: check the Host header."),
    **dict.fromkeys(
        DATABASE_UNAVAILABLE,
        ErrorMapping(503, UNAVAILABLE, "database_unavailable", "The database is unavailable. Retry later."),
    ),
    IntegrityError: ErrorMapping(409, CONFLICT, "conflict", "A related resource was changed concurrently. Retry."),
    Exception: ErrorMapping(
        500, SERVER_ERROR, "internal_error", "Internal server error. Quote the request id to your administrator."
    ),
}

#: Provider statuses that are passed through, because SDKs raise a separate exception for each of them.
PASSTHROUGH_STATUSES: Mapping[type[BaseException], tuple[int, ...]] = {
    RequestRejected: (413, 422),
    TransientFailure: (504,),
}

#: `param` of errors whose class determines which part of the request is wrong.
PARAMS: Mapping[type[BaseException], str] = {
    UnknownModel: "body.model",
    IdempotencyConflict: "Idempotency-Key",
    UnsafeUrl: "url",
    UnknownEventType: "event_types",
}
#: API code by the code of a DRF validation error; all others are `invalid_value`.
VALIDATION_CODES = {"required": "missing_required_parameter", "unknown": "unknown_parameter"}


@dataclass(frozen=True, slots=True)
class ApiProblem:
    """An error as the API reports it."""

    status: int
    type: str
    code: str
    message: str
    param: str | None = None
    #: Of a batch, which may have many: the first hundred, including this one.
    errors: tuple[BatchIssue, ...] = ()
    #: From the error itself; None if it does not know when a retry may succeed.
    wait_seconds: float | None = None

    @property
    def is_server_error(self) -> bool:
        """The cause is Nightdesk or a service it depends on, not the caller."""
        return self.status >= 500

    @property
    def is_unexpected(self) -> bool:
        """The exception has no row in the table: a bug, to be logged with its traceback."""
        return self.status == 500

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the response, in REST and on the live path."""
        headers = {}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if self.status in CLOSING_STATUSES:
            headers["Connection"] = "close"
        if self.retry_after_seconds is not None:
            headers["Retry-After"] = str(self.retry_after_seconds)
        return headers

    @property
    def retry_after_seconds(self) -> int | None:
        if self.status not in (429, 503):
            return None
        return DEFAULT_RETRY_AFTER_SECONDS if self.wait_seconds is None else max(1, math.ceil(self.wait_seconds))


# From exception to problem


def to_problem(error: BaseException) -> ApiProblem:
    """Return the problem that the API reports for an exception."""
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
    """Return the row of an exception class: its own, or that of its closest ancestor."""
    return next(
        (ERROR_TABLE[ancestor] for ancestor in error.__mro__ if ancestor in ERROR_TABLE), ERROR_TABLE[Exception]
    )


def code_of(error: type[BaseException]) -> str:
    """Return the code of an exception class: from the table, or from the class itself."""
    return mapping_for(error).code or str(getattr(error, "code", "error"))


def _status_of(error: BaseException, row: ErrorMapping) -> int:
    status: int | None = getattr(error, "status", None)
    return status if status is not None and status in PASSTHROUGH_STATUSES.get(type(error), ()) else row.status


def _param_of(error: BaseException) -> str | None:
    if isinstance(error, InvalidBody):
        # The path is within the wire body, which is the field `body` of the job.
        return f"body.{error.param}" if error.param else "body"
    if isinstance(error, MalformedBody | InvalidTime | InvalidFile | InvalidRequest | RequestTooLong):
        return error.param
    return PARAMS.get(type(error))


def _validation_problem(error: drf.ValidationError) -> ApiProblem:
    path, detail = next(_validation_errors(error.detail))
    code = VALIDATION_CODES.get(str(detail.code), "invalid_value")
    return ApiProblem(400, INVALID, code, str(detail), ".".join(path) or None)


def _validation_errors(detail: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], drf.ErrorDetail]]:
    """Yield every error in DRF's nested lists and dictionaries, with its path."""
    if isinstance(detail, Mapping):
        for key, inner in detail.items():
            yield from _validation_errors(inner, path if key == "non_field_errors" else (*path, str(key)))
    elif isinstance(detail, list | tuple):
        for inner in detail:
            yield from _validation_errors(inner, path)
    else:
        yield path, detail
