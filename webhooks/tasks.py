"""The doorbell of webhooks. Its message has no content: a claim in Postgres decides what is sent."""

from celery import shared_task

from core.doorbell import Doorbell

#: A ring that was not consumed within this time expires; a courier has polled by then.
STALE_SECONDS = 30


@shared_task(name="webhooks.ring", ignore_result=True)  # type: ignore[untyped-decorator] # Celery ships no types
def ring() -> None:
    """Wake this worker's courier."""
    bell.wake_listener()


bell = Doorbell("webhooks", publish=lambda: ring.apply_async(expires=STALE_SECONDS))
