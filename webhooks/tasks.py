"""The doorbell of webhooks. Its message carries nothing: what is sent is decided by a claim in Postgres."""

from celery import shared_task

from core.doorbell import Doorbell

#: A ring that nobody heard for so long is stale: by then a courier has looked for itself.
STALE_SECONDS = 30


@shared_task(name="webhooks.ring", ignore_result=True)  # type: ignore[untyped-decorator] # Celery ships no types
def ring() -> None:
    """Wake this worker's courier."""
    bell.wake()


bell = Doorbell("webhooks", publish=lambda: ring.apply_async(expires=STALE_SECONDS))
