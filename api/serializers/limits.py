"""Limits on the wire."""

from collections.abc import Mapping
from typing import Any

from rest_framework import serializers

from api.serializers.strict import Constant
from tenants.admission.standing import Standing, WindowNow
from tenants.models import LimitedKind


class WindowOut(serializers.Serializer[WindowNow]):
    """So many requests or tokens in any so many seconds, and what is left of them now."""

    name = serializers.CharField(help_text="What the limit's errors and headers call it.")
    kind = serializers.ChoiceField(
        choices=LimitedKind.choices, allow_null=True, help_text="`null`: all kinds together."
    )
    model = serializers.CharField(allow_null=True, help_text="`null`: all models together.")
    unit = serializers.ChoiceField(choices=["requests", "tokens"])
    seconds = serializers.IntegerField()
    limit = serializers.IntegerField()
    remaining = serializers.IntegerField(allow_null=True, help_text="`null`: not known, for the desk cannot count now.")
    reset_seconds = serializers.FloatField(
        allow_null=True, help_text="When all of it is there again, if nothing more is asked."
    )


class AtOnceOut(serializers.Serializer[Any]):
    """How many may run at once."""

    limit = serializers.IntegerField(allow_null=True, help_text="`null`: any number.")
    running = serializers.IntegerField(allow_null=True, help_text="`null`: not known, or not counted.")


class LimitsOut(serializers.Serializer[Any]):
    """All limits of a site."""

    object = Constant("limits")
    windows = WindowOut(many=True, help_text="Each request keeps to all that are for its kind and model.")
    concurrency = AtOnceOut(help_text="Live requests.")
    jobs = AtOnceOut(help_text="Jobs: those beyond wait.")


def limits_to_wire(standing: Standing, *, most_jobs: int | None, running_jobs: int) -> Mapping[str, Any]:
    """Write down how a site stands with its limits."""
    found: Mapping[str, Any] = LimitsOut(
        {
            "windows": [_window(each) for each in standing.windows],
            "concurrency": {"limit": standing.concurrency, "running": standing.running},
            "jobs": {"limit": most_jobs, "running": running_jobs},
        }
    ).data
    return found


def _window(each: WindowNow) -> Mapping[str, Any]:
    kind, model = each.scope
    return {
        "name": each.window.name,
        "kind": kind or None,
        "model": model or None,
        "unit": each.window.unit,
        "seconds": each.window.seconds,
        "limit": each.window.limit,
        "remaining": each.left and each.left.remaining,
        "reset_seconds": each.left and round(each.left.reset_seconds, 3),
    }
