"""`/v1/webhook-endpoints` and `/v1/deliveries` over HTTP."""

import json
from typing import Any

import pytest
from django.db.models.functions import Now
from django.http import HttpResponse

from core.ids import new_uuid, to_public
from tenants.credentials import NewSite
from tenants.models import Site
from tests.api.calling import Caller, error_of
from webhooks.endpoints import MAX_ENDPOINTS, create_endpoint
from webhooks.models import Delivery, DeliveryState, Endpoint, Event

HOOK = "http://127.0.0.1:9/hook"


def read(response: HttpResponse, status: int = 200) -> dict[str, Any]:
    assert response.status_code == status, response.content[:500]
    found: dict[str, Any] = json.loads(response.content)
    return found


def make_delivery(site: Site, endpoint: Endpoint, *, event_type: str = "job.succeeded", **fields: Any) -> Delivery:
    event = Event.objects.create(site=site, type=event_type, subject_id=new_uuid(), payload=b"{}")
    return Delivery.objects.create(site=site, event=event, endpoint=endpoint, **fields)


# Endpoints


def test_a_new_endpoint_returns_its_secret_once(desk: Caller) -> None:
    response = desk.post("/v1/webhook-endpoints", {"url": HOOK, "description": "shop", "event_types": ["job.failed"]})

    shown = read(response, 201)
    endpoint = Endpoint.objects.get()
    assert shown.pop("secret") == bytes(endpoint.secrets.get().secret).decode()
    assert response["Cache-Control"] == "no-store"
    assert shown == read(desk.get(f"/v1/webhook-endpoints/{endpoint.public_id}"))
    assert shown.pop("created_at").endswith("Z")
    assert shown == {
        "id": endpoint.public_id,
        "object": "webhook_endpoint",
        "url": HOOK,
        "description": "shop",
        "event_types": ["job.failed"],
        "is_enabled": True,
        "disabled_reason": None,
    }


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({}, "url", "missing_required_parameter"),
        ({"url": None}, "url", "invalid_value"),
        ({"url": 5}, "url", "invalid_value"),
        ({"url": ""}, "url", "invalid_value"),
        ({"url": "x" * 2001}, "url", "invalid_value"),
        ({"url": "nonsense"}, "url", "unsafe_url"),
        ({"url": "ftp://example.com/"}, "url", "unsafe_url"),
        ({"url": "http://169.254.169.254/"}, "url", "unsafe_url"),
        ({"url": "http://user:word@example.com/"}, "url", "unsafe_url"),
        ({"url": HOOK, "description": 5}, "description", "invalid_value"),
        ({"url": HOOK, "description": "x" * 201}, "description", "invalid_value"),
        ({"url": HOOK, "event_types": "job.failed"}, "event_types", "invalid_value"),
        ({"url": HOOK, "event_types": [5]}, "event_types.0", "invalid_value"),
        ({"url": HOOK, "event_types": ["job.exploded"]}, "event_types", "unknown_event_type"),
        ({"url": HOOK, "events": []}, "events", "unknown_parameter"),
    ],
)
def test_an_invalid_endpoint_is_explained_and_not_stored(desk: Caller, body: Any, param: str, code: str) -> None:
    response = desk.post("/v1/webhook-endpoints", body)

    error = error_of(response)
    assert (response.status_code, error["param"], error["code"]) == (400, param, code)
    assert not Endpoint.objects.exists()


def test_the_number_of_endpoints_per_site_is_limited(desk: Caller, bakery: NewSite) -> None:
    for _ in range(MAX_ENDPOINTS):
        create_endpoint(bakery.site, HOOK)

    response = desk.post("/v1/webhook-endpoints", {"url": HOOK})

    assert (response.status_code, error_of(response)["code"]) == (409, "too_many_endpoints")


def test_endpoints_are_listed_in_pages_without_their_secrets(desk: Caller, bakery: NewSite, florist: NewSite) -> None:
    made = [create_endpoint(bakery.site, HOOK)[0].public_id for _ in range(3)][::-1]
    create_endpoint(florist.site, HOOK)

    first = read(desk.get("/v1/webhook-endpoints?limit=2"))
    second = read(desk.get(f"/v1/webhook-endpoints?limit=2&after={first['last_id']}"))

    assert [endpoint["id"] for page in (first, second) for endpoint in page["data"]] == made
    assert (first["has_more"], second["has_more"]) == (True, False)
    assert "secret" not in first["data"][0]


def test_another_sites_endpoint_an_unknown_and_a_malformed_id_get_the_same_404(desk: Caller, florist: NewSite) -> None:
    ids = [create_endpoint(florist.site, HOOK)[0].public_id, to_public("ep", new_uuid()), "nonsense", "ep_%00"]

    answers = [desk.get(f"/v1/webhook-endpoints/{endpoint_id}") for endpoint_id in ids]

    assert {answer.status_code for answer in answers} == {404}
    assert len({error_of(answer)["message"] for answer in answers}) == 1


# Deliveries


def test_a_delivery_is_shown_with_its_event_and_endpoint(desk: Caller, bakery: NewSite) -> None:
    endpoint, _ = create_endpoint(bakery.site, HOOK)
    delivery = make_delivery(bakery.site, endpoint, attempts=2, last_status=503, last_error="Received status 503.")

    (shown,) = read(desk.get("/v1/deliveries"))["data"]

    assert shown.pop("due_at").endswith("Z")
    assert shown.pop("created_at").endswith("Z")
    assert shown == {
        "id": delivery.public_id,
        "object": "webhook_delivery",
        "state": "pending",
        "event_id": delivery.event.public_id,
        "event_type": "job.succeeded",
        "endpoint_id": endpoint.public_id,
        "attempts": 2,
        "last_status": 503,
        "last_error": "Received status 503.",
        "finished_at": None,
    }


def test_deliveries_are_filtered_and_limited_to_the_site(desk: Caller, bakery: NewSite, florist: NewSite) -> None:
    one, other = create_endpoint(bakery.site, HOOK)[0], create_endpoint(bakery.site, HOOK)[0]
    ended: dict[str, Any] = {"state": DeliveryState.DELIVERED, "due_at": None, "finished_at": Now()}
    done = make_delivery(bakery.site, one, **ended).public_id
    failed = make_delivery(bakery.site, other, event_type="job.failed").public_id
    foreign = create_endpoint(florist.site, HOOK)[0]
    make_delivery(florist.site, foreign)

    def found(query: str) -> list[str]:
        return [delivery["id"] for delivery in read(desk.get(f"/v1/deliveries?{query}"))["data"]]

    assert found("") == [failed, done]
    assert found("state=delivered") == found(f"endpoint={one.public_id}") == found("event_type=job.succeeded") == [done]
    assert found(f"endpoint={foreign.public_id}") == []
    assert found(f"limit=1&after={failed}") == [done]


@pytest.mark.parametrize(
    ("query", "status", "param"),
    [
        ("state=lost", 400, "state"),
        ("limit=0", 400, "limit"),
        ("event_type=%00", 400, "event_type"),
        ("colour=blue", 400, "colour"),
        ("endpoint=nonsense", 404, None),
        ("after=nonsense", 404, None),
    ],
)
def test_an_invalid_query_is_explained(desk: Caller, query: str, status: int, param: str | None) -> None:
    response = desk.get(f"/v1/deliveries?{query}")

    assert (response.status_code, error_of(response)["param"]) == (status, param)
