"""The admin page of circuit breakers: their states, and closing one by hand."""

import asyncio
import re
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.conf import settings
from django.test import Client
from django.test.utils import override_settings

from core import clock, redis
from inference import routing
from inference.breaker_state import BreakerState, BreakerStatus, key_id
from inference.circuit_breaker import BREAKERS_KEY, RedisCircuitBreaker
from inference.models import ProviderAccount
from inference.routing import ProviderSpec, Target
from nightdesk.admin.breakers import REASONS, rows
from providers.errors import ProviderError, ProviderKeyRejected, ProviderOverloaded, ProviderRateLimited
from providers.types import Dialect
from tenants.models import AuditEntry
from tests.factories import make_provider
from tests.operators import sign_in, words

pytestmark = pytest.mark.django_db

PAGE = "/admin/breakers/"
DEAD = ProviderKeyRejected("no", 401, "invalid_api_key")
SLOW = ProviderRateLimited("slow", 429, "rate_limit_exceeded", retry_after_seconds=90)
MAY_LOOK, MAY_CLOSE = "inference.view_provideraccount", "inference.close_breaker"


@pytest.fixture(autouse=True)
def _nothing_is_noted() -> Iterator[None]:
    yield
    with redis.blocking_client(settings.REDIS_URL) as server:
        server.delete(BREAKERS_KEY)


@pytest.fixture
def openai() -> ProviderSpec:
    account = make_provider("openai-eu")
    ProviderAccount.objects.filter(id=account.id).update(key_hint="a1b2")
    make_provider("spare")
    routing.invalidate_cache()
    return next(spec for spec in routing.get_routing().providers if spec.name == "openai-eu")


def note(spec: ProviderSpec, *errors: ProviderError, model: str = "gpt-4o-mini") -> None:
    """Record failed calls, as a process does."""

    async def report() -> None:
        breakers = RedisCircuitBreaker(settings.REDIS_URL)
        for error in errors:
            await breakers.report(Target(spec, model), error)
        await breakers.close()
        await redis.close_clients()

    asyncio.run(report())


def page(browser: Client) -> str:
    response = browser.get(PAGE)
    assert response.status_code == 200
    return words(response.content.decode())


def close(browser: Client, id_: str) -> str:
    response = browser.post(f"{PAGE}close/", {"id": id_}, follow=True)
    assert response.status_code == 200
    return words(response.content.decode())


def test_breakers_of_healthy_keys_are_closed(openai: ProviderSpec) -> None:
    shown = page(sign_in())

    assert "openai-eu key …a1b2 Closed Calls go through." in shown
    assert "spare" in shown
    assert "Open " not in shown


def test_the_breaker_of_a_rejected_key_is_open_with_times_and_reason(openai: ProviderSpec) -> None:
    note(openai, DEAD)

    shown = page(sign_in())

    assert re.search(r"openai-eu key …a1b2 Open No calls are made\. \d s ago in (1 min|5\d s) at \d\d:", shown)
    assert "Key rejected provider_key_rejected: invalid_api_key 1 of 1" in shown
    assert openai.api_key is not None
    assert openai.api_key not in shown


def test_a_rate_limited_model_is_listed_below_its_healthy_key(openai: ProviderSpec) -> None:
    note(openai, SLOW)

    shown = page(sign_in())

    key, model = shown.index("openai-eu key …a1b2 Closed"), shown.index("openai-eu gpt-4o-mini key …a1b2 Open")
    assert key < model < shown.index("spare")
    assert "Rate limited rate_limited: rate_limit_exceeded" in shown


def test_closing_a_breaker_is_audited(openai: ProviderSpec) -> None:
    note(openai, DEAD)
    browser = sign_in(MAY_LOOK, MAY_CLOSE)
    assert "power Close" in page(browser)

    shown = close(browser, key_id(openai))

    assert "Closed the breaker of openai-eu. Calls resume within a second." in shown
    assert "Key rejected" not in shown
    (entry,) = AuditEntry.objects.all()
    assert (entry.actor, entry.action, entry.subject, entry.address) == (
        "ada",
        "breaker.close",
        "openai-eu",
        "192.0.2.7",
    )
    assert entry.details == {"model": "", "state": "open", "kind": "provider_key_rejected", "code": "invalid_api_key"}


@pytest.mark.parametrize("id_", ["", "openai-eu:000000000000", "nonsense"])
def test_closing_an_unknown_breaker_does_nothing(openai: ProviderSpec, id_: str) -> None:
    note(openai, DEAD)
    browser = sign_in()

    assert "Nothing to do" in close(browser, id_)
    assert "Key rejected" in page(browser)
    assert not AuditEntry.objects.exists()


