"""The answers of a batch's members as lines of JSON, in OpenAI's form and in the order of the input.

They are made from the members whenever they are read, a page at a time: nothing is held in the database between two
pages, and no more than a page in memory.
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

#: A page of embeddings may be some megabytes.
PAGE_ROWS = 50
#: Ids are small, and finding them is what costs.
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
    """What a line says of a member. The result is as it is stored."""

    job_id: UUID
    custom_id: str
    state: str
    sealed_result: bytes | None
    error_code: str
    error_message: str
    cancel_requested_at: datetime | None


def output_lines(batch: Batch) -> Iterator[bytes]:
    """Yield the lines of the output file: what succeeded."""
    return _lines(batch, [JobState.SUCCEEDED])


def error_lines(batch: Batch) -> Iterator[bytes]:
    """Yield the lines of the error file: what ended otherwise."""
    return _lines(batch, UNSUCCESSFUL)


def result_lines(batch: Batch) -> Iterator[bytes]:
    """Yield a line for each member that ended; for all of them, once the batch has ended."""
    return _lines(batch, TERMINAL_STATES)


def is_expired_by_batch(state: str, cancel_requested_at: datetime | None, batch: Batch) -> bool:
    """Did the member end because the time of its batch was over, while it waited or while it ran?"""
    if state == JobState.CANCELED and batch.cancelling_at is None:
        return cancel_requested_at is not None and cancel_requested_at >= batch.expires_at
    return state == JobState.EXPIRED


def _lines(batch: Batch, states: Sequence[str]) -> Iterator[bytes]:
    for page in _pages(batch, states):
        for ended in page:
            yield msgspec.json.encode(_to_line(ended, batch)) + b"\n"


def _pages(batch: Batch, states: Sequence[str]) -> Iterator[list[EndedMember]]:
    # As it is stored: one that does not open must not keep the site from all the others.
    rows = Job.objects.order_by("id").annotate(sealed=Cast("result", BinaryField()))
    for ids in member_ids(batch, states, PAGE_ROWS):
        found = rows.filter(id__in=ids).values_list(
            "id", "custom_id", "state", "sealed", "error_code", "error_message", "cancel_requested_at"
        )
        yield [EndedMember(*row) for row in found]


def member_ids(batch: Batch, states: Sequence[str], at_once: int) -> Iterator[list[UUID]]:
    """Yield the ids of the members in these states, in the order of the input, so many at once.

    Ids first, and rows by them: of a batch that has just come Postgres knows no statistics, and sorts it for each page.
    """
    ids = Job.objects.filter(batch=batch, state__in=states).order_by("id").values_list("id", flat=True)
    after = UUID(int=0)
    while page := list(ids.filter(id__gt=after)[:PAGE_IDS]):
        yield from (page[n : n + at_once] for n in range(0, len(page), at_once))
        after = page[-1]


def _to_line(ended: EndedMember, batch: Batch) -> ResultLine:
    # The request's id is the job's: GET /v1/jobs/{id} has all that was done for it.
    request_id = to_public(Job.ID_PREFIX, ended.job_id)
    line_id = "batch_req" + request_id.removeprefix(Job.ID_PREFIX)
    if ended.state != JobState.SUCCEEDED:
        return ResultLine(line_id, ended.custom_id, None, ResultError(*_problem_of(ended, batch)))
    if ended.sealed_result is None:
        return ResultLine(line_id, ended.custom_id, None, ResultError(*ERASED))
    try:
        body = msgspec.Raw(RESULT_FIELD.decrypt(bytes(ended.sealed_result)))
    except CryptoError:
        return ResultLine(line_id, ended.custom_id, None, ResultError(*UNREADABLE))
    return ResultLine(line_id, ended.custom_id, ResultResponse(200, request_id, body), None)


def _problem_of(ended: EndedMember, batch: Batch) -> tuple[str, str]:
    if is_expired_by_batch(ended.state, ended.cancel_requested_at, batch):
        return BATCH_EXPIRED
    if ended.state == JobState.CANCELED:
        return REQUEST_CANCELED if batch.cancelling_at is None else BATCH_CANCELLED
    return ended.error_code or "failed", ended.error_message
