"""One body for all errors."""

import pytest
from django.test import RequestFactory, override_settings

from api.error_responses import is_api, to_response
from api.errors import ApiProblem
from tests.api.calling import Caller, error_of


@pytest.mark.parametrize(("status", "header"), [(401, "WWW-Authenticate"), (429, "Retry-After"), (503, "Retry-After")])
def test_some_answers_say_what_to_do_in_a_header(status: int, header: str) -> None:
    request = RequestFactory().get("/v1/jobs")

    assert to_response(ApiProblem(status, "t", "c", "m"), request).has_header(header)
    assert not to_response(ApiProblem(400, "t", "c", "m"), request).has_header(header)


@pytest.mark.parametrize(
    ("path", "api"),
    [("/v1", True), ("/v1/x", True), ("/api/v1/chat", True), ("/readyz", True), ("/v1x", False), ("/admin/", False)],
)
def test_errors_are_json_where_programs_ask(path: str, api: bool) -> None:
    assert is_api(path) is api


@pytest.mark.parametrize("debug", [True, False])
@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/nothing", "/v1/jobs/", "/v1/jobs/a/b/c", "/api/v1/chat", "/api"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
def test_an_unknown_address_is_told_in_the_apis_words(stranger: Caller, debug: bool, path: str, method: str) -> None:
    with override_settings(DEBUG=debug):
        response = stranger.call(method, path)

    assert (response.status_code, error_of(response)["code"]) == (404, "not_found")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "NONSENSE"])
def test_a_wrong_method_is_told_which_ones_there_are(desk: Caller, method: str) -> None:
    response = desk.call(method, "/v1/jobs")

    assert (response.status_code, error_of(response)["code"]) == (405, "method_not_allowed")
    assert response["Allow"] == "GET, POST, HEAD"


@pytest.mark.parametrize("path", ["/v1/jobs", "/healthz", "/v1/nothing"])
@pytest.mark.parametrize("debug", [True, False])
def test_a_foreign_host_header_is_refused(stranger: Caller, path: str, debug: bool) -> None:
    with override_settings(DEBUG=debug, ALLOWED_HOSTS=["desk.test"]):
        response = stranger.get(path, host="evil.test")

    assert (response.status_code, error_of(response)["code"]) == (400, "bad_request")


def test_pages_for_people_are_not_told_in_json(stranger: Caller) -> None:
    with override_settings(DEBUG=False):
        response = stranger.get("/nothing")

    assert response.status_code == 404
    assert response["Content-Type"].startswith("text/html")
