"""The OpenAPI document."""

import json
from functools import reduce
from typing import Any

import pytest

from api import examples
from api.live.openapi_operations import LIVE_OPERATIONS
from tenants.credentials import NewSite
from tenants.models import Site
from tests.api.calling import Caller
from tests.factories import make_job, make_provider, make_route

OPERATIONS = [
    ("/v1/jobs", "post", {"202", "400", "401", "403", "404", "408", "413", "415", "422", "503", "507"}),
    ("/v1/jobs", "get", {"200", "400", "401", "403", "404", "503"}),
    ("/v1/jobs/{job_id}", "get", {"200", "401", "403", "404", "503"}),
    ("/v1/jobs/{job_id}/cancel", "post", {"200", "401", "403", "404", "409", "503"}),
    ("/v1/jobs/{job_id}/retry", "post", {"202", "400", "401", "403", "404", "409", "503"}),
    ("/v1/batches", "post", {"200", "400", "401", "403", "404", "408", "409", "413", "415", "422", "503", "507"}),
    ("/v1/batches", "get", {"200", "400", "401", "403", "404", "503"}),
    ("/v1/batches/{batch_id}", "get", {"200", "401", "403", "404", "503"}),
    ("/v1/batches/{batch_id}/results", "get", {"200", "401", "403", "404", "503"}),
    ("/v1/batches/{batch_id}/cancel", "post", {"200", "401", "403", "404", "409", "503"}),
    ("/v1/batches/{batch_id}/pause", "post", {"200", "401", "403", "404", "409", "503"}),
    ("/v1/batches/{batch_id}/resume", "post", {"200", "401", "403", "404", "409", "503"}),
    ("/v1/batches/{batch_id}/retry", "post", {"200", "401", "403", "404", "409", "503"}),
    ("/v1/files", "post", {"200", "400", "401", "403", "408", "413", "415", "503", "507"}),
    ("/v1/files", "get", {"200", "400", "401", "403", "404", "503"}),
    ("/v1/files/{file_id}", "get", {"200", "401", "403", "404", "503"}),
    ("/v1/files/{file_id}", "delete", {"200", "401", "403", "404", "409", "503"}),
    ("/v1/files/{file_id}/content", "get", {"200", "401", "403", "404", "409", "503"}),
    ("/v1/webhook-endpoints", "post", {"201", "400", "401", "403", "408", "409", "413", "415", "503", "507"}),
    ("/v1/webhook-endpoints", "get", {"200", "400", "401", "403", "404", "503"}),
    ("/v1/webhook-endpoints/{endpoint_id}", "get", {"200", "401", "403", "404", "503"}),
    ("/v1/deliveries", "get", {"200", "400", "401", "403", "404", "503"}),
    ("/v1/tokens", "post", {"201", "400", "401", "403", "408", "413", "415", "503", "507"}),
    ("/v1/tickets", "post", {"201", "400", "401", "403", "404", "408", "413", "415", "503", "507"}),
    ("/v1/limits", "get", {"200", "401", "403", "503"}),
    ("/healthz", "get", {"200"}),
    ("/readyz", "get", {"200", "503"}),
]


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    response = Caller(None).get("/v1/openapi.json")
    assert response["Content-Type"] == "application/json"
    found: dict[str, Any] = json.loads(response.content)
    return found


@pytest.mark.parametrize(("path", "method", "statuses"), OPERATIONS)
def test_every_operation_lists_its_responses(
    document: dict[str, Any], path: str, method: str, statuses: set[str]
) -> None:
    assert set(document["paths"][path][method]["responses"]) == statuses


def test_the_document_lists_exactly_the_operations_that_exist(document: dict[str, Any]) -> None:
    found = {(path, method) for path, methods in document["paths"].items() for method in methods}
    live = {(each.path, each.method.lower()) for each in LIVE_OPERATIONS}

    assert found - live == {(path, method) for path, method, _ in OPERATIONS}


def test_names_of_components_do_not_show_the_serializer_classes(document: dict[str, Any]) -> None:
    """Client generators name classes after them."""
    names = document["components"]["schemas"]

    assert {"Job", "JobRequest", "JobKind", "WebhookEndpoint"} <= set(names)
    assert [name for name in names if name.removesuffix("Request").endswith(("In", "Out"))] == []


