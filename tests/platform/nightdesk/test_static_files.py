"""Style sheets and scripts from the installed packages."""

import pytest
from django.test import Client, override_settings

SCRIPT = "/static/drf_spectacular_sidecar/swagger-ui-dist/swagger-ui-bundle.js"


@pytest.mark.parametrize("debug", [True, False])
def test_a_file_is_served_with_its_type_and_may_be_kept(debug: bool) -> None:
    with override_settings(DEBUG=debug):
        response = Client().get(SCRIPT)

    assert response.status_code == 200
    assert response["Content-Type"] in ("text/javascript", "application/javascript")
    assert response["Cache-Control"] == "public, max-age=3600"
    assert len(response.content) > 1_000_000


def test_a_file_that_did_not_change_is_not_sent_again() -> None:
    etag = Client().get(SCRIPT)["ETag"]

    again = Client().get(SCRIPT, headers={"If-None-Match": etag})

    assert (again.status_code, again.content) == (304, b"")
    assert again["ETag"] == etag


@pytest.mark.parametrize("path", ["/static/unfold/css/styles.css", "/static/admin/js/core.js", "/static/api/docs.js"])
def test_every_app_has_its_files_served(path: str) -> None:
    assert Client().get(path).status_code == 200


@pytest.mark.parametrize(
    "name",
    [
        "nothing.css",
        "api",
        "../settings.py",
        "..%2f..%2fmanage.py",
        "%2e%2e/%2e%2e/manage.py",
        "/etc/passwd",
        "api/../../../manage.py",
        "a%00b",
        "x" * 5000,
    ],
)
def test_nothing_else_is_served(name: str) -> None:
    response = Client(raise_request_exception=False).get(f"/static/{name}")

    assert response.status_code in (400, 404)


def test_files_are_only_read() -> None:
    assert Client().post(SCRIPT).status_code == 405
