"""The actor of the audit log for a request of the admin."""

import pytest
from django.contrib.auth.models import User
from django.test import RequestFactory
from pytest_django import Settings

from tenants.audit import Actor
from tenants.staff import actor_of


@pytest.mark.parametrize(
    ("proxies", "forwarded", "peer", "address"),
    [
        (0, "", "192.0.2.7", "192.0.2.7"),
        (0, "203.0.113.1", "192.0.2.7", "192.0.2.7"),
        (1, "203.0.113.1", "192.0.2.7", "203.0.113.1"),
        (1, "evil, 203.0.113.1", "192.0.2.7", "203.0.113.1"),
        (1, "nonsense", "192.0.2.7", None),
        (0, "", "", None),
    ],
)
def test_the_actor_is_the_user_with_the_client_address(
    settings: Settings, proxies: int, forwarded: str, peer: str, address: str | None
) -> None:
    settings.TRUSTED_PROXY_COUNT = proxies
    request = RequestFactory().get("/admin/", REMOTE_ADDR=peer, headers={"X-Forwarded-For": forwarded})
    request.user = User(username="ada")

    assert actor_of(request) == Actor("ada", address)
