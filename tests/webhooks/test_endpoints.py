"""Creating, listing, rotating, disabling and enabling endpoints."""

from datetime import timedelta

import pytest
from django.db import connection
from django.db.models.functions import Now
from pytest_django import Settings

from core.signing import webhook_key
from tenants.models import Site
from tests.factories import make_site
from webhooks.endpoints import (
    MAX_ENDPOINTS,
    MAX_LIVE_SECRETS,
    create_endpoint,
    disable_endpoint,
    enable_endpoint,
    list_endpoints,
    rotate_secret,
)
from webhooks.errors import TooManyEndpoints, UnknownEventType, UnsafeUrl
from webhooks.event_types import EVENT_TYPES
from webhooks.models import Delivery, DeliveryState, Endpoint, EndpointSecret


def live_secrets(endpoint: Endpoint) -> list[str]:
    live = endpoint.secrets.exclude(expires_at__lte=Now())
    return [bytes(row.secret).decode() for row in live]


def test_create_endpoint_returns_a_secret_once(site: Site) -> None:
    endpoint, secret = create_endpoint(site, "https://example.com/hook", "the shop", ["job.failed", "job.failed"])

    endpoint.refresh_from_db()
    assert endpoint.public_id.startswith("ep_")
    assert (endpoint.site, endpoint.url, endpoint.description) == (site, "https://example.com/hook", "the shop")
    assert (endpoint.event_types, endpoint.is_enabled) == (["job.failed"], True)
    assert len(webhook_key(secret)) == 32
    assert live_secrets(endpoint) == [secret]


def test_the_secret_is_encrypted_in_the_database(created: tuple[Endpoint, str]) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT secret FROM webhooks_endpointsecret")
        assert created[1].encode() not in bytes(cursor.fetchone()[0])


@pytest.mark.parametrize("url", ["ftp://example.com", "https://user:pw@example.com/", "http://10.0.0.1/", "nonsense"])
def test_an_unsafe_url_is_rejected_and_nothing_is_stored(site: Site, url: str) -> None:
    with pytest.raises(UnsafeUrl):
        create_endpoint(site, url)

    assert not Endpoint.objects.exists()


def test_the_settings_define_allowed_ports_and_networks(site: Site, settings: Settings) -> None:
    create_endpoint(site, "http://127.0.0.1:8080/hook")

    settings.WEBHOOK_ALLOWED_NETWORKS = []
    settings.WEBHOOK_ALLOWED_PORTS = [443]
    for url in ("http://127.0.0.1:443/", "https://example.com:8080/"):
        with pytest.raises(UnsafeUrl):
            create_endpoint(site, url)


def test_an_unknown_event_type_is_rejected_with_the_known_ones(site: Site) -> None:
    with pytest.raises(UnknownEventType) as caught:
        create_endpoint(site, "https://example.com/", event_types=["job.succeeded", "job.done"])

    assert (caught.value.unknown, list(caught.value.known)) == ("job.done", list(EVENT_TYPES))


def test_a_site_has_a_limited_number_of_endpoints(site: Site) -> None:
    for number in range(MAX_ENDPOINTS):
        create_endpoint(site, f"https://example.com/{number}")

    with pytest.raises(TooManyEndpoints):
        create_endpoint(site, "https://example.com/more")

    create_endpoint(make_site("butcher"), "https://example.com/")
    assert list_endpoints(site).count() == MAX_ENDPOINTS


def test_list_endpoints_returns_those_of_the_site_newest_first(site: Site) -> None:
    first, _ = create_endpoint(site, "https://example.com/1")
    second, _ = create_endpoint(site, "https://example.com/2")
    create_endpoint(make_site("butcher"), "https://example.com/")

    assert list(list_endpoints(site)) == [second, first]


# Rotation


def test_after_rotation_both_secrets_are_live_during_the_overlap(endpoint: Endpoint, secret: str) -> None:
    newer = rotate_secret(endpoint)

    assert live_secrets(endpoint) == [newer, secret]
    assert endpoint.secrets.filter(expires_at__gt=Now() + timedelta(hours=23, minutes=59)).count() == 1
    assert not endpoint.secrets.filter(expires_at__gt=Now() + timedelta(hours=24)).exists()


def test_rotation_without_overlap_expires_the_old_secret_immediately(endpoint: Endpoint) -> None:
    newer = rotate_secret(endpoint, timedelta(0))

    assert live_secrets(endpoint) == [newer]


def test_rotation_never_prolongs_an_older_secret(endpoint: Endpoint) -> None:
    rotate_secret(endpoint, timedelta(minutes=5))

    rotate_secret(endpoint, timedelta(days=1))

    assert endpoint.secrets.filter(expires_at__lte=Now() + timedelta(minutes=5)).count() == 1


def test_the_number_of_live_secrets_is_bounded_and_the_newest_stay(endpoint: Endpoint) -> None:
    newest = [rotate_secret(endpoint) for _ in range(15)][::-1]

    assert live_secrets(endpoint) == newest[:MAX_LIVE_SECRETS]


def test_rotation_does_not_affect_other_endpoints(endpoint: Endpoint) -> None:
    _, other = create_endpoint(endpoint.site, "https://example.com/other")

    rotate_secret(endpoint, timedelta(0))

    assert other in [bytes(row.secret).decode() for row in EndpointSecret.objects.filter(expires_at=None)]


# Disabling


def test_disable_cancels_pending_deliveries_and_enable_resumes_new_events(delivery: Delivery) -> None:
    endpoint = delivery.endpoint

    disable_endpoint(endpoint)
    delivery.refresh_from_db()
    assert (endpoint.is_enabled, delivery.state) == (False, DeliveryState.CANCELED)

    Endpoint.objects.update(disabled_reason="gone")
    enable_endpoint(endpoint)
    delivery.refresh_from_db()
    assert (endpoint.is_enabled, endpoint.disabled_reason) == (True, "")
    assert delivery.state == DeliveryState.CANCELED
