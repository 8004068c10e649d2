"""The Celery application: processes, queues and drain. What is run is decided by claims in Postgres."""

from typing import Any

from celery import Celery
from celery.signals import setup_logging

from nightdesk import env
from nightdesk.broker import OPERATION_TIMEOUT_SECONDS

env.use_settings("nightdesk.settings")


class NightdeskCelery(Celery):  # type: ignore[misc] # Celery ships no types
    """Celery that waits for no broker longer than is worth while for a doorbell."""

    def send_task(self, *arguments: Any, **options: Any) -> Any:
        return super().send_task(
            *arguments, timeout=OPERATION_TIMEOUT_SECONDS, confirm_timeout=OPERATION_TIMEOUT_SECONDS, **options
        )


@setup_logging.connect  # type: ignore[untyped-decorator]
def keep_our_logging(**_: Any) -> None:
    """Log as the settings say: without a listener to this, Celery sets the root logger to its own level."""


app = NightdeskCelery("nightdesk")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["jobs", "webhooks"])
# By name: it needs the models, which Celery loads before it looks the step up.
app.steps["worker"].add("nightdesk.worker:WorkerRuntimeStep")
