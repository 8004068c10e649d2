"""Jobs and the attempts at them.

    queued ──claim──▶ running ──finish──▶ succeeded | failed | canceled
      │ ▲                │
      │ └──retry, lost───┘
      └──cancel──▶ canceled        └──▶ expired   (queued past its expiry)

Terminal rows never change. (job, attempt) is the fencing token: only the worker that holds it can write the outcome.
"""

from uuid import UUID

from django.db import models
from django.db.models import F, Q, Value
from django.db.models.functions import Coalesce, Now

from core.fields import EncryptedField
from core.ids import new_uuid, to_public
from tenants.models import Site

#: Represents "no batch" where an index or a comparison needs a value.
NO_BATCH = UUID(int=0)

#: After this many losses, together with other jobs that were lost before, a job is in quarantine: a worker has one such
#: job at a time (`jobs.worker.sweep`).
QUARANTINE_CRASHES = 2

#: Not read where they are not needed: one value that cannot be decrypted must not make all the others unreadable.
ENCRYPTED_FIELDS = ("payload", "result")

#: The queue of individual jobs, and the one of batch members.
DEFAULT_QUEUE, BATCH_QUEUE = "default", "batch"


class JobState(models.TextChoices):
    QUEUED = "queued", "Queued"
    RUNNING = "running", "Running"
    SUCCEEDED = "succeeded", "Succeeded"
    FAILED = "failed", "Failed"
    CANCELED = "canceled", "Canceled"
    EXPIRED = "expired", "Expired"


TERMINAL_STATES = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED, JobState.EXPIRED)


class JobKind(models.TextChoices):
    """The kind of request, which is also the wire format of the body and of the result."""

    CHAT = "chat", "Chat completion"
    MESSAGES = "messages", "Anthropic message"
    EMBEDDINGS = "embeddings", "Embeddings"


