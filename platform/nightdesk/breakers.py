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
from core.display import age, duration, moment
from core.redis import RedisAway, waiting_client
from inference import routing
from inference.breaker import close_breaker, read_states
from inference.health import Condition, State, key_id
from inference.models import ProviderAccount
from inference.routing import ProviderSpec
from nightdesk.desk_page import DeskPage
from providers import errors
from tenants.audit import audit
from tenants.staff import actor_of

PAGE = DeskPage(
    name="breakers",
    title="Breakers",
    icon="electrical_services",
    view_permission="inference.view_provideraccount",
    act_permission="inference.close_breaker",
)
#: What a failure says of a provider, by our word for it.
REASONS: Mapping[str, str] = {
    errors.CredentialDead.kind: "The key is refused",
    errors.RateLimited.kind: "The rate limit is reached",
    errors.Overloaded.kind: "The provider is overloaded",
    errors.Transient.kind: "The provider fails, or cannot be reached",
    errors.Ambiguous.kind: "Connections break before an answer",
    errors.TimedOut.kind: "The provider takes too long",
    errors.Interrupted.kind: "Answers break off",
    errors.BadResponse.kind: "Answers cannot be understood",
}
FROM_SETTINGS, KEPT, RETIRED, WITHOUT = "from the settings", "kept by the desk", "no longer in use", "none"


@dataclass(frozen=True, slots=True)
class Row:
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
        with waiting_client(settings.REDIS_URL) as server:
            state = next((each for each in read_states(server) if each.id == id_), None)
            is_done = state is not None and close_breaker(server, id_)
    except RedisAway:
        messages.error(request, "Redis does not answer, so nothing was closed. Calls are let through meanwhile.")
        return
    if state is None or not is_done:
        messages.warning(request, "Nothing to do: it is closed.")
        return
    # After the act, for the two cannot be one: what is written down was done.
    details = {"model": state.model, "condition": state.condition.value, "kind": state.kind, "code": state.code}
    audit(actor_of(request), "breaker.close", state.provider, details=details)
    messages.success(request, f"Closed: {_name(state)} is asked again within a second.")


def _name(state: State) -> str:
    return f"{state.provider} ({state.model})" if state.model else state.provider


def _read(_: HttpRequest) -> dict[str, Any]:
    now = clock.now()
    specs = routing.current().providers
    hints = dict(ProviderAccount.objects.values_list("name", "key_hint"))
    states = _states()
    return {"rows": rows(specs, hints, states, now), "is_away": states is None, "as_of": f"{now:%H:%M:%S} UTC"}


def _states() -> list[State] | None:
    """Return which keys are in trouble; None where Redis is away, so that nobody knows."""
    try:
        with waiting_client(settings.REDIS_URL) as server:
            return read_states(server)
    except RedisAway:
        return None


def rows(
    specs: Iterable[ProviderSpec], hints: Mapping[str, str], states: Sequence[State] | None, now: datetime
) -> list[Row]:
    """Return a row for each key, with its models in trouble below it. Without states nobody knows how keys are."""
    found: list[Row] = []
    left = {state.id: state for state in states or ()}
    for spec in sorted(specs, key=lambda spec: spec.name):
        shown = _key(spec, hints)
        own = key_id(spec)
        state = left.pop(own, None)
        found.append(_row(state, shown, now) if state else _quiet(spec, shown, is_known=states is not None))
        of_models = [id_ for id_ in left if id_.startswith(f"{own}:")]
        found += [_row(left.pop(id_), shown, now) for id_ in of_models]
    return [*found, *(_row(state, RETIRED, now) for state in left.values())]


def _key(spec: ProviderSpec, hints: Mapping[str, str]) -> str:
    if not spec.api_key:
        return WITHOUT
    if spec.name not in hints:
        return FROM_SETTINGS
    hint = hints[spec.name]
    return f"…{hint}" if hint else KEPT


def _quiet(spec: ProviderSpec, key: str, *, is_known: bool) -> Row:
    if not spec.api_key:
        return Row(spec.name, key, "", "", "No key", "It is not asked.")
    if not is_known:
        return Row(spec.name, key, "", "", "Unknown", "Calls are let through.")
    return Row(spec.name, key, "", "success", "Closed", "Calls are let through.")


def _row(state: State, key: str, now: datetime) -> Row:
    color, badge, meaning = _condition(state)
    opened_at, rest = state.opened_at, timedelta(seconds=state.rest_seconds)
    calls = state.failures + state.answers
    return Row(
        provider=state.provider,
        key=key,
        model=state.model,
        color=color,
        badge=badge,
        meaning=meaning,
        since=f"{age(opened_at, now)} ago" if opened_at else "",
        since_moment=moment(opened_at) if opened_at else "",
        until=f"in {duration(timedelta(seconds=math.ceil(state.rest_seconds)))}" if rest else "",
        until_moment=f"at {now + rest:%H:%M:%S}" if rest else "",
        reason=REASONS.get(state.kind, "The provider is in trouble"),
        code=": ".join(filter(None, (state.kind, state.code))),
        failures=f"{state.failures:,} of {calls:,}" if calls else "",
        id="" if state.condition is Condition.CLOSED else state.id,
    )


def _condition(state: State) -> tuple[str, str, str]:
    """Return color, name and meaning."""
    match state.condition:
        case Condition.OPEN:
            return "danger", "Open", "No call is let through."
        case Condition.HALF_OPEN if state.is_probed:
            return "warning", "Half-open", "One call is under way, to see."
        case Condition.HALF_OPEN:
            return "warning", "Half-open", "The next call is let through alone, to see."
        case Condition.CLOSED:
            return "success", "Closed", "Some calls failed; all are let through."
