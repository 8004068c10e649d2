"""The admin's page of breakers: which provider's key is left alone, since when, until when and why."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect

from core import clock
from core.humanize import format_age, format_duration, format_moment
from core.redis import RedisUnavailable, blocking_client
from inference import routing
from inference.breaker_state import BreakerState, BreakerStatus, key_id
from inference.circuit_breaker import close_breaker, read_statuses
from inference.models import ProviderAccount
from inference.routing import ProviderSpec
from nightdesk.admin.live_page import LivePage
from providers import errors
from tenants.audit import audit
from tenants.staff import actor_of

PAGE = LivePage(
    name="breakers",
    title="Breakers",
    icon="electrical_services",
    view_permission="inference.view_provideraccount",
    act_permission="inference.close_breaker",
)
#: What a failure says of a provider, by our word for it.
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
    """A provider's key, or one model under it."""

    provider: str
    key: str
    #: The provider's model; empty where all of the key's are meant.
    model: str
    color: str
    badge: str
    #: What becomes of calls.
    meaning: str
    since: str = ""
    since_moment: str = ""
    until: str = ""
    until_moment: str = ""
    reason: str = ""
    #: Our word for the failure, and the provider's.
    code: str = ""
    failures: str = ""
    #: What to close it by; empty where it is closed.
    id: str = ""


def show(request: HttpRequest) -> HttpResponse:
    return PAGE.draw(request, _read)


def show_live(request: HttpRequest) -> HttpResponse:
    return PAGE.draw_live(request, _read)


def close(request: HttpRequest) -> HttpResponse:
    """Let calls through again, as an operator says."""
    PAGE.require(PAGE.may_act(request))
    # Who had to sign in first comes back by GET, which does nothing.
    if request.method == "POST":
        _close(request, request.POST.get("id", ""))
    return HttpResponseRedirect(PAGE.url)


#: Addresses below the admin's, with their views and names.
VIEWS = (
    ("breakers/", show, "desk_breakers"),
    ("breakers/live/", show_live, "desk_breakers_live"),
    ("breakers/close/", close, "desk_breakers_close"),
)


def _close(request: HttpRequest, id_: str) -> None:
    try:
        with blocking_client(settings.REDIS_URL) as server:
            status = next((each for each in read_statuses(server) if each.id == id_), None)
            is_done = status is not None and close_breaker(server, id_)
    except RedisUnavailable:
        messages.error(request, "Redis is unavailable, so no breaker was closed. Calls are let through meanwhile.")
        return
    if status is None or not is_done:
        messages.warning(request, "Nothing to do: the breaker is closed.")
        return
    # After the act, for the two cannot be one: what is written down was done.
    details = {"model": status.model, "state": status.state.value, "kind": status.kind, "code": status.code}
    audit(actor_of(request), "breaker.close", status.provider, details=details)
    messages.success(request, f"Closed: {_name(status)} is called again within a second.")


def _name(status: BreakerStatus) -> str:
    return f"{status.provider} ({status.model})" if status.model else status.provider


def _read(_: HttpRequest) -> dict[str, Any]:
    now = clock.now()
    specs = routing.get_routing().providers
    hints = dict(ProviderAccount.objects.values_list("name", "key_hint"))
    statuses = _statuses()
    return {
        "rows": rows(specs, hints, statuses, now),
        "is_redis_unavailable": statuses is None,
        "as_of": f"{now:%H:%M:%S} UTC",
    }


def _statuses() -> list[BreakerStatus] | None:
    """Return which keys are in trouble; None where Redis is away, so that nobody knows."""
    try:
        with blocking_client(settings.REDIS_URL) as server:
            return read_statuses(server)
    except RedisUnavailable:
        return None


def rows(
    specs: Iterable[ProviderSpec], hints: Mapping[str, str], statuses: Sequence[BreakerStatus] | None, now: datetime
) -> list[BreakerRow]:
    """Return a row for each key, with its models in trouble below it. Without states nobody knows how keys are."""
    found: list[BreakerRow] = []
    left = {status.id: status for status in statuses or ()}
    for spec in sorted(specs, key=lambda spec: spec.name):
        shown = _key_label(spec, hints)
        own = key_id(spec)
        status = left.pop(own, None)
        found.append(_row(status, shown, now) if status else _healthy_row(spec, shown, is_known=statuses is not None))
        of_models = [id_ for id_ in left if id_.startswith(f"{own}:")]
        found += [_row(left.pop(id_), shown, now) for id_ in of_models]
    return [*found, *(_row(status, UNUSED_KEY, now) for status in left.values())]


def _key_label(spec: ProviderSpec, hints: Mapping[str, str]) -> str:
    if not spec.api_key:
        return NO_KEY
    if spec.name not in hints:
        return SETTINGS_KEY
    hint = hints[spec.name]
    return f"…{hint}" if hint else STORED_KEY


def _healthy_row(spec: ProviderSpec, key: str, *, is_known: bool) -> BreakerRow:
    if not spec.api_key:
        return BreakerRow(spec.name, key, "", "", "No key", "Not called.")
    if not is_known:
        return BreakerRow(spec.name, key, "", "", "Unknown", "Calls are let through.")
    return BreakerRow(spec.name, key, "", "success", "Closed", "Calls are let through.")


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
        until_moment=f"at {now + cooldown:%H:%M:%S}" if cooldown else "",
        reason=REASONS.get(status.kind, "Provider error"),
        code=": ".join(filter(None, (status.kind, status.code))),
        failures=f"{status.failures:,} of {calls:,}" if calls else "",
        id="" if status.state is BreakerState.CLOSED else status.id,
    )


def _badge(status: BreakerStatus) -> tuple[str, str, str]:
    """Return color, name and meaning."""
    match status.state:
        case BreakerState.OPEN:
            return "danger", "Open", "No call is let through."
        case BreakerState.HALF_OPEN if status.is_probed:
            return "warning", "Half-open", "A probe call is in progress."
        case BreakerState.HALF_OPEN:
            return "warning", "Half-open", "The next call is let through as a probe."
        case BreakerState.CLOSED:
            return "success", "Closed", "Some calls failed; all are let through."
