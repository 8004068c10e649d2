"""Admin page of circuit breakers: the state of each provider key, since when, until when and why."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import redis
from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest

from core.humanize import format_age, format_duration, format_moment
from inference import routing
from inference.breaker_state import BreakerState, BreakerStatus, key_id
from inference.circuit_breaker import close_breaker, read_statuses
from inference.models import ProviderAccount
from inference.routing import ProviderSpec
from nightdesk.admin.live_page import LivePage, from_redis
from providers import errors
from tenants.audit import audit
from tenants.staff import actor_of

#: The reason of a failure, by the kind of the provider's error.
REASONS: Mapping[str, str] = {
    errors.ProviderKeyRejected.kind: "Key rejected",
    errors.ProviderRateLimited.kind: "Rate limited",
    errors.ProviderOverloaded.kind: "Provider overloaded",
    errors.TransientFailure.kind: "Provider error or unreachable",
    errors.AmbiguousOutcome.kind: "Connection lost before a response",
    errors.ProviderTimeout.kind: "Timeout",
    errors.ResponseInterrupted.kind: "Response interrupted",
    errors.BadResponse.kind: "Invalid response",
}
SETTINGS_KEY, STORED_KEY, UNUSED_KEY, NO_KEY = "from settings", "stored, encrypted", "no longer in use", "none"


@dataclass(frozen=True, slots=True)
class BreakerRow:
    """A provider's key, or one model of it."""

    provider: str
    key: str
    #: The provider's model; empty if the breaker covers the whole key.
    model: str
    color: str
    badge: str
    #: What the state means for calls.
    meaning: str
    since: str = ""
    since_moment: str = ""
    until: str = ""
    until_moment: str = ""
    reason: str = ""
    #: Kind of the error, and the provider's own code.
    code: str = ""
    failures: str = ""
    #: Id of the breaker; empty if it is closed.
    id: str = ""


def _name(status: BreakerStatus) -> str:
    return f"{status.provider} ({status.model})" if status.model else status.provider


def _read(_: HttpRequest, now: datetime) -> dict[str, Any]:
    specs = routing.get_routing().providers
    hints = dict(ProviderAccount.objects.values_list("name", "key_hint"))
    statuses = from_redis(read_statuses)
    return {
        "rows": rows(specs, hints, statuses, now),
        "is_redis_unavailable": statuses is None,
        "failures": settings.BREAKER_FAILURES,
        "window": format_duration(timedelta(seconds=settings.BREAKER_WINDOW_SECONDS)),
    }


def _close(request: HttpRequest, server: redis.Redis, id_: str) -> None:
    status = next((each for each in read_statuses(server) if each.id == id_), None)
    if status is None or not close_breaker(server, id_):
        messages.warning(request, "Nothing to do: the breaker is closed.")
        return
    # Redis and Postgres share no transaction, so the entry comes last: it lists only what was done.
    details = {"model": status.model, "state": status.state.value, "kind": status.kind, "code": status.code}
    audit(actor_of(request), "breaker.close", status.provider, details=details)
    messages.success(request, f"Closed the breaker of {_name(status)}. Calls resume within a second.")


PAGE = LivePage(
    name="breakers",
    title="Circuit breakers",
    icon="electrical_services",
    view_permission="inference.view_provideraccount",
    act_permission="inference.close_breaker",
    read=_read,
    verb="close",
    act=_close,
)


def rows(
    specs: Iterable[ProviderSpec], hints: Mapping[str, str], statuses: Sequence[BreakerStatus] | None, now: datetime
) -> list[BreakerRow]:
    """Return a row for each key, followed by the breakers of its models. Without statuses all are unknown."""
    result: list[BreakerRow] = []
    remaining = {status.id: status for status in statuses or ()}
    for spec in sorted(specs, key=lambda spec: spec.name):
        label, own_id = _key_label(spec, hints), key_id(spec)
        status = remaining.pop(own_id, None)
        result.append(_row(status, label, now) if status else _healthy_row(spec, label, is_known=statuses is not None))
        of_models = [id_ for id_ in remaining if id_.startswith(f"{own_id}:")]
        result += [_row(remaining.pop(id_), label, now) for id_ in of_models]
    return [*result, *(_row(status, UNUSED_KEY, now) for status in remaining.values())]


def _key_label(spec: ProviderSpec, hints: Mapping[str, str]) -> str:
    if not spec.api_key:
        return NO_KEY
    if spec.name not in hints:
        return SETTINGS_KEY
    hint = hints[spec.name]
    return f"…{hint}" if hint else STORED_KEY


def _healthy_row(spec: ProviderSpec, key: str, *, is_known: bool) -> BreakerRow:
    if not spec.api_key:
        return BreakerRow(spec.name, key, "", "", "No key", "No calls are made.")
    if not is_known:
        return BreakerRow(spec.name, key, "", "", "Unknown", "Calls go through.")
    return BreakerRow(spec.name, key, "", "success", "Closed", "Calls go through.")


def _row(status: BreakerStatus, key: str, now: datetime) -> BreakerRow:
    color, badge, meaning = _badge(status)
    opened_at, cooldown = status.opened_at, timedelta(seconds=status.cooldown_seconds)
    calls = status.failures + status.successes
    return BreakerRow(
        provider=status.provider,
        key=key,
        model=status.model,
        color=color,
        badge=badge,
        meaning=meaning,
        since=f"{format_age(opened_at, now)} ago" if opened_at else "",
        since_moment=format_moment(opened_at) if opened_at else "",
        until=f"in {format_duration(timedelta(seconds=math.ceil(status.cooldown_seconds)))}" if cooldown else "",
        until_moment=f"at {now + cooldown:%H:%M:%S} UTC" if cooldown else "",
        reason=REASONS.get(status.kind, "Provider error"),
        code=": ".join(filter(None, (status.kind, status.code))),
        failures=f"{status.failures:,} of {calls:,}" if calls else "",
        id="" if status.state is BreakerState.CLOSED else status.id,
    )


def _badge(status: BreakerStatus) -> tuple[str, str, str]:
    """Return the color, the name and the meaning of the state."""
    match status.state:
        case BreakerState.OPEN:
            return "danger", "Open", "No calls are made."
        case BreakerState.HALF_OPEN if status.is_probed:
            return "warning", "Half-open", "A probe call is in progress."
        case BreakerState.HALF_OPEN:
            return "warning", "Half-open", "The next call is a probe."
        case BreakerState.CLOSED:
            return "success", "Closed", "Some calls failed; calls go through."
