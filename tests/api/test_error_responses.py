"""Error responses: one body for all."""

import pytest
from django.test import RequestFactory, override_settings

from api.error_responses import is_api, to_response
from api.errors import ApiProblem
from tests.api.calling import Caller, error_of


@pytest.mark.parametrize(("status", "header"), [(401, "WWW-Authenticate"), (429, "Retry-After"), (503, "Retry-After")])
def test_some_statuses_come_with_a_header(status: int, header: str) -> None:
    request = RequestFactory().get("/v1/jobs")

    assert to_response(ApiProblem(status, "t", "c", "m"), request).has_header(header)
    assert not to_response(ApiProblem(400, "t", "c", "m"), request).has_header(header)


@pytest.mark.parametrize(
    ("path", "api"),
    [("/v1", True), ("/v1/x", True), ("/api/v1/chat", True), ("/readyz", True), ("/v1x", False), ("/admin/", False)],
)
def test_errors_of_api_paths_are_json(path: str, api: bool) -> None:
    assert is_api(path) is api


@pytest.mark.parametrize("debug", [True, False])
@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/nothing", "/v1/jobs/", "/v1/jobs/a/b/c", "/api/v1/chat", "/api"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
def test_an_unknown_path_gets_an_api_error(stranger: Caller, debug: bool, path: str, method: str) -> None:
    with override_settings(DEBUG=debug):
        response = stranger.call(method, path)

    assert (response.status_code, error_of(response)["code"]) == (404, "not_found")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "NONSENSE"])
def test_a_wrong_method_gets_the_allowed_ones(desk: Caller, method: str) -> None:
    response = desk.call(method, "/v1/jobs")

    assert (response.status_code, error_of(response)["code"]) == (405, "method_not_allowed")
    assert response["Allow"] == "GET, POST, HEAD"


@pytest.mark.parametrize("path", ["/v1/jobs", "/healthz", "/v1/nothing"])
@pytest.mark.parametrize("debug", [True, False])
def test_an_unknown_host_header_is_rejected(stranger: Caller, path: str, debug: bool) -> None:
    with override_settings(DEBUG=debug, ALLOWED_HOSTS=["desk.test"]):
        response = stranger.get(path, host="evil.test")

    assert (response.status_code, error_of(response)["code"]) == (400, "bad_request")


def test_errors_outside_the_api_are_not_json(stranger: Caller) -> None:
    with override_settings(DEBUG=False):
        response = stranger.get("/nothing")

    assert response.status_code == 404
    assert response["Content-Type"].startswith("text/html")
