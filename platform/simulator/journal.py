"""The journal: the outcome of every call to the simulated provider. Tests compare usage events with it."""

import os
import time
from collections import Counter, deque
from enum import StrEnum
from pathlib import Path

import msgspec

#: Entries kept in memory, so that a soak test of hours does not fill it. The file keeps all.
MAX_ENTRIES_IN_MEMORY = 500_000


class CallOutcome(StrEnum):
    RUNNING = "running"
    OK = "ok"
    ERROR = "error"
    CUT = "cut"
    RST = "rst"
    STALLED = "stalled"
    ERROR_FRAME = "error_frame"
    DISCONNECTED = "disconnected"
    #: The simulator itself was killed meanwhile; found when its file is read again.
    LOST = "lost"


class JournalEntry(msgspec.Struct):
    """One call. Tokens are those actually served: what was sent before a cut, not what was planned."""

    seq: int
    #: Also the answer's `x-request-id` (`request-id` for Anthropic).
    id: str
    dialect: str
    path: str
    model: str
    #: SHA-256 of the key, empty without one. The key itself is never stored.
    key_hash: str
    body_sha256: str
    client_request_id: str | None
    idempotency_key: str | None
    stream: bool
    #: How often this body was received so far, counted from 1.
    attempt: int
    #: Unix seconds.
    started_at: float
    finished_at: float | None = None
    status: int | None = None
    outcome: CallOutcome = CallOutcome.RUNNING
    #: The answer's own id (`chatcmpl-…`, `msg_…`).
    answer_id: str | None = None
    #: All input tokens, cached ones included.
    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    #: All output tokens, reasoning included.
    output_tokens: int = 0
    reasoning_tokens: int = 0
    #: Whether the client received the final usage.
    usage_reported: bool = False
    client_disconnected: bool = False


class Journal:
    """The entries in memory and, if there is a file, one line in it for every start and every end."""

    def __init__(self, file: Path | None = None, *, max_entries: int = MAX_ENTRIES_IN_MEMORY) -> None:
        self._max_entries = max_entries
        self._entries: deque[JournalEntry] = deque()
        self._attempts: Counter[str] = Counter()
        self._last_seq = 0
        self._dropped = 0
        self._encoder = msgspec.json.Encoder()
        self._fd: int | None = None
        self._torn = False
        if file is not None:
            self._read(file)
            self._fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            if self._torn:
                os.write(self._fd, b"\n")

    def next_seq(self) -> int:
        self._last_seq += 1
        return self._last_seq

    def attempt_of(self, body_sha256: str) -> int:
        self._attempts[body_sha256] += 1
        return self._attempts[body_sha256]

    def start(self, entry: JournalEntry) -> None:
        self._add(entry)
        self._write(entry)

    def finish(self, entry: JournalEntry, outcome: CallOutcome) -> None:
        entry.outcome = outcome
        entry.finished_at = time.time()
        self._write(entry)

    def entries(
        self, *, after: int = 0, model: str | None = None, request_id: str | None = None, limit: int | None = None
    ) -> list[JournalEntry]:
        found = [
            entry
            for entry in self._entries
            if entry.seq > after
            and (model is None or entry.model == model)
            and (request_id is None or entry.client_request_id == request_id)
        ]
        return found if limit is None else found[-limit:]

    @property
    def dropped(self) -> int:
        """How many old entries are no longer in memory."""
        return self._dropped

    def clear(self) -> None:
        """Delete all entries; their numbers continue."""
        self._entries.clear()
        self._attempts.clear()
        self._dropped = 0
        if self._fd is not None:
            os.ftruncate(self._fd, 0)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _add(self, entry: JournalEntry) -> None:
        self._entries.append(entry)
        if len(self._entries) > self._max_entries:
            oldest = self._entries.popleft()
            self._dropped += 1
            if self._attempts[oldest.body_sha256] == oldest.attempt:
                del self._attempts[oldest.body_sha256]

    def _write(self, entry: JournalEntry) -> None:
        if self._fd is not None:
            # One write per line: data that has reached the kernel survives a killed process.
            os.write(self._fd, self._encoder.encode(entry) + b"\n")

    def _read(self, file: Path) -> None:
        """Continue where an earlier process was stopped or killed."""
        if not file.exists():
            return
        *lines, rest = file.read_bytes().split(b"\n")
        self._torn = rest != b""
        entries = {entry.seq: entry for entry in map(_parse_entry, lines) if entry is not None}
        for entry in entries.values():
            if entry.outcome == CallOutcome.RUNNING:
                entry.outcome = CallOutcome.LOST
            self._add(entry)
            self._attempts[entry.body_sha256] = max(self._attempts[entry.body_sha256], entry.attempt)
        self._last_seq = max(entries, default=0)


def _parse_entry(line: bytes) -> JournalEntry | None:
    """The entry in a line; None if it was only partly written when the machine failed."""
    try:
        return msgspec.json.decode(line, type=JournalEntry)
    except msgspec.DecodeError:
        return None
