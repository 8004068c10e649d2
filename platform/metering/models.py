"""Usage events, one per provider call, and the price overrides of this installation."""

from django.contrib.postgres.indexes import BrinIndex
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from core.ids import new_uuid
from providers.tiers import Tier
from tenants.models import Site


class UsageOutcome(models.TextChoices):
    """How a call ended."""

    #: Written before the call is made, so that a killed worker leaves a trace.
    OPEN = "open", "In progress"
    OK = "ok", "OK"
    ERROR = "error", "Error"
    TIMEOUT = "timeout", "Timed out"
    CANCELED = "canceled", "Canceled"
    #: The process died during the call; its usage is estimated.
    LOST = "lost", "Lost"


class UsageEvent(models.Model):
    """One provider call: tokens, cost, outcome. Money is an integer number of pico-USD (10⁻¹² USD)."""

    #: `job:attempt:call` as text. Makes writes idempotent: writing the record of a call twice changes nothing.
    dedupe_key = models.CharField("deduplication key", max_length=80, unique=True)
    site = models.ForeignKey(Site, models.PROTECT, related_name="usage_events")
    #: The job, for queued work. No foreign key: usage events outlive jobs, and metering is below jobs.
    job_id = models.UUIDField(null=True, db_index=True)
    attempt = models.PositiveIntegerField(null=True)
    #: Counted from 1 within the attempt.
    call = models.PositiveIntegerField()
    request_id = models.CharField("request ID", max_length=64, blank=True)

    provider = models.CharField(max_length=60)
    #: The price list that applies (`providers.catalogue`); empty if only price overrides can.
    price_list = models.CharField(max_length=40, blank=True)
    #: The name the site requested, and the provider's name for it.
    model = models.CharField(max_length=200)
    upstream_model = models.CharField(max_length=200)

    outcome = models.CharField(max_length=10, choices=UsageOutcome.choices, default=UsageOutcome.OPEN)
    #: Nightdesk's class of the error (`providers.errors`), and the provider's own code.
    error_kind = models.CharField(max_length=30, blank=True)
    error_code = models.CharField(max_length=100, blank=True)
    http_status = models.PositiveSmallIntegerField(null=True)

    #: True for the one call whose answer the site received.
    billable = models.BooleanField("billed", default=False)
    #: True if the provider reported no usage: the token counts are estimates.
    estimated = models.BooleanField(default=False)
    input_tokens = models.PositiveIntegerField(default=0)
    cached_input_tokens = models.PositiveIntegerField(default=0)
    cache_write_tokens = models.PositiveIntegerField(default=0)
    cache_write_1h_tokens = models.PositiveIntegerField("cache write tokens (1 h)", default=0)
    output_tokens = models.PositiveIntegerField(default=0)
    reasoning_tokens = models.PositiveIntegerField(default=0)
    #: The price tier that was charged: the one the provider reports, otherwise the requested one.
    tier = models.CharField(
        max_length=10,
        choices=[(tier.value, tier.value) for tier in Tier],
        default=Tier.STANDARD.value,
        # Processes of the previous version write events without it.
        db_default=Tier.STANDARD.value,
    )
    cost_pico_usd = models.BigIntegerField(default=0)
    #: The price that was applied; empty if no price is known: the cost is then 0 and means "unknown".
    price_version = models.CharField(max_length=40, blank=True)

    started_at = models.DateTimeField(db_default=Now())
    duration_ms = models.PositiveIntegerField(null=True)
    first_token_ms = models.PositiveIntegerField("time to first token (ms)", null=True)

    class Meta:
        ordering = ["id"]
        indexes = [
            models.Index(fields=["site", "started_at"], name="usage_of_a_site_in_a_period"),
            # For the operators' queries by period: metering.reports, metering.totals. Rows are inserted in order of
            # time, so a small BRIN index suffices.
            BrinIndex(fields=["started_at"], name="usage_of_a_period", autosummarize=True),
        ]
        constraints = [
            models.UniqueConstraint(fields=["job_id"], condition=Q(billable=True), name="one_billed_call_per_job"),
            models.CheckConstraint(name="open_calls_are_not_billed", condition=~Q(outcome="open", billable=True)),
        ]

    def __str__(self) -> str:
        return self.dedupe_key


class Price(models.Model):
    """A price override: replaces the catalogue's price of a model (`providers.catalogue`) from a date on.

    All rates are in micro-USD per million tokens (2.50 USD is 2,500,000).
    """

    id = models.UUIDField(primary_key=True, default=new_uuid, editable=False)
    provider = models.CharField(max_length=60, help_text="Name of the provider, as in Routing")
    model = models.CharField(max_length=200, help_text="The provider's own name of the model")
    effective_at = models.DateTimeField("starts")
    input_rate = models.BigIntegerField()
    cached_input_rate = models.BigIntegerField(null=True, blank=True, help_text="Empty: same as input")
    cache_write_rate = models.BigIntegerField(null=True, blank=True, help_text="Empty: same as input")
    cache_write_1h_rate = models.BigIntegerField(null=True, blank=True, help_text="Empty: same as cache write")
    output_rate = models.BigIntegerField()
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["provider", "model", "-effective_at"]
        constraints = [
            models.UniqueConstraint(fields=["provider", "model", "effective_at"], name="one_price_from_a_moment"),
            models.CheckConstraint(
                name="rates_are_not_negative", condition=Q(input_rate__gte=0) & Q(output_rate__gte=0)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.provider}/{self.model} from {self.effective_at:%Y-%m-%d}"
