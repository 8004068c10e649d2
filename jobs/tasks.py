"""The doorbell of jobs: a Celery message without content. A claim in Postgres decides what is run."""

from celery import shared_task

from core.doorbell import Doorbell

#: A ring that no worker received for this long is stale: workers poll every second and have found the job.
STALE_SECONDS = 30


@shared_task(name="jobs.ring", ignore_result=True)  # type: ignore[untyped-decorator] # Celery ships no types
def ring() -> None:
    """Wake this worker's engine."""
    bell.wake_listener()


bell = Doorbell("jobs", publish=lambda: ring.apply_async(expires=STALE_SECONDS))
