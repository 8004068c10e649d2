"""Models of the tenants: sites, their credentials, used nonces, rate limits and the audit log."""

from functools import cached_property

from django.contrib.postgres.fields import ArrayField
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from core.fields import EncryptedField
from core.ids import new_uuid, to_public


class Site(models.Model):
    """One WordPress site: the tenant (multi-tenancy). Every other row belongs to one."""

    ID_PREFIX = "site"

    id = models.UUIDField(primary_key=True, default=new_uuid, editable=False)
    slug = models.SlugField(max_length=63, unique=True)
    name = models.CharField(max_length=200)
    is_active = models.BooleanField("active", default=True)
    #: Networks (CIDR) from which requests are accepted; empty allows every address.
    ip_allowlist = ArrayField(models.CharField(max_length=49), verbose_name="IP allowlist", default=list, blank=True)
    #: Origins (`https://example.com`) from which browsers may send requests; empty allows none.
    origins = ArrayField(models.CharField(max_length=255), default=list, blank=True)
    #: Models that the site may use; empty allows all that have a route.
    allowed_models = ArrayField(models.CharField(max_length=200), default=list, blank=True)
    #: The legacy signature binds neither path nor nonce; off unless a site's plugin needs it.
    accepts_legacy_signature = models.BooleanField("accepts legacy signatures", default=False)
    #: How many of its jobs may run concurrently; None: no limit of its own.
    max_running_jobs = models.PositiveIntegerField(null=True, blank=True)
    #: Days after which prompts and answers of finished jobs are erased; None: JOB_RETENTION_DAYS, 0: never.
    retention_days = models.PositiveIntegerField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["slug"]
        # Streams have no rows of their own, so their permissions belong to sites.
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
    """A credential of a site. Several may be live at the same time, so that rotation overlaps."""

    ID_PREFIX = "key"

    id = models.UUIDField(primary_key=True, default=new_uuid, editable=False)
    site = models.ForeignKey(Site, models.CASCADE, related_name="credentials")
    kind = models.CharField(max_length=20, choices=CredentialKind.choices)
    #: Verifying an HMAC needs the signing secret, so it is stored encrypted; of an API key only the hash is stored.
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
    """A nonce (or a legacy signature) that was used; its unique row admits it once.

    Stored in Postgres, so that a flushed or unavailable Redis never admits a signed request twice.
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
    """The kinds of live requests, independent of their dialect."""

    CHAT = "chat", "Chat"
    EMBEDDINGS = "embeddings", "Embeddings"


def _limit_field(verbose_name: str) -> "models.PositiveIntegerField[int | None, int | None]":
    return models.PositiveIntegerField(verbose_name, null=True, blank=True, validators=[MinValueValidator(1)])


class Limit(models.Model):
    """Rate limits of live requests. An empty column limits nothing.

    A row without a site applies to every site that has no row of its own for the same kind and model, to each
    separately. All rows that match a request apply to it.
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
    #: As requests name it; empty: all models together.
    model = models.CharField(max_length=200, blank=True)
    requests_per_minute = _limit_field("requests per minute")
    requests_per_hour = _limit_field("requests per hour")
    requests_per_day = _limit_field("requests per day")
    #: Of input and output together.
    tokens_per_minute = _limit_field("tokens per minute")
    #: How many may run concurrently.
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
    """An action in the admin or by a command. Append-only: the database rejects changes."""

    at = models.DateTimeField("time", db_default=Now(), editable=False)
    #: A user's name, or the command.
    actor = models.CharField(max_length=150)
    action = models.CharField(max_length=60)
    #: The public id (or name) of the object of the action.
    subject = models.CharField(max_length=100)
    # Deleting a site leaves its entries unchanged, so there is no foreign key constraint.
    site = models.ForeignKey(Site, models.DO_NOTHING, null=True, db_constraint=False, related_name="+")
    details = models.JSONField(default=dict)
    address = models.GenericIPAddressField("IP address", null=True)

    class Meta:
        ordering = ["-id"]
        verbose_name = "audit log entry"
        verbose_name_plural = "audit log entries"

    def __str__(self) -> str:
        return f"{self.actor} {self.action} {self.subject}"
