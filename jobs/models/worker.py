"""The leases of worker processes, and pauses."""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from jobs.models.batch import Batch
from tenants.models import Site


class WorkerLease(models.Model):
    """One row per worker process, renewed by its heartbeat. An expired lease is never revived."""

    worker_id = models.UUIDField("worker ID", primary_key=True)
    host = models.CharField(max_length=255)
    pid = models.PositiveIntegerField("PID")
    version = models.CharField(max_length=40)
    started_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField()
    #: True while the worker shuts down: it claims no more jobs.
    draining = models.BooleanField(default=False)
    #: What it reported at the last heartbeat: slots, running jobs, retry budgets.
    report = models.JSONField(default=dict)

    class Meta:
        ordering = ["started_at"]
        verbose_name = "worker"

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"


class Pause(models.Model):
    """A pause of one site, one queue or one batch: none of its jobs is claimed. Running jobs finish."""

    site = models.OneToOneField(Site, models.CASCADE, null=True, blank=True, related_name="pause")
    queue = models.CharField(max_length=40, null=True, blank=True, unique=True)  # noqa: DJ001 (unique where given)
    batch = models.OneToOneField(Batch, models.CASCADE, null=True, blank=True, related_name="pause")
    #: Who paused it, and why.
    actor = models.CharField(max_length=150, blank=True)
    reason = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.CheckConstraint(
                name="a_pause_covers_one_thing",
                condition=Q(site__isnull=False, queue__isnull=True, batch__isnull=True)
                | Q(site__isnull=True, queue__isnull=False, batch__isnull=True)
                | Q(site__isnull=True, queue__isnull=True, batch__isnull=False),
            )
        ]

    def __str__(self) -> str:
        return f"pause of {self.site or self.queue or self.batch}"
