"""JSON of rate limits."""

from collections.abc import Mapping
from typing import Any

from rest_framework import serializers

from api.serializers.strict import ConstantField
from tenants.models import LimitKind
from tenants.rate_limiting.status import RateLimitStatus, WindowStatus


class RateLimitWindowOut(serializers.Serializer[WindowStatus]):
    """A rate limit: `limit` requests or tokens per sliding window of `seconds`, and the remaining quota."""

    name = serializers.CharField(help_text="The name of the limit in errors and headers.")
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
    """A concurrency limit, and how much of it is in use."""

    limit = serializers.IntegerField(allow_null=True, help_text="`null`: unlimited.")
    running = serializers.IntegerField(
        allow_null=True, help_text="`null`: unknown, because Redis is unavailable or there is no limit."
    )


class LimitsOut(serializers.Serializer[Any]):
    """All limits of a site."""

    object = ConstantField("limits")
    windows = RateLimitWindowOut(
        many=True, help_text="A request must satisfy every limit that matches its kind and model."
    )
    concurrency = ConcurrencyOut(help_text="Concurrent live requests.")
    jobs = ConcurrencyOut(help_text="Running jobs; more jobs wait in the queue.")


def limits_to_wire(status: RateLimitStatus, *, max_jobs: int | None, running_jobs: int) -> Mapping[str, Any]:
    """Return the JSON of a site's limits and their use."""
    body: Mapping[str, Any] = LimitsOut(
        {
            "windows": [_window(window) for window in status.windows],
            "concurrency": {"limit": status.concurrency, "running": status.running},
            "jobs": {"limit": max_jobs, "running": running_jobs},
        }
    ).data
    return body


def _window(status: WindowStatus) -> Mapping[str, Any]:
    kind, model = status.scope
    return {
        "name": status.window.name,
        "kind": kind or None,
        "model": model or None,
        "unit": status.window.unit,
        "seconds": status.window.seconds,
        "limit": status.window.limit,
        "remaining": status.quota and status.quota.remaining,
        "reset_seconds": status.quota and round(status.quota.reset_seconds, 3),
    }
