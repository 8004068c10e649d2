"""The clock of this process, which tests can freeze. Leases and due work use the clock of Postgres instead."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

_frozen_at: datetime | None = None


def now() -> datetime:
    """Return the current time, aware and in UTC."""
    return _frozen_at or datetime.now(UTC)


def unix_seconds() -> int:
    """Return the whole seconds since 1970, as in signatures."""
    return int(now().timestamp())


@contextmanager
def frozen(at: datetime) -> Iterator[None]:
    """Freeze the clock at `at`, for tests."""
    global _frozen_at
    before, _frozen_at = _frozen_at, at
    try:
        yield
    finally:
        _frozen_at = before
