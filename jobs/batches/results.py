"""The results of a batch as JSON Lines, in OpenAI's format and in the order of the input.

They are generated from the members whenever they are read, page by page: no transaction or cursor is open between two
pages, and at most one page is in memory.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import msgspec
from django.db.models import BinaryField
from django.db.models.functions import Cast

from core.crypto import CryptoError
from core.ids import to_public
from jobs.models import TERMINAL_STATES, Batch, Job, JobState

#: Small, because a page of embeddings may have some megabytes.
PAGE_ROWS = 50
#: Large, because ids are small and the query for them is expensive.
PAGE_IDS = 5000
RESULT_FIELD = Job._meta.get_field("result")
UNSUCCESSFUL = (JobState.FAILED, JobState.CANCELED, JobState.EXPIRED)

BATCH_EXPIRED = ("batch_expired", "This request could not be executed before the completion window expired.")
BATCH_CANCELLED = ("batch_cancelled", "This request was not executed, because the batch was cancelled.")
REQUEST_CANCELED = ("request_canceled", "This request was canceled individually.")
ERASED = ("result_erased", "The response was erased after the retention period of this site.")
UNREADABLE = ("result_unreadable", "The stored response can no longer be read.")


class ResultError(msgspec.Struct):
    code: str
    message: str


class ResultResponse(msgspec.Struct):
    status_code: int
    request_id: str
    body: msgspec.Raw


class ResultLine(msgspec.Struct):
    """One line; either `response` or `error` is null."""

    id: str
    custom_id: str
    response: ResultResponse | None
    error: ResultError | None


@dataclass(frozen=True, slots=True)
class EndedMember:
    """The columns of a member that its line needs; the result is still encrypted."""

    job_id: UUID
    custom_id: str
    state: str
    encrypted_result: bytes | None
    error_code: str
    error_message: str
    cancel_requested_at: datetime | None


def output_lines(batch: Batch) -> Iterator[bytes]:
    """Yield the lines of the output file: members that succeeded."""
    return _lines(batch, [JobState.SUCCEEDED])


def error_lines(batch: Batch) -> Iterator[bytes]:
    """Yield the lines of the error file: members that ended without success."""
    return _lines(batch, UNSUCCESSFUL)


def result_lines(batch: Batch) -> Iterator[bytes]:
    """Yield a line for each member that has ended: for all members once the batch has ended."""
    return _lines(batch, TERMINAL_STATES)


def is_expired_by_batch(state: str, cancel_requested_at: datetime | None, batch: Batch) -> bool:
    """Return whether the member ended because the completion window of its batch was over."""
    if state == JobState.CANCELED and batch.cancelling_at is None:
        return cancel_requested_at is not None and cancel_requested_at >= batch.expires_at
    return state == JobState.EXPIRED


def _lines(batch: Batch, states: Sequence[str]) -> Iterator[bytes]:
    for page in _pages(batch, states):
        for ended in page:
            yield msgspec.json.encode(_to_line(ended, batch)) + b"\n"


def _pages(batch: Batch, states: Sequence[str]) -> Iterator[list[EndedMember]]:
    # Read encrypted: one result that cannot be decrypted must not make all the others unreadable.
    rows = Job.objects.order_by("id").annotate(encrypted=Cast("result", BinaryField()))
    for ids in member_ids(batch, states, PAGE_ROWS):
        page = rows.filter(id__in=ids).values_list(
            "id", "custom_id", "state", "encrypted", "error_code", "error_message", "cancel_requested_at"
        )
        yield [EndedMember(*row) for row in page]


def member_ids(batch: Batch, states: Sequence[str], size: int) -> Iterator[list[UUID]]:
    """Yield the ids of the members in these states, in the order of the input, in lists of at most `size`.

    Ids first, then rows by id: without statistics about a new batch, Postgres would sort all its rows for each page.
    """
    ids = Job.objects.filter(batch=batch, state__in=states).order_by("id").values_list("id", flat=True)
    after = UUID(int=0)
    while page := list(ids.filter(id__gt=after)[:PAGE_IDS]):
        yield from (page[n : n + size] for n in range(0, len(page), size))
        after = page[-1]


def _to_line(ended: EndedMember, batch: Batch) -> ResultLine:
    # The request id is the job's id: GET /v1/jobs/{id} shows its attempts and calls.
    request_id = to_public(Job.ID_PREFIX, ended.job_id)
    line_id = "batch_req" + request_id.removeprefix(Job.ID_PREFIX)
    if ended.state != JobState.SUCCEEDED:
        return ResultLine(line_id, ended.custom_id, None, ResultError(*_problem_of(ended, batch)))
    if ended.encrypted_result is None:
        return ResultLine(line_id, ended.custom_id, None, ResultError(*ERASED))
    try:
        body = msgspec.Raw(RESULT_FIELD.decrypt(bytes(ended.encrypted_result)))
    except CryptoError:
        return ResultLine(line_id, ended.custom_id, None, ResultError(*UNREADABLE))
    return ResultLine(line_id, ended.custom_id, ResultResponse(200, request_id, body), None)


def _problem_of(ended: EndedMember, batch: Batch) -> tuple[str, str]:
    if is_expired_by_batch(ended.state, ended.cancel_requested_at, batch):
        return BATCH_EXPIRED
    if ended.state == JobState.CANCELED:
        return REQUEST_CANCELED if batch.cancelling_at is None else BATCH_CANCELLED
    return ended.error_code or "failed", ended.error_message
