"""Style sheets and scripts from the installed packages."""

import pytest
from django.test import Client, override_settings

SCRIPT = "/static/drf_spectacular_sidecar/swagger-ui-dist/swagger-ui-bundle.js"


@pytest.mark.parametrize("debug", [True, False])
def test_a_static_file_has_its_type_and_is_cacheable(debug: bool) -> None:
    with override_settings(DEBUG=debug):
        response = Client().get(SCRIPT)

    assert response.status_code == 200
    assert response["Content-Type"] in ("text/javascript", "application/javascript")
    assert response["Cache-Control"] == "public, max-age=3600"
    assert len(response.content) > 1_000_000


def test_an_unchanged_static_file_returns_304() -> None:
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
def test_a_file_outside_static_folders_is_not_found(name: str) -> None:
    response = Client(raise_request_exception=False).get(f"/static/{name}")

    assert response.status_code in (400, 404)


def test_static_files_accept_get_and_head_only() -> None:
    assert Client().post(SCRIPT).status_code == 405
