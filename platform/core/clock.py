"""What time this process thinks it is. Engine times (leases, due work) are Postgres's, not these."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

_frozen_at: datetime | None = None


def now() -> datetime:
    """Return the time as an aware UTC moment."""
    return _frozen_at or datetime.now(UTC)


def unix_seconds() -> int:
    """Return the whole seconds since 1970, as signatures carry them."""
    return int(now().timestamp())


@contextmanager
def frozen(at: datetime) -> Iterator[None]:
    """Stop the clock at `at`, for tests and for replaying what happened at a moment."""
    global _frozen_at
    before, _frozen_at = _frozen_at, at
    try:
        yield
    finally:
        _frozen_at = before
