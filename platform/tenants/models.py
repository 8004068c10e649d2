"""Who uses the desk: sites, and the credentials they prove themselves with."""

from functools import cached_property

from django.contrib.postgres.fields import ArrayField
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from core.fields import EncryptedField
from core.ids import new_uuid, to_public


class Site(models.Model):
    """One WordPress site: the tenant. Everything else belongs to one."""

    ID_PREFIX = "site"

    id = models.UUIDField(primary_key=True, default=new_uuid, editable=False)
    slug = models.SlugField(max_length=63, unique=True)
    name = models.CharField(max_length=200)
    is_active = models.BooleanField("active", default=True)
    #: Networks (CIDR) that may ask in this site's name; empty allows every address.
    ip_allowlist = ArrayField(models.CharField(max_length=49), verbose_name="IP allowlist", default=list, blank=True)
    #: Origins (`https://example.com`) that browsers may ask from; empty allows none.
    origins = ArrayField(models.CharField(max_length=255), default=list, blank=True)
    #: Models that the site may ask for; empty allows all that are routed.
    allowed_models = ArrayField(models.CharField(max_length=200), default=list, blank=True)
    #: The legacy signature binds neither path nor nonce; off unless a site's plugin needs it.
    accepts_legacy_signature = models.BooleanField("accepts legacy signatures", default=False)
    #: How many of its jobs may run at once; None: as many as there is room for.
    max_running_jobs = models.PositiveIntegerField(null=True, blank=True)
    #: Days after which prompts and answers of ended jobs are erased; None: as JOB_RETENTION_DAYS says, 0: never.
    retention_days = models.PositiveIntegerField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["slug"]
        # Of streams there are no rows; they are their sites'.
        permissions = [
            ("view_stream", "Can view live streams"),
            ("cancel_stream", "Can cancel live streams"),
        ]

    def __str__(self) -> str:
        return self.slug

    @cached_property
    def public_id(self) -> str:
        return to_public(self.ID_PREFIX, self.id)


class CredentialKind(models.TextChoices):
    SIGNING_SECRET = "signing_secret", "Signing secret"  # noqa: S105 (a kind, not a secret)
    API_KEY = "api_key", "API key"


class Credential(models.Model):
    """What a site proves itself with. Several live at once, so that rotation overlaps."""

    ID_PREFIX = "key"

    id = models.UUIDField(primary_key=True, default=new_uuid, editable=False)
    site = models.ForeignKey(Site, models.CASCADE, related_name="credentials")
    kind = models.CharField(max_length=20, choices=CredentialKind.choices)
    #: A signing secret must be known to check an HMAC, so it is sealed; an API key is kept as a hash only.
    secret = EncryptedField(null=True, editable=False)
    key_prefix = models.CharField(max_length=16, null=True, unique=True, editable=False)  # noqa: DJ001 (unique)
    key_hash = models.BinaryField(max_length=32, null=True, editable=False)
    #: The last characters, to tell credentials apart.
    hint = models.CharField(max_length=8, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.CheckConstraint(
                name="credential_holds_what_its_kind_needs",
                condition=Q(kind="signing_secret", secret__isnull=False, key_hash__isnull=True)
                | Q(kind="api_key", secret__isnull=True, key_hash__isnull=False, key_prefix__isnull=False),
            )
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} …{self.hint}"

    @property
    def public_id(self) -> str:
        return to_public(self.ID_PREFIX, self.id)


class UsedNonce(models.Model):
    """A nonce (or a legacy signature) that was used; the row is the lock that lets it in once.

    Kept in Postgres, so that a flushed or absent Redis never lets a signed request in twice.
    """

    site = models.ForeignKey(Site, models.CASCADE)
    #: SHA-256 of the nonce: of one length, whatever was sent.
    digest = models.BinaryField(max_length=32)
    used_at = models.DateTimeField(db_default=Now(), db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(F("site"), F("digest"), name="nonce_is_used_once")]

    def __str__(self) -> str:
        return f"{self.site_id}"


class LimitKind(models.TextChoices):
    """What live requests are told apart by, whatever their dialect."""

    CHAT = "chat", "Chat"
    EMBEDDINGS = "embeddings", "Embeddings"


def _limit_field(verbose_name: str) -> "models.PositiveIntegerField[int | None, int | None]":
    return models.PositiveIntegerField(verbose_name, null=True, blank=True, validators=[MinValueValidator(1)])


class Limit(models.Model):
    """How much a site may ask live. An empty figure limits nothing.

    A row without a site is for every site that has no row of its own for the same kind and model, each for itself.
    A request keeps to all rows that are for it.
    """

    LIMIT_FIELDS = (
        "requests_per_minute",
        "requests_per_hour",
        "requests_per_day",
        "tokens_per_minute",
        "concurrency",
    )

    site = models.ForeignKey(Site, models.CASCADE, null=True, blank=True, related_name="limits")
    kind = models.CharField(max_length=20, blank=True, choices=LimitKind.choices)
    #: As sites ask for it; empty: all models together.
    model = models.CharField(max_length=200, blank=True)
    requests_per_minute = _limit_field("requests per minute")
    requests_per_hour = _limit_field("requests per hour")
    requests_per_day = _limit_field("requests per day")
    #: Of input and output together.
    tokens_per_minute = _limit_field("tokens per minute")
    #: How many may run at once.
    concurrency = _limit_field("concurrent requests")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = [F("site__slug").asc(nulls_first=True), "kind", "model"]
        constraints = [
            models.UniqueConstraint(
                fields=["site", "kind", "model"],
                name="one_limit_for_the_same",
                nulls_distinct=False,
                violation_error_message="A limit for this site, kind and model exists already. Change that one.",
            ),
            models.CheckConstraint(
                name="a_limit_lets_something_through",
                condition=~Q(requests_per_minute=0)
                & ~Q(requests_per_hour=0)
                & ~Q(requests_per_day=0)
                & ~Q(tokens_per_minute=0)
                & ~Q(concurrency=0),
            ),
            models.CheckConstraint(
                name="concurrency_is_of_all_together",
                condition=Q(concurrency=None) | Q(kind="", model=""),
                violation_error_message="Concurrency can only be limited for all kinds and models together.",
            ),
        ]

    def __str__(self) -> str:
        return " ".join(str(part) for part in (self.site or "every site", self.kind, self.model) if part)


class AuditEntry(models.Model):
    """What somebody did in the admin or by a command. Append-only: the database refuses changes."""

    at = models.DateTimeField("time", db_default=Now(), editable=False)
    #: A user's name, or the command.
    actor = models.CharField(max_length=150)
    action = models.CharField(max_length=60)
    #: The public id (or name) of what was acted upon.
    subject = models.CharField(max_length=100)
    # A site that goes away leaves its entries untouched, so nothing is done on deletion and nothing checked.
    site = models.ForeignKey(Site, models.DO_NOTHING, null=True, db_constraint=False, related_name="+")
    details = models.JSONField(default=dict)
    address = models.GenericIPAddressField("IP address", null=True)

    class Meta:
        ordering = ["-id"]
        verbose_name = "audit log entry"
        verbose_name_plural = "audit log entries"

    def __str__(self) -> str:
        return f"{self.actor} {self.action} {self.subject}"
