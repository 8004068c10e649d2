"""The Celery application: processes, queues and drain. What is run is decided by claims in Postgres."""

from celery import Celery

from nightdesk import env

env.use_settings("nightdesk.settings")

app = Celery("nightdesk")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["jobs", "webhooks"])
# By name: it needs the models, which Celery loads before it looks the step up.
app.steps["worker"].add("nightdesk.worker:DeskStep")
