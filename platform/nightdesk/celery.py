"""The Celery application: processes, queues and shutdown. Claims in Postgres decide which jobs run."""

from typing import Any

from celery import Celery
from celery.signals import setup_logging

from nightdesk import env
from nightdesk.broker import OPERATION_TIMEOUT_SECONDS

env.use_settings("nightdesk.settings")


class NightdeskCelery(Celery):  # type: ignore[misc] # Celery ships no types
    """Celery with timeouts for sending: a doorbell is not worth a long wait for the broker."""

    def send_task(self, *arguments: Any, **options: Any) -> Any:
        return super().send_task(
            *arguments, timeout=OPERATION_TIMEOUT_SECONDS, confirm_timeout=OPERATION_TIMEOUT_SECONDS, **options
        )


@setup_logging.connect  # type: ignore[untyped-decorator]
def keep_our_logging(**_: Any) -> None:
    """Keep the logging of settings.py: without a receiver of this signal, Celery reconfigures the root logger."""


app = NightdeskCelery("nightdesk")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["jobs", "webhooks"])
# By name: the step imports models, which Celery loads before it resolves the name.
app.steps["worker"].add("nightdesk.worker:WorkerRuntimeStep")
