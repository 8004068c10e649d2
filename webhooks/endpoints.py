"""Operations on webhook endpoints: create, list, rotate the secret, disable, enable."""

from collections.abc import Sequence
from datetime import timedelta

from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Least, Now

from core.signing import new_webhook_secret
from core.ssrf_guard import RejectedUrl, check_url
from tenants.models import Site
from webhooks import settle
from webhooks.errors import TooManyEndpoints, UnknownEventType, UnsafeUrl
from webhooks.event_types import EVENT_TYPES
from webhooks.models import Endpoint, EndpointSecret
from webhooks.network_policy import webhook_network_policy

MAX_ENDPOINTS = 20
#: Each of them signs every delivery, and receivers check at most 16 signatures.
MAX_LIVE_SECRETS = 10
ROTATION_OVERLAP = timedelta(hours=24)


@transaction.atomic
def create_endpoint(
    site: Site, url: str, description: str = "", event_types: Sequence[str] = ()
) -> tuple[Endpoint, str]:
    """Return the new endpoint and its secret, which is shown only once. No event types means all.

    Raises:
        UnsafeUrl, UnknownEventType, TooManyEndpoints: nothing was stored.
    """
    validate_endpoint(url, event_types)
    # Locking the site's row serializes creation, so that the count is exact.
    Site.objects.select_for_update(no_key=True).get(id=site.id)
    check_endpoint_limit(site)
    endpoint = Endpoint.objects.create(
        site=site, url=url, description=description, event_types=list(dict.fromkeys(event_types))
    )
    return endpoint, _add_secret(endpoint)


def validate_endpoint(url: str, event_types: Sequence[str]) -> None:
    """Raise `UnsafeUrl` or `UnknownEventType` if the endpoint could never receive an event."""
    try:
        check_url(url, webhook_network_policy())
    except RejectedUrl as error:
        raise UnsafeUrl(str(error)) from error
    for event_type in event_types:
        if event_type not in EVENT_TYPES:
            raise UnknownEventType(event_type, list(EVENT_TYPES))


def check_endpoint_limit(site: Site) -> None:
    """Raise `TooManyEndpoints` if the site has MAX_ENDPOINTS already."""
    if Endpoint.objects.filter(site=site).count() >= MAX_ENDPOINTS:
        raise TooManyEndpoints(MAX_ENDPOINTS)


def list_endpoints(site: Site) -> QuerySet[Endpoint]:
    """Return the site's endpoints, newest first."""
    return Endpoint.objects.filter(site=site)


@transaction.atomic
def rotate_secret(endpoint: Endpoint, overlap: timedelta = ROTATION_OVERLAP) -> str:
    """Return a new secret, which is shown only once. The old ones keep signing during the overlap.

    Pass no overlap (`timedelta(0)`) if a secret has leaked.
    """
    Endpoint.objects.select_for_update(no_key=True).get(id=endpoint.id)
    live = endpoint.secrets.filter(Q(expires_at=None) | Q(expires_at__gt=Now()))
    live.update(expires_at=Least(F("expires_at"), Now() + overlap))
    retained = live.order_by("-id").values_list("id", flat=True)[: MAX_LIVE_SECRETS - 1]
    live.exclude(id__in=list(retained)).update(expires_at=Now())
    return _add_secret(endpoint)


def disable_endpoint(endpoint: Endpoint) -> None:
    """Stop sending events to the endpoint, by request of the site. Pending deliveries are canceled."""
    settle.disable(endpoint.id, "", "The endpoint was disabled.")
    endpoint.refresh_from_db(fields=["is_enabled", "disabled_reason"])


def enable_endpoint(endpoint: Endpoint) -> None:
    """Resume sending new events to the endpoint. Canceled deliveries stay canceled."""
    Endpoint.objects.filter(id=endpoint.id).update(is_enabled=True, disabled_reason="")
    endpoint.refresh_from_db(fields=["is_enabled", "disabled_reason"])


def _add_secret(endpoint: Endpoint) -> str:
    secret = new_webhook_secret()
    EndpointSecret.objects.create(endpoint=endpoint, secret=secret.encode())
    return secret
