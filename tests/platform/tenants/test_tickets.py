"""A ticket reads one stream or job, from one origin, and allows nothing else."""

from datetime import timedelta
from typing import Any

import pytest
from pytest_django import Settings

from core import clock
from tenants import tickets
from tenants.authentication import AuthMethod, Identity
from tenants.errors import ExpiredCredentials, MalformedCredentials, OriginNotAllowed, ScopeExceedsGrant, TenantError
from tenants.models import Site
from tenants.tickets import ReadableKind, Ticket

PAGE, SHOP = "https://bakery.test", "https://shop.bakery.test:8443"
SITE = Site(slug="bakery", name="Bakery", origins=[PAGE, SHOP])


def identity(**narrow: Any) -> Identity:
    return Identity(SITE, AuthMethod.SIGNED_REQUEST, "key_1", **narrow)


def mint(requested_origin: str | None = PAGE, **narrow: Any) -> Ticket:
    return tickets.verify(tickets.mint(identity(**narrow), ReadableKind.STREAM, "stm_1", origin=requested_origin).text)


def test_a_ticket_has_its_object_site_and_expiry(settings: Settings) -> None:
    settings.TICKET_TTL_SECONDS = 120
    with clock.frozen(clock.now()):
        made = tickets.mint(identity(), ReadableKind.JOB, "job_1", origin=PAGE)

        assert tickets.verify(made.text) == Ticket(
            ReadableKind.JOB, "job_1", SITE.public_id, "key_1", PAGE, clock.unix_seconds() + 120
        )
        assert made.expires_at == clock.unix_seconds() + 120


def test_a_ticket_expires_after_ten_minutes_by_default() -> None:
    now = clock.now()
    with clock.frozen(now):
        text = tickets.mint(identity(), ReadableKind.STREAM, "stm_1").text

    with clock.frozen(now + timedelta(seconds=599)):
        assert tickets.verify(text) == tickets.verify(text)
    with clock.frozen(now + timedelta(seconds=600)), pytest.raises(ExpiredCredentials):
        tickets.verify(text)


@pytest.mark.parametrize(
    ("bound", "asking"),
    [
        (PAGE, PAGE),
        ("https://Bakery.test:443/", PAGE),
        (SHOP, SHOP),
        (None, None),
    ],
)
def test_a_ticket_authorizes_its_object_from_its_origin(bound: str | None, asking: str | None) -> None:
    tickets.authorize(mint(bound), ReadableKind.STREAM, "stm_1", origin=asking)


@pytest.mark.parametrize(
    ("bound", "asking"),
    [
        (PAGE, None),
        (PAGE, ""),
        (PAGE, "null"),
        (PAGE, SHOP),
        (PAGE, "http://bakery.test"),
        (PAGE, "https://bakery.test:8443"),
        (PAGE, "https://bakery.test.evil.test"),
        (PAGE, "https://evil.test/https://bakery.test"),
        (PAGE, "https://evil.test#https://bakery.test"),
        (PAGE, "https://bakery.test, https://evil.test"),
        (PAGE, "https://bakery.test https://evil.test"),
        (PAGE, "https://bakery.test\\@evil.test"),
        (PAGE, "file://bakery.test"),
        (PAGE, "https://xn--bakery.test"),
        (None, PAGE),
        (None, "null"),
        (None, "https://evil.test"),
    ],
)
def test_a_ticket_authorizes_no_other_origin(bound: str | None, asking: str | None) -> None:
    with pytest.raises(OriginNotAllowed):
        tickets.authorize(mint(bound), ReadableKind.STREAM, "stm_1", origin=asking)


@pytest.mark.parametrize(
    ("what", "public_id"),
    [
        (ReadableKind.STREAM, "stm_2"),
        (ReadableKind.STREAM, ""),
        (ReadableKind.JOB, "stm_1"),
        (ReadableKind.STREAM, "STM_1"),
    ],
)
def test_a_ticket_authorizes_no_other_object(what: ReadableKind, public_id: str) -> None:
    with pytest.raises(MalformedCredentials):
        tickets.authorize(mint(), what, public_id, origin=PAGE)


@pytest.mark.parametrize(
    ("origin", "narrow", "bound"),
    [
        (None, {}, None),
        (PAGE, {}, PAGE),
        (None, {"origin": PAGE}, PAGE),
        (f"{PAGE}/", {"origin": PAGE}, PAGE),
    ],
)
def test_a_ticket_is_bound_to_the_requested_origin_or_that_of_the_credential(
    origin: str | None, narrow: dict[str, str], bound: str | None
) -> None:
    assert mint(origin, **narrow).origin == bound


@pytest.mark.parametrize(
    ("origin", "narrow", "error"),
    [
        ("https://evil.test", {}, OriginNotAllowed),
        ("null", {}, OriginNotAllowed),
        ("*", {}, OriginNotAllowed),
        ("", {}, OriginNotAllowed),
        (SHOP, {"origin": PAGE}, ScopeExceedsGrant),
        ("", {"origin": PAGE}, ScopeExceedsGrant),
    ],
)
def test_no_ticket_is_minted_for_an_origin_of_no_site(
    origin: str, narrow: dict[str, str], error: type[TenantError]
) -> None:
    with pytest.raises(error):
        mint(origin, **narrow)


def test_a_ticket_for_the_desks_own_pages_is_bound_to_no_origin() -> None:
    """It sends no Origin when it reads."""
    made = tickets.mint(
        identity(), ReadableKind.STREAM, "stm_1", origin="https://desk.test", own_origin="https://desk.test:443"
    )

    tickets.authorize(tickets.verify(made.text), ReadableKind.STREAM, "stm_1", origin=None)
