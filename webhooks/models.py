"""Endpoints, events and deliveries: the transactional outbox of webhooks, and its delivery log."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from core.fields import EncryptedField
from core.ids import new_uuid, to_public
from tenants.models import Site


class Endpoint(models.Model):
    """A URL of a site that receives its events."""

    ID_PREFIX = "ep"

    id = models.UUIDField(primary_key=True, default=new_uuid, editable=False)
    site = models.ForeignKey(Site, models.CASCADE, related_name="endpoints")
    url = models.URLField("URL", max_length=2000)
    description = models.CharField(max_length=200, blank=True)
    #: Types that it is subscribed to, e.g. `job.succeeded`; empty means all.
    event_types = ArrayField(models.CharField(max_length=60), default=list, blank=True)
    is_enabled = models.BooleanField("enabled", default=True)
    #: Why Nightdesk disabled it (`gone`, `failing`); empty while it is enabled or if a person disabled it.
    disabled_reason = models.CharField("reason for disabling", max_length=30, blank=True, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.url

    @property
    def public_id(self) -> str:
        return to_public(self.ID_PREFIX, self.id)


class EndpointSecret(models.Model):
    """A `whsec_…` secret. All that have not expired sign each delivery, so that rotation overlaps."""

    endpoint = models.ForeignKey(Endpoint, models.CASCADE, related_name="secrets")
    secret = EncryptedField(editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"secret of {to_public(Endpoint.ID_PREFIX, self.endpoint_id)}"


class Event(models.Model):
    """A fact about a subject. Written in the transaction that makes it true (transactional outbox); never changed."""

    ID_PREFIX = "evt"

    id = models.UUIDField(primary_key=True, default=new_uuid, editable=False)
    site = models.ForeignKey(Site, models.CASCADE, related_name="events")
    type = models.CharField(max_length=60)
    #: E.g. the job. Not a foreign key, because webhooks is below jobs.
    subject_id = models.UUIDField("subject", null=True)
    #: It reports that the subject finished (`job.succeeded`, `job.failed`, …). A subject has one such event.
    is_terminal = models.BooleanField("final", default=False)
    #: The exact bytes that are signed and sent at every attempt; encrypted at rest.
    payload = EncryptedField(editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["subject_id"], name="events_of_a_subject")]
        constraints = [
            models.UniqueConstraint(
                fields=["subject_id"], condition=Q(is_terminal=True), name="one_terminal_event_per_subject"
            )
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.public_id}"

    @property
    def public_id(self) -> str:
        return to_public(self.ID_PREFIX, self.id)


class DeliveryState(models.TextChoices):
    PENDING = "pending", "Pending"
    DELIVERED = "delivered", "Delivered"
    EXHAUSTED = "exhausted", "Failed"
    CANCELED = "canceled", "Canceled"


class Delivery(models.Model):
    """One event on its way to one endpoint."""

    ID_PREFIX = "dlv"

    id = models.UUIDField(primary_key=True, default=new_uuid, editable=False)
    site = models.ForeignKey(Site, models.CASCADE, related_name="deliveries")
    event = models.ForeignKey(Event, models.CASCADE, related_name="deliveries")
    endpoint = models.ForeignKey(Endpoint, models.CASCADE, related_name="deliveries")
    state = models.CharField(max_length=10, choices=DeliveryState.choices, default=DeliveryState.PENDING)
    #: Attempts started. Together with the id it is the fencing token of one attempt.
    attempts = models.PositiveSmallIntegerField(default=0)
    #: When the next attempt may start. A claim moves it beyond the attempt's deadline: that is the lease.
    due_at = models.DateTimeField("next attempt", null=True, db_default=Now())
    last_status = models.PositiveSmallIntegerField("last HTTP status", null=True)
    last_error = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "deliveries"
        indexes = [
            # For the claims of couriers: webhooks.claim.claim_due
            models.Index(fields=["due_at"], condition=Q(state="pending"), name="delivery_due"),
            models.Index(fields=["site", "-id"], name="deliveries_of_a_site"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["event", "endpoint"], name="one_delivery_per_event_and_endpoint"),
            models.CheckConstraint(
                name="pending_deliveries_are_due_and_ended_ones_finished",
                condition=Q(state="pending", due_at__isnull=False, finished_at__isnull=True)
                | (~Q(state="pending") & Q(due_at__isnull=True, finished_at__isnull=False)),
            ),
        ]

    def __str__(self) -> str:
        return self.public_id

    @property
    def public_id(self) -> str:
        return to_public(self.ID_PREFIX, self.id)


class DeliveryAttempt(models.Model):
    """One HTTP exchange with an endpoint: a row of the delivery log."""

    delivery = models.ForeignKey(Delivery, models.CASCADE, related_name="log")
    number = models.PositiveSmallIntegerField()
    started_at = models.DateTimeField(db_default=Now())
    duration_ms = models.PositiveIntegerField("duration (ms)", null=True)
    #: HTTP status; None if there was no response.
    status = models.PositiveSmallIntegerField("HTTP status", null=True)
    #: Why it failed, in our words.
    error = models.CharField(max_length=200, blank=True)
    #: The first bytes of the response body, as text.
    response_head = models.CharField("start of the response", max_length=1000, blank=True)

    class Meta:
        ordering = ["delivery", "number"]
        constraints = [models.UniqueConstraint(fields=["delivery", "number"], name="one_row_per_delivery_attempt")]

    def __str__(self) -> str:
        return f"{to_public(Delivery.ID_PREFIX, self.delivery_id)} #{self.number}"