class Job(models.Model):
    """A queued request with durable state."""

    ID_PREFIX = "job"

    id = models.UUIDField(primary_key=True, default=new_uuid, editable=False)
    # No index on this column or `batch` alone: the planner would prefer it to the indexes that begin with them.
    site = models.ForeignKey(Site, models.CASCADE, related_name="jobs", db_index=False)
    kind = models.CharField(max_length=20, choices=JobKind.choices)
    #: The model name that the site requested; it selects the route.
    model = models.CharField(max_length=200)
    #: The first provider of the model's route when the job was submitted. The job counts against its cap.
    provider = models.CharField(max_length=60, blank=True)
    queue = models.CharField(max_length=40, default=DEFAULT_QUEUE)
    #: Lower is sooner.
    priority = models.SmallIntegerField(default=100)
    state = models.CharField(max_length=10, choices=JobState.choices, default=JobState.QUEUED)

    idempotency_key = models.CharField(max_length=255, null=True)  # noqa: DJ001 (unique where given)
    #: `Identity.idempotency_scope` of the caller: restricted credentials have keys of their own.
    idempotency_scope = models.CharField(max_length=40, blank=True, db_default="")
    #: SHA-256 of the canonical request: distinguishes a repeated submission from a different one with the same key.
    request_hash = models.BinaryField(max_length=32)
    #: Encrypted JSON in the format `payload_version` (`jobs.payload`). None after it was erased.
    payload = EncryptedField(null=True, editable=False)
    payload_version = models.PositiveSmallIntegerField(default=1)
    #: The site's own data about the job: returned to it, never interpreted.
    metadata = models.JSONField(default=dict)
    request_id = models.CharField(max_length=64, blank=True)

    available_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(null=True)
    #: Includes released and deferred attempts, whose number is not limited.
    attempt = models.PositiveIntegerField(default=0)
    max_attempts = models.PositiveSmallIntegerField(default=3)
    #: How many workers were lost while they ran it.
    crash_count = models.PositiveSmallIntegerField(default=0)
    #: Attempts that ended in an error. `max_attempts` limits these, not lost or released attempts.
    error_count = models.PositiveSmallIntegerField(default=0)
    worker_id = models.UUIDField(null=True)
    deadline_at = models.DateTimeField(null=True)
    cancel_requested_at = models.DateTimeField(null=True)

    result = EncryptedField(null=True, editable=False)
    error_code = models.CharField(max_length=60, blank=True)
    error_message = models.CharField(max_length=600, blank=True)
    created_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True)
    retry_of = models.ForeignKey("self", models.SET_NULL, null=True, related_name="retries")
    #: When payload and result were erased, at the end of the site's retention.
    erased_at = models.DateTimeField(null=True)

    #: The batch it is a member of, and its name there. Members have no webhook events of their own, only the batch has.
    batch = models.ForeignKey("jobs.Batch", models.CASCADE, null=True, related_name="members", db_index=False)
    custom_id = models.CharField(max_length=200, blank=True)

    class Meta:
        ordering = ["-id"]
        # What operators may do in the admin, beside looking.
        permissions = [
            ("cancel_job", "Can cancel jobs"),
            ("retry_job", "Can retry jobs"),
            ("view_payload", "Can read prompts and answers"),
        ]
        indexes = [
            # Read by claims, lane by lane: jobs.worker.claim.claim
            models.Index(
                F("queue"),
                F("priority"),
                F("site"),
                F("provider"),
                Coalesce("batch", Value(NO_BATCH)),
                F("available_at"),
                F("id"),
                condition=Q(state="queued"),
                name="job_ready_in_lanes",
            ),
            # Read by claims: jobs in quarantine
            models.Index(
                fields=["priority", "available_at"],
                condition=Q(state="queued", crash_count__gte=2),
                name="job_in_quarantine",
            ),
            # Read by the sweep and the heartbeat
            models.Index(fields=["worker_id"], condition=Q(state="running"), name="job_running"),
            models.Index(fields=["site", "-id"], name="jobs_of_a_site"),
            # The individual jobs, among many thousands of batch members
            models.Index(fields=["site", "-id"], condition=Q(batch__isnull=True), name="single_jobs_of_a_site"),
            # Progress, and results in the order of the input
            models.Index(fields=["batch", "state"], condition=Q(batch__isnull=False), name="progress_of_a_batch"),
            models.Index(fields=["batch", "id"], condition=Q(batch__isnull=False), name="members_of_a_batch"),
            # Read by the sweep and the retention
            models.Index(fields=["expires_at"], condition=Q(state="queued"), name="job_expiring"),
            models.Index(fields=["site", "finished_at"], condition=Q(erased_at__isnull=True), name="job_not_erased"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["site", "idempotency_scope", "idempotency_key"],
                condition=Q(idempotency_key__isnull=False),
                name="one_job_per_site_and_idempotency_key",
            ),
            models.UniqueConstraint(
                fields=["batch", "custom_id"], condition=Q(batch__isnull=False), name="one_member_per_custom_id"
            ),
            models.CheckConstraint(
                name="running_jobs_have_a_worker",
                condition=Q(state="running", worker_id__isnull=False, deadline_at__isnull=False)
                | (~Q(state="running") & Q(worker_id__isnull=True, deadline_at__isnull=True)),
            ),
            models.CheckConstraint(
                name="terminal_jobs_are_finished",
                condition=Q(state__in=["queued", "running"], finished_at__isnull=True)
                | Q(state__in=["succeeded", "failed", "canceled", "expired"], finished_at__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return self.public_id

    @property
    def public_id(self) -> str:
        return to_public(self.ID_PREFIX, self.id)

    @property
    def is_terminal(self) -> bool:
        return self.state in TERMINAL_STATES


class AttemptOutcome(models.TextChoices):
    OK = "ok", "OK"
    ERROR = "error", "Error"
    LOST = "lost", "Worker lost"
    RELEASED = "released", "Released"
    CANCELED = "canceled", "Canceled"


class Attempt(models.Model):
    """One attempt of a worker at a job. Append-only; open until `ended_at`."""

    job = models.ForeignKey(Job, models.CASCADE, related_name="attempts", db_index=False)
    #: Counted from 1.
    number = models.PositiveIntegerField()
    worker_id = models.UUIDField()
    started_at = models.DateTimeField(db_default=Now())
    ended_at = models.DateTimeField(null=True)
    outcome = models.CharField(max_length=10, choices=AttemptOutcome.choices, blank=True)
    error_code = models.CharField(max_length=60, blank=True)
    error_message = models.CharField(max_length=600, blank=True)

    class Meta:
        ordering = ["job", "number"]
        constraints = [models.UniqueConstraint(fields=["job", "number"], name="one_row_per_attempt")]

    def __str__(self) -> str:
        return f"{self.job_id} #{self.number}"
