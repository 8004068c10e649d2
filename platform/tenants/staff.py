"""The signed-in user of the admin, as an actor of the audit log."""

from django.conf import settings
from django.http import HttpRequest

from tenants.access import client_address
from tenants.audit import Actor


def actor_of(request: HttpRequest) -> Actor:
    """Return the signed-in user with the address of the request."""
    address = client_address(
        request.META.get("REMOTE_ADDR", ""),
        request.headers.get("X-Forwarded-For", ""),
        settings.TRUSTED_PROXY_COUNT,
    )
    return Actor(request.user.get_username(), address or None)
