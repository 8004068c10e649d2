"""Admin of webhooks: secrets are shown once, history is read-only, and every action is audited."""

import re
from collections.abc import Callable
from datetime import timedelta
from html import unescape
from typing import Any
from uuid import uuid4

import httpx
import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries, Settings

from core.crypto import new_key
from core.ids import to_public
from core.ssrf_guard import CappedResponse
from tenants.models import AuditEntry, Site
from tests.factories import make_site
from webhooks.claim import claim_due
from webhooks.endpoints import MAX_ENDPOINTS, create_endpoint
from webhooks.judge import RetryDelivery
from webhooks.models import Delivery, Endpoint, Event
from webhooks.send import DeliveryExchange
from webhooks.settle import settle

NewEventFactory = Callable[..., Event]


@pytest.fixture
def staff(admin_client: Client) -> Client:
    return admin_client


def text_of(response: Any) -> str:
    return unescape(response.content.decode())


def act(staff: Client, action: str, *endpoints: Endpoint) -> str:
    """Run an admin action on endpoints; return the text of the resulting page."""
    url = reverse("admin:webhooks_endpoint_changelist")
    chosen = {"action": action, "_selected_action": [str(endpoint.pk) for endpoint in endpoints]}
    return text_of(staff.post(url, chosen, follow=True))


def add(staff: Client, site: Site, **fields: object) -> str:
    given = {"site": str(site.pk), "url": "https://example.com/hook", "description": "", **fields}
    return text_of(staff.post(reverse("admin:webhooks_endpoint_add"), given, follow=True))


def secrets_in(text: str) -> list[str]:
    return re.findall(r"whsec_[A-Za-z0-9+/]+=*", text)


def stored_secrets(endpoint: Endpoint) -> list[str]:
    return [bytes(row.secret).decode() for row in endpoint.secrets.all()]


# Creating and changing endpoints


def test_a_new_endpoint_shows_its_secret_once(staff: Client, site: Site) -> None:
    page = add(staff, site, event_types=["job.failed"])

    endpoint = Endpoint.objects.get()
    assert (endpoint.site, endpoint.event_types) == (site, ["job.failed"])
    assert secrets_in(page) == stored_secrets(endpoint)
    assert AuditEntry.objects.get().action == "endpoint.create"
    later = text_of(staff.get(reverse("admin:webhooks_endpoint_change", args=(endpoint.pk,))))
    assert secrets_in(later) == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"url": "http://10.0.0.1/"}, "not a public address"),
        ({"url": "https://user:pw@example.com/"}, "user name or password"),
        ({"url": "nonsense"}, "valid URL"),
        ({"event_types": ["job.done"]}, "Select a valid choice"),
    ],
)
def test_the_form_rejects_an_endpoint_that_could_never_receive_an_event(
    staff: Client, site: Site, fields: dict[str, object], said: str
) -> None:
    assert said in add(staff, site, **fields)
    assert not Endpoint.objects.exists()
    assert not AuditEntry.objects.exists()


def test_the_form_rejects_an_endpoint_beyond_the_limit(staff: Client, site: Site) -> None:
    for number in range(MAX_ENDPOINTS):
        create_endpoint(site, f"https://example.com/{number}")

    assert "at most 20" in add(staff, site)
    assert Endpoint.objects.count() == MAX_ENDPOINTS


def test_a_changed_url_is_validated_and_audited_and_the_site_cannot_change(staff: Client, endpoint: Endpoint) -> None:
    url = reverse("admin:webhooks_endpoint_change", args=(endpoint.pk,))
    other = make_site("butcher")
    inline = {"secrets-TOTAL_FORMS": "0", "secrets-INITIAL_FORMS": "0"}

    refused = staff.post(url, {"url": "http://10.0.0.1/", **inline})
    staff.post(url, {"url": "https://example.com/new", "site": str(other.pk), **inline})

    endpoint.refresh_from_db()
    assert "not a public address" in text_of(refused)
    assert (endpoint.url, endpoint.site.slug) == ("https://example.com/new", "bakery")
    assert [(e.action, e.details) for e in AuditEntry.objects.all()] == [("endpoint.change", {"changed": ["url"]})]


def test_an_endpoint_cannot_be_deleted(staff: Client, endpoint: Endpoint) -> None:
    response = staff.post(reverse("admin:webhooks_endpoint_delete", args=(endpoint.pk,)), {"post": "yes"})

    assert response.status_code == 403
    assert Endpoint.objects.exists()


def test_the_rotate_action_shows_the_new_secret(staff: Client, endpoint: Endpoint, secret: str) -> None:
    page = act(staff, "rotate_selected", endpoint)

    (shown,) = secrets_in(page)
    assert shown != secret
    assert stored_secrets(endpoint) == [shown, secret]
    assert AuditEntry.objects.get().action == "endpoint.rotate"


