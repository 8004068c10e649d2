"""The doorbell of jobs. Its message carries nothing: what is run is decided by a claim in Postgres."""

from celery import shared_task

from core.doorbell import Doorbell

#: A ring that nobody heard for so long is stale: by then a sweep has found the work.
STALE_SECONDS = 30


@shared_task(name="jobs.ring", ignore_result=True)  # type: ignore[untyped-decorator] # Celery ships no types
def ring() -> None:
    """Wake this worker's engine."""
    bell.wake()


bell = Doorbell("jobs", publish=lambda: ring.apply_async(expires=STALE_SECONDS))
