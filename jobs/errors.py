"""Errors of jobs, files and batches.

* JobError
  + InvalidBody           the body is not a valid request of its kind; carries `param`
  + InvalidTime           a time is not allowed; carries `param`
  + UnreadablePayload     the stored body cannot be decrypted or decoded (a lost key, a damaged row)
  + ErasedPayload         the stored body was erased at the end of the site's retention
  + JobNotFound           no job of this site has that id
  + JobEnded              the job has already ended
  + JobNotRetryable       the job has not ended, or it succeeded
  + FileError
    - FileNotFound        no file of this site has that id, or it expired
    - FileInUse           a batch is about to read it
    - UnreadableFile      a chunk of it is missing or cannot be decrypted
    - LineTooLong         a line is longer than a request may be; carries `line`
    - InvalidFile         it cannot be used; carries `param`
    - FileTooLarge        it is larger than MAX_FILE_BYTES
  + BatchError
    - InvalidBatch        some of its requests are invalid; carries `issues`
    - BatchNotFound       no batch of this site has that id
    - BatchEnded          the batch has already ended
    - BatchNotRetryable   it has not ended, is being retried, or its requests cannot be retried
    - PausedByOperator    the operator paused it; the site cannot resume it
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

#: A batch reports at most this many issues; more are rarely of use before these are fixed.
MAX_ISSUES = 100


class JobError(Exception): ...


class InvalidBody(JobError):
    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class InvalidTime(JobError):
    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


class UnreadablePayload(JobError):
    def __init__(self) -> None:
        super().__init__("The stored request of this job can no longer be read. Submit it again.")


class ErasedPayload(JobError):
    def __init__(self, erased_at: datetime) -> None:
        super().__init__(
            f"The request was erased at {erased_at:%Y-%m-%d %H:%M} UTC, after the retention period. Submit it again."
        )


class JobNotFound(JobError):
    def __init__(self) -> None:
        super().__init__("There is no such job.")


class JobEnded(JobError):
    def __init__(self, state: str) -> None:
        super().__init__(f"The job has already finished: it is {state}.")


class JobNotRetryable(JobError):
    def __init__(self, state: str) -> None:
        super().__init__(f"Only a failed, canceled or expired job can be retried; this one is {state}.")


class FileError(JobError): ...


class FileNotFound(FileError):
    def __init__(self) -> None:
        super().__init__("There is no such file.")


class FileInUse(FileError):
    def __init__(self, batch_id: str) -> None:
        super().__init__(f"The batch {batch_id} is about to read this file; retry once the batch is in progress.")


class UnreadableFile(FileError):
    def __init__(self, file_id: str) -> None:
        super().__init__(f"The stored file {file_id} can no longer be read. Upload it again.")


class LineTooLong(FileError):
    def __init__(self, line: int, longest: int) -> None:
        super().__init__(f"Line {line} is longer than {longest:,} bytes, the maximum. Shorten the request.")
        self.line = line


class InvalidFile(FileError):
    def __init__(self, message: str, param: str = "file") -> None:
        super().__init__(message)
        self.param = param


class FileTooLarge(FileError):
    def __init__(self, most: int) -> None:
        super().__init__(f"The file is larger than {most:,} bytes. Split it.")


class BatchError(JobError): ...


@dataclass(frozen=True, slots=True)
class BatchIssue:
    """One problem in a batch. `param` is the field of the request, `line` the line of the file, counted from 1."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None

    def to_wire(self) -> dict[str, Any]:
        """Return it in the format of OpenAI's batches, in which it is also stored."""
        return asdict(self)


class InvalidBatch(BatchError):
    def __init__(self, issues: Sequence[BatchIssue]) -> None:
        super().__init__(issues[0].message)
        self.issues = tuple(issues)


class BatchNotFound(BatchError):
    def __init__(self) -> None:
        super().__init__("There is no such batch.")


class BatchEnded(BatchError):
    def __init__(self, state: str) -> None:
        super().__init__(f"The batch has already finished: it is {state}.")


class BatchNotRetryable(BatchError): ...


class PausedByOperator(BatchError):
    def __init__(self) -> None:
        super().__init__("The operator paused this batch; only the operator can resume it.")