def test_disable_cancels_deliveries_and_disable_and_enable_are_audited(staff: Client, delivery: Delivery) -> None:
    endpoint = delivery.endpoint

    act(staff, "disable_selected", endpoint)
    endpoint.refresh_from_db()
    delivery.refresh_from_db()
    assert (endpoint.is_enabled, delivery.state) == (False, "canceled")

    act(staff, "enable_selected", endpoint)
    endpoint.refresh_from_db()
    assert endpoint.is_enabled
    assert [entry.action for entry in AuditEntry.objects.all()] == ["endpoint.enable", "endpoint.disable"]
    assert {entry.subject for entry in AuditEntry.objects.all()} == {endpoint.public_id}


def test_the_disable_action_skips_disabled_endpoints(staff: Client, endpoint: Endpoint) -> None:
    act(staff, "enable_selected", endpoint)

    assert not AuditEntry.objects.exists()


def test_view_permission_alone_allows_no_action(client: Client, endpoint: Endpoint) -> None:
    viewer = User.objects.create_user("viewer", is_staff=True)
    viewer.user_permissions.add(Permission.objects.get(codename="view_endpoint"))
    client.force_login(viewer)

    for action in ("rotate_selected", "disable_selected"):
        act(client, action, endpoint)

    endpoint.refresh_from_db()
    assert endpoint.is_enabled
    assert endpoint.secrets.count() == 1
    assert client.get(reverse("admin:webhooks_endpoint_add")).status_code == 403


# Lists and pages


@pytest.mark.parametrize("model", ["endpoint", "event", "delivery"])
@pytest.mark.parametrize("word", ["", "bakery", "nonsense_1", "%00"])
def test_lists_accept_any_search_text(staff: Client, delivery: Delivery, model: str, word: str) -> None:
    response = staff.get(reverse(f"admin:webhooks_{model}_changelist"), {"q": word})

    assert response.status_code == 200


@pytest.mark.parametrize("model", ["endpoint", "event", "delivery"])
def test_lists_run_a_fixed_number_of_queries(
    staff: Client,
    site: Site,
    endpoint: Endpoint,
    new_event: NewEventFactory,
    model: str,
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    for number in range(5):
        create_endpoint(site, f"https://example.com/{number}")
        new_event()

    with django_assert_max_num_queries(12):
        staff.get(reverse(f"admin:webhooks_{model}_changelist"))


def test_a_delivery_is_found_by_every_id_it_has(staff: Client, delivery: Delivery, new_event: NewEventFactory) -> None:
    new_event()
    event = delivery.event
    assert event.subject_id is not None
    ids = [delivery.public_id, event.public_id, to_public("job", event.subject_id)]

    for public_id in ids:
        page = text_of(staff.get(reverse("admin:webhooks_delivery_changelist"), {"q": public_id}))
        assert re.findall(r">(dlv_\w+)<", page) == [delivery.public_id]

    page = text_of(staff.get(reverse("admin:webhooks_delivery_changelist"), {"q": to_public("job", uuid4())}))
    assert "dlv_0" not in page


def test_the_page_of_a_delivery_shows_its_log(staff: Client, delivery: Delivery) -> None:
    (claimed,) = claim_due(1, timedelta(seconds=30))
    answer = CappedResponse(503, httpx.Headers(), b"<b>down for maintenance</b>")
    settle(claimed, RetryDelivery(timedelta(minutes=5), "The receiver answered 503."), DeliveryExchange(answer, 1234))

    response = staff.get(reverse("admin:webhooks_delivery_change", args=(delivery.pk,)))

    page = text_of(response)
    assert "The receiver answered 503." in page
    assert "1,234 ms" in page
    assert b"<b>down" not in response.content
    assert "<b>down for maintenance</b>" in page


def test_events_show_their_subject_by_its_public_id(staff: Client, delivery: Delivery) -> None:
    event = delivery.event
    assert event.subject_id is not None

    pages = [
        text_of(staff.get(reverse("admin:webhooks_event_changelist"))),
        text_of(staff.get(reverse("admin:webhooks_event_change", args=(event.pk,)))),
    ]

    assert all(to_public("job", event.subject_id) in page for page in pages)


@pytest.mark.parametrize("model", ["event", "delivery"])
@pytest.mark.parametrize("act", ["add", "delete", "change"])
def test_events_and_deliveries_cannot_be_edited(staff: Client, delivery: Delivery, model: str, act: str) -> None:
    row = delivery if model == "delivery" else delivery.event
    args = () if act == "add" else (row.pk,)

    response = staff.post(reverse(f"admin:webhooks_{model}_{act}", args=args), {"post": "yes", "state": "delivered"})

    delivery.refresh_from_db()
    assert response.status_code == 403
    assert delivery.state == "pending"


def test_pages_open_without_the_encryption_key_of_a_payload(
    staff: Client, delivery: Delivery, settings: Settings
) -> None:
    settings.ENCRYPTION_KEYS = f"other:{new_key()}"
    rows = [delivery, Event.objects.defer("payload").get(), delivery.endpoint]

    for row in rows:
        name = row._meta.model_name
        assert staff.get(reverse(f"admin:webhooks_{name}_changelist")).status_code == 200
        page = staff.get(reverse(f"admin:webhooks_{name}_change", args=(row.pk,)))
        assert page.status_code == 200
        assert "café" not in text_of(page)