def test_get_does_not_close_a_breaker(openai: ProviderSpec) -> None:
    note(openai, DEAD)
    browser = sign_in()

    assert browser.get(f"{PAGE}close/", {"id": key_id(openai)}).status_code == 302
    assert "Key rejected" in page(browser)


def test_closing_a_breaker_requires_a_csrf_token(openai: ProviderSpec) -> None:
    note(openai, DEAD)

    assert sign_in(csrf=True).post(f"{PAGE}close/", {"id": key_id(openai)}).status_code == 403
    assert "Key rejected" in page(sign_in(name="bob"))


def test_view_permission_alone_shows_no_button(openai: ProviderSpec) -> None:
    note(openai, DEAD)
    browser = sign_in(MAY_LOOK)

    assert "power Close" not in page(browser)
    assert browser.post(f"{PAGE}close/", {"id": key_id(openai)}).status_code == 403
    assert "Key rejected" in page(browser)


def test_the_page_requires_the_view_permission(openai: ProviderSpec) -> None:
    browser = sign_in("jobs.view_job", MAY_CLOSE)

    for address in (PAGE, f"{PAGE}live/"):
        assert browser.get(address).status_code == 403
    assert browser.post(f"{PAGE}close/", {"id": key_id(openai)}).status_code == 403


def test_without_redis_breaker_states_are_unknown(openai: ProviderSpec) -> None:
    browser = sign_in()

    with override_settings(REDIS_URL="redis://127.0.0.1:1/0"):
        shown = page(browser)
        said = close(browser, key_id(openai))

    assert "Redis is unavailable, so the states of breakers are unknown" in shown
    assert "openai-eu key …a1b2 Unknown Calls go through." in shown
    assert "Could not close it: Redis is unavailable." in said
    assert not AuditEntry.objects.exists()


def test_the_refreshing_part_is_served_separately(openai: ProviderSpec) -> None:
    note(openai, DEAD)

    browser = sign_in(csrf=True)
    part = browser.get(f"{PAGE}live/").content.decode()

    assert "Key rejected" in part
    assert "<html" not in part
    # Its buttons work, too.
    fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', part))
    browser.post(f"{PAGE}close/", fields)
    assert "Key rejected" not in page(browser)


# The rows

SPEC = ProviderSpec("openai", Dialect.OPENAI, "https://api.test", "sk-one")


def status(state: BreakerState, **changes: object) -> BreakerStatus:
    values: dict[str, object] = {
        "id": key_id(SPEC),
        "provider": "openai",
        "model": "",
        "state": state,
        "kind": ProviderOverloaded.kind,
        "code": "",
        "failures": 5,
        "successes": 1,
        "opened_at": clock.now() - timedelta(minutes=3) if state is not BreakerState.CLOSED else None,
        "cooldown_seconds": 30.0 if state is BreakerState.OPEN else 0.0,
        "is_probed": False,
    }
    return BreakerStatus(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "badge", "meaning"),
    [
        (status(BreakerState.OPEN), "Open", "No calls are made."),
        (status(BreakerState.HALF_OPEN), "Half-open", "The next call is a probe."),
        (status(BreakerState.HALF_OPEN, is_probed=True), "Half-open", "A probe call is in progress."),
        (status(BreakerState.CLOSED), "Closed", "Some calls failed; calls go through."),
    ],
)
def test_each_breaker_state_has_a_badge_and_a_meaning(given: BreakerStatus, badge: str, meaning: str) -> None:
    (row,) = rows([SPEC], {}, [given], clock.now())

    assert (row.badge, row.meaning, row.key, row.failures) == (badge, meaning, "from settings", "5 of 6")
    assert bool(row.since) == (given.opened_at is not None)
    assert bool(row.until) == (given.state is BreakerState.OPEN)
    assert bool(row.id) == (given.state is not BreakerState.CLOSED)


def test_a_replaced_key_is_labeled_no_longer_in_use() -> None:
    old = status(BreakerState.OPEN, id="openai:000000000000")

    found = rows([SPEC], {"openai": "zz99"}, [old], clock.now())

    assert [(row.key, row.badge) for row in found] == [("…zz99", "Closed"), ("no longer in use", "Open")]


def test_a_provider_without_a_key_gets_no_calls() -> None:
    (row,) = rows([ProviderSpec("azure", Dialect.AZURE, "https://api.test", None)], {}, [], clock.now())

    assert (row.badge, row.meaning) == ("No key", "No calls are made.")


def test_every_failure_that_opens_a_breaker_has_a_reason_text() -> None:
    counting = {kind.kind for kind in _leaves(ProviderError) if kind.kind not in ("provider_error", "rejected")}
    # Who refuses a request is well.
    answering = {"model_not_found", "context_too_long", "unsupported", "content_refused"}

    assert set(REASONS) == counting - answering


def _leaves(kind: type[ProviderError]) -> Iterator[type[ProviderError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from _leaves(each)
