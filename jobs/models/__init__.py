"""The tables of jobs, batches, files and workers."""

from jobs.models.batch import TERMINAL_BATCH_STATES, Batch, BatchState
from jobs.models.file import File, FileChunk, FilePurpose
from jobs.models.job import (
    BATCH_QUEUE,
    DEFAULT_QUEUE,
    ENCRYPTED_FIELDS,
    NO_BATCH,
    QUARANTINE_CRASHES,
    TERMINAL_STATES,
    Attempt,
    AttemptOutcome,
    Job,
    JobKind,
    JobState,
)
from jobs.models.worker import Pause, WorkerLease

__all__ = [
    "BATCH_QUEUE",
    "DEFAULT_QUEUE",
    "ENCRYPTED_FIELDS",
    "NO_BATCH",
    "QUARANTINE_CRASHES",
    "TERMINAL_BATCH_STATES",
    "TERMINAL_STATES",
    "Attempt",
    "AttemptOutcome",
    "Batch",
    "BatchState",
    "File",
    "FileChunk",
    "FilePurpose",
    "Job",
    "JobKind",
    "JobState",
    "Pause",
    "WorkerLease",
]
