"""Who works on a batch: one at a time, until they are done or gone."""

from contextlib import AbstractContextManager
from uuid import UUID

from core.advisory_locks import try_advisory_lock

#: Any number that no other two-part advisory lock of this database uses.
BATCH_LOCK = 0x4E49_474A


def try_batch_lock(batch_id: UUID) -> AbstractContextManager[bool]:
    """Hold the batch for this connection; False if somebody else does.

    What is written is decided by the row's state all the same; this keeps two from doing the same long work.
    """
    return try_advisory_lock(BATCH_LOCK, str(batch_id))
