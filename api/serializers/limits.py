"""Limits on the wire."""

from collections.abc import Mapping
from typing import Any

from rest_framework import serializers

from api.serializers.strict import ConstantField
from tenants.models import LimitKind
from tenants.rate_limiting.status import RateLimitStatus, WindowStatus


class WindowOut(serializers.Serializer[WindowStatus]):
    """So many requests or tokens in any so many seconds, and what is left of them now."""

    name = serializers.CharField(help_text="What the limit's errors and headers call it.")
    kind = serializers.ChoiceField(choices=LimitKind.choices, allow_null=True, help_text="`null`: all kinds together.")
    model = serializers.CharField(allow_null=True, help_text="`null`: all models together.")
    unit = serializers.ChoiceField(choices=["requests", "tokens"])
    seconds = serializers.IntegerField()
    limit = serializers.IntegerField()
    remaining = serializers.IntegerField(allow_null=True, help_text="`null`: unknown, because Redis is unavailable.")
    reset_seconds = serializers.FloatField(
        allow_null=True, help_text="Seconds until the full limit is available again, if unused."
    )


class ConcurrencyOut(serializers.Serializer[Any]):
    """How many may run at once."""

    limit = serializers.IntegerField(allow_null=True, help_text="`null`: any number.")
    running = serializers.IntegerField(allow_null=True, help_text="`null`: not known, or not counted.")


class LimitsOut(serializers.Serializer[Any]):
    """All limits of a site."""

    object = ConstantField("limits")
    windows = WindowOut(many=True, help_text="Each request keeps to all that are for its kind and model.")
    concurrency = ConcurrencyOut(help_text="Live requests.")
    jobs = ConcurrencyOut(help_text="Jobs: those beyond wait.")


def limits_to_wire(standing: RateLimitStatus, *, max_jobs: int | None, running_jobs: int) -> Mapping[str, Any]:
    """Write down how a site stands with its limits."""
    found: Mapping[str, Any] = LimitsOut(
        {
            "windows": [_window(each) for each in standing.windows],
            "concurrency": {"limit": standing.concurrency, "running": standing.running},
            "jobs": {"limit": max_jobs, "running": running_jobs},
        }
    ).data
    return found


def _window(each: WindowStatus) -> Mapping[str, Any]:
    kind, model = each.scope
    return {
        "name": each.window.name,
        "kind": kind or None,
        "model": model or None,
        "unit": each.window.unit,
        "seconds": each.window.seconds,
        "limit": each.window.limit,
        "remaining": each.quota and each.quota.remaining,
        "reset_seconds": each.quota and round(each.quota.reset_seconds, 3),
    }
