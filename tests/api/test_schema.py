"""The OpenAPI document."""

import json
from typing import Any

import jsonschema
import pytest

from api import examples
from tests.api.calling import Caller

OPERATIONS = [
    ("/v1/jobs", "post", {"202", "200", "400", "401", "403", "404", "413", "415", "422", "503"}),
    ("/v1/jobs", "get", {"200", "400", "401", "403", "404", "503"}),
    ("/v1/jobs/{job_id}", "get", {"200", "401", "403", "404", "503"}),
    ("/v1/jobs/{job_id}/cancel", "post", {"200", "401", "403", "404", "409", "503"}),
    ("/v1/jobs/{job_id}/retry", "post", {"202", "401", "403", "404", "409", "503"}),
    ("/v1/webhook-endpoints", "post", {"201", "400", "401", "403", "409", "413", "415", "503"}),
    ("/v1/webhook-endpoints", "get", {"200", "400", "401", "403", "404", "503"}),
    ("/v1/webhook-endpoints/{endpoint_id}", "get", {"200", "401", "403", "404", "503"}),
    ("/v1/deliveries", "get", {"200", "400", "401", "403", "404", "503"}),
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
def test_every_operation_lists_its_answers(
    document: dict[str, Any], path: str, method: str, statuses: set[str]
) -> None:
    assert set(document["paths"][path][method]["responses"]) == statuses


def test_there_is_nothing_undocumented_and_nothing_invented(document: dict[str, Any]) -> None:
    found = {(path, method) for path, methods in document["paths"].items() for method in methods}

    assert found == {(path, method) for path, method, _ in OPERATIONS}


def test_every_error_has_the_one_body(document: dict[str, Any]) -> None:
    for methods in document["paths"].values():
        for operation in methods.values():
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    assert answer["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/ErrorOut"}


def test_three_proofs_are_offered_and_the_open_pages_need_none(document: dict[str, Any]) -> None:
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


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return own + [ref for inner in value.values() for ref in references(inner)]
        return [ref for inner in value for ref in references(inner)] if isinstance(value, list) else []

    names = {ref.removeprefix("#/components/schemas/") for ref in references(document)}

    assert "OpenAIChatBody" in names
    assert "AnthropicMessagesBody" in names
    assert names <= set(document["components"]["schemas"])


@pytest.mark.parametrize(
    ("example", "component"),
    [
        (examples.CHAT_JOB, "JobInRequest"),
        (examples.MESSAGES_JOB, "JobInRequest"),
        (examples.EMBEDDINGS_JOB, "JobInRequest"),
        (examples.QUEUED_JOB, "JobOut"),
        (examples.SUCCEEDED_JOB, "JobOut"),
        (examples.ENDPOINT, "EndpointInRequest"),
        (examples.NEW_ENDPOINT, "NewEndpointOut"),
    ],
)
def test_the_examples_are_what_the_schemas_say(document: dict[str, Any], example: Any, component: str) -> None:
    jsonschema.validate(example, {"$ref": f"#/components/schemas/{component}", "components": document["components"]})
