"""Batches: many jobs submitted together.

    validating ──▶ in_progress ──▶ finalizing ──▶ completed
        │               │  └──────▶ expired        (unfinished members expired with it)
        └──▶ failed     └──▶ cancelling ──▶ cancelled

The states, and their spelling, are those of OpenAI's batches (docs/reference/wire-formats.md, 7).
"""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from core.ids import new_uuid, to_public
from jobs.models.job import JobKind
from tenants.grant import GrantField
from tenants.models import Site


class BatchState(models.TextChoices):
    VALIDATING = "validating", "Validating"
    IN_PROGRESS = "in_progress", "In progress"
    FINALIZING = "finalizing", "Finalizing"
    COMPLETED = "completed", "Completed"
    FAILED = "failed", "Failed"
    EXPIRED = "expired", "Expired"
    CANCELLING = "cancelling", "Cancelling"
    CANCELLED = "cancelled", "Cancelled"


TERMINAL_BATCH_STATES = (BatchState.COMPLETED, BatchState.FAILED, BatchState.EXPIRED, BatchState.CANCELLED)


class Batch(models.Model):
    """A set of jobs submitted together; each member has a `custom_id`."""

    ID_PREFIX = "batch"

    id = models.UUIDField(primary_key=True, default=new_uuid, editable=False)
    site = models.ForeignKey(Site, models.CASCADE, related_name="batches")
    kind = models.CharField(max_length=20, choices=JobKind.choices)
    #: The model of all members; empty where they differ.
    model = models.CharField(max_length=200, blank=True)
    state = models.CharField(max_length=12, choices=BatchState.choices, default=BatchState.VALIDATING)
    #: None for members that were posted in the request itself.
    input_file = models.ForeignKey("jobs.File", models.SET_NULL, null=True, related_name="batches")
    idempotency_key = models.CharField(max_length=255, null=True)  # noqa: DJ001 (unique where given)
    #: `Identity.idempotency_scope` of the caller: restricted credentials have keys of their own.
    idempotency_scope = models.CharField(max_length=40, blank=True, db_default="")
    #: SHA-256 of the canonical request, like that of a job.
    request_hash = models.BinaryField(max_length=32)
    #: The site's own data about the batch: returned to it, never interpreted.
    metadata = models.JSONField(default=dict)
    request_id = models.CharField(max_length=64, blank=True)
    priority = models.SmallIntegerField(default=100)
    max_attempts = models.PositiveSmallIntegerField()
    #: The restrictions of the credential that submitted it; they apply to members that are read from a file later.
    grant = GrantField()
    #: The minimum interval of `batch.progress` events; None for no such events.
    progress_seconds = models.PositiveIntegerField(null=True)
    progress_sent_at = models.DateTimeField(null=True)
    #: How many members had ended at the last `batch.progress`.
    progress_sent_count = models.PositiveIntegerField(default=0)
    #: As submitted (`24h`).
    completion_window = models.CharField(max_length=10, default="24h")
    #: How long its output files are kept; None for the site's retention period.
    output_expires_seconds = models.PositiveIntegerField(null=True)
    retry_of = models.ForeignKey("self", models.SET_NULL, null=True, related_name="retries")

    #: Workers that started to read its file. After `jobs.batches.expand.MAX_READ_ATTEMPTS` lost ones the batch fails.
    read_count = models.PositiveSmallIntegerField(default=0)
    #: Why validation failed: `{code, message, param, line}`, the first hundred issues.
    errors = models.JSONField(default=list)
    #: The number of members; known once they are inserted.
    total = models.PositiveIntegerField(default=0)
    #: The counts are frozen when the batch ends; until then members are counted (`jobs.batches.progress`).
    completed = models.PositiveIntegerField(null=True)
    #: All members without an answer, including canceled and expired ones.
    failed = models.PositiveIntegerField(null=True)
    canceled = models.PositiveIntegerField(null=True)
    expired = models.PositiveIntegerField(null=True)
    cost_pico_usd = models.BigIntegerField(null=True)
    #: Tokens of all members' billed calls.
    input_tokens = models.PositiveBigIntegerField(null=True)
    cached_input_tokens = models.PositiveBigIntegerField(null=True)
    output_tokens = models.PositiveBigIntegerField(null=True)
    reasoning_tokens = models.PositiveBigIntegerField(null=True)
    #: Generated from the members whenever they are read; set when the batch ends.
    output_file = models.OneToOneField("jobs.File", models.SET_NULL, null=True, related_name="output_of")
    error_file = models.OneToOneField("jobs.File", models.SET_NULL, null=True, related_name="errors_of")

    created_at = models.DateTimeField(db_default=Now())
    #: When unfinished members expire.
    expires_at = models.DateTimeField()
    in_progress_at = models.DateTimeField(null=True)
    finalizing_at = models.DateTimeField(null=True)
    completed_at = models.DateTimeField(null=True)
    failed_at = models.DateTimeField(null=True)
    expired_at = models.DateTimeField(null=True)
    cancelling_at = models.DateTimeField(null=True)
    cancelled_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "batches"
        permissions = [
            ("cancel_batch", "Can cancel batches"),
            ("pause_batch", "Can pause and resume batches"),
            ("retry_batch", "Can retry failed batch members"),
        ]
        indexes = [
            models.Index(fields=["site", "-id"], name="batches_of_a_site"),
            # Read by jobs.batches.maintenance
            models.Index(
                fields=["state"],
                condition=~Q(state__in=["completed", "failed", "expired", "cancelled"]),
                name="batch_under_way",
            ),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["site", "idempotency_scope", "idempotency_key"],
                condition=Q(idempotency_key__isnull=False),
                name="one_batch_per_site_and_idempotency_key",
            ),
        ]

    def __str__(self) -> str:
        return self.public_id

    @property
    def public_id(self) -> str:
        return to_public(self.ID_PREFIX, self.id)

    @property
    def is_terminal(self) -> bool:
        return self.state in TERMINAL_BATCH_STATES
