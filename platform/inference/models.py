"""Database models of routing: providers with their keys, routes and their targets."""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from core.fields import EncryptedField
from core.ids import new_uuid
from providers.types import Dialect


class ProviderAccount(models.Model):
    """A provider: a vendor endpoint that uses a dialect, with its own key."""

    id = models.UUIDField(primary_key=True, default=new_uuid, editable=False)
    name = models.SlugField(max_length=60, unique=True)
    dialect = models.CharField(max_length=20, choices=[(d.value, d.value) for d in Dialect])
    base_url = models.URLField("base URL", max_length=500)
    #: The vendor whose price list applies (`openai`, `anthropic`, …); empty: only price overrides.
    price_list = models.CharField(max_length=40, blank=True)
    #: Serves every model of its price list by the model's own name, without a route. Off for the simulator, whose
    #: answers must never stand in for a real provider's.
    serves_all_models = models.BooleanField(default=False)
    api_key = EncryptedField(null=True, editable=False)
    key_hint = models.CharField(max_length=8, blank=True, editable=False)
    #: For Azure's dated API; empty for its v1 API and for all other providers.
    api_version = models.CharField("API version", max_length=40, blank=True)
    #: Limit of concurrent jobs whose first target it is; None: no limit.
    max_running_jobs = models.PositiveIntegerField("max concurrent jobs", null=True, blank=True)
    is_active = models.BooleanField("active", default=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["name"]
        verbose_name = "provider"
        # Allows operators to close breakers in the admin.
        permissions = [("close_breaker", "Can close circuit breakers")]

    def __str__(self) -> str:
        return self.name


class Route(models.Model):
    """A model name that sites request, and the targets that serve it, in order."""

    id = models.UUIDField(primary_key=True, default=new_uuid, editable=False)
    model = models.CharField(max_length=200, unique=True, help_text="Model name used by sites")
    is_active = models.BooleanField("active", default=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ["model"]

    def __str__(self) -> str:
        return self.model


class RouteTarget(models.Model):
    """One provider and its model that a route may use."""

    route = models.ForeignKey(Route, models.CASCADE, related_name="targets")
    provider = models.ForeignKey(ProviderAccount, models.PROTECT, related_name="targets")
    upstream_model = models.CharField(max_length=200, help_text="The provider's own name of the model")
    #: Lower positions are tried first; targets of one position share the load by weight.
    position = models.PositiveSmallIntegerField(default=1)
    weight = models.PositiveSmallIntegerField(default=1)

    class Meta:
        ordering = ["route", "position", "-weight", "id"]
        constraints = [
            models.UniqueConstraint(fields=["route", "provider", "upstream_model"], name="a_target_stands_once"),
            models.CheckConstraint(name="weight_is_positive", condition=Q(weight__gte=1)),
        ]

    def __str__(self) -> str:
        return f"{self.provider}/{self.upstream_model}"