def test_docstrings_of_views_are_not_published(document: dict[str, Any]) -> None:
    assert "description" not in document["paths"]["/v1/jobs/{job_id}"]["get"]


def test_every_error_has_the_same_schema(document: dict[str, Any]) -> None:
    for path, method, _ in OPERATIONS:
        for status, answer in document["paths"][path][method]["responses"].items():
            if int(status) >= 400:
                assert answer["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Error"}


def test_authentication_methods_are_listed_and_public_operations_need_none(document: dict[str, Any]) -> None:
    submit = document["paths"]["/v1/jobs"]["post"]["security"]

    assert submit == [
        {"bearer": []},
        {"apiKey": []},
        {"siteId": [], "timestamp": [], "nonce": [], "signature": []},
    ]
    assert "security" not in document["paths"]["/healthz"]["get"]
    assert set(document["components"]["securitySchemes"]) == {
        "bearer",
        "apiKey",
        "siteId",
        "timestamp",
        "nonce",
        "signature",
    }


def test_every_schema_reference_resolves(document: dict[str, Any]) -> None:
    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return own + [ref for inner in value.values() for ref in references(inner)]
        return [ref for inner in value for ref in references(inner)] if isinstance(value, list) else []

    def leads_to(reference: str) -> Any:
        return reduce(lambda found, step: found[step], reference.removeprefix("#/").split("/"), document)

    found = references(document)

    assert {"#/components/schemas/OpenAIChatBody", "#/components/schemas/AnthropicMessagesBody"} <= set(found)
    assert all(map(leads_to, found))


@pytest.mark.parametrize("example", [examples.CHAT_JOB, examples.MESSAGES_JOB, examples.EMBEDDINGS_JOB])
def test_the_examples_of_requests_are_accepted(desk: Caller, example: dict[str, Any]) -> None:
    provider = make_provider("another")
    for model in ("claude-haiku-5-5", "text-embedding-3-small"):
        make_route(model, (provider, model))

    response = desk.post("/v1/jobs", example)

    assert response.status_code == 202, response.content
    assert set(json.loads(response.content)) == set(examples.QUEUED_JOB)


def test_the_example_of_an_endpoint_matches_the_response(desk: Caller) -> None:
    response = desk.post("/v1/webhook-endpoints", {"url": "http://127.0.0.1:9/hook"})

    assert response.status_code == 201, response.content
    assert set(json.loads(response.content)) == set(examples.NEW_ENDPOINT)


def test_the_examples_of_a_token_and_a_ticket_match_the_responses(desk: Caller, bakery: NewSite) -> None:
    Site.objects.update(origins=["https://bakery.example"])
    job = make_job(bakery.site)
    token = desk.post("/v1/tokens", examples.TOKEN_REQUEST)
    ticket = desk.post("/v1/tickets", {**examples.TICKET_REQUEST, "job": job.public_id})

    assert (token.status_code, ticket.status_code) == (201, 201)
    assert set(json.loads(token.content)) == set(examples.TOKEN)
    assert set(json.loads(ticket.content)) == set(examples.TICKET)


def test_the_example_of_limits_matches_the_schema(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]

    assert set(examples.LIMITS) == set(schemas["Limits"]["properties"])
    assert set(examples.LIMITS["windows"][0]) == set(schemas["RateLimitWindow"]["properties"])
    assert set(examples.LIMITS["jobs"]) == set(schemas["Concurrency"]["properties"])


def test_the_example_of_a_succeeded_job_matches_the_schema(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    attempt = examples.SUCCEEDED_JOB["attempts"][0]

    assert set(examples.SUCCEEDED_JOB) == set(schemas["Job"]["properties"])
    assert set(examples.SUCCEEDED_JOB["usage"]) == set(schemas["JobUsage"]["properties"])
    assert set(attempt) == set(schemas["Attempt"]["properties"])
    assert set(attempt["calls"][0]) == set(schemas["ProviderCall"]["properties"])
