"""Signs and sends one delivery attempt."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import httpx
from django.conf import settings

from core.fields import EncryptedField, keyring
from core.ids import to_public
from core.signing import sign_body, sign_webhook
from core.ssrf_guard import CappedResponse, NoResponse, post_capped
from webhooks.claim import ClaimedDelivery
from webhooks.errors import NoLiveSecret
from webhooks.models import EndpointSecret, Event


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """The signed HTTP request of one attempt."""

    url: str = field(repr=False)
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class DeliveryExchange:
    """The response to an attempt, or why there is none."""

    response: CappedResponse | NoResponse
    duration_ms: int


def prepare(claimed: ClaimedDelivery, at: int) -> PreparedRequest:
    """Decrypt the payload and sign it with the time `at`, in Unix seconds.

    Raises:
        NoLiveSecret: every secret has expired; events are never sent unsigned.
        CryptoError: the payload or a secret was encrypted with a key that is not in ENCRYPTION_KEYS.
    """
    body = keyring().decrypt(claimed.sealed_payload, purpose=_purpose_of(Event, "payload"))
    purpose = _purpose_of(EndpointSecret, "secret")
    secrets = [keyring().decrypt(sealed, purpose=purpose).decode() for sealed in claimed.sealed_secrets]
    if not secrets:
        raise NoLiveSecret("The endpoint has no live secret.")
    return PreparedRequest(claimed.url, headers_for(claimed, secrets, at, body), body)


def headers_for(claimed: ClaimedDelivery, secrets: Sequence[str], at: int, body: bytes) -> dict[str, str]:
    """Return the headers of one attempt. Every secret signs; the legacy `X-Sig` holds one signature, of the newest."""
    event_id = to_public(Event.ID_PREFIX, claimed.event_id)
    signatures = [sign_webhook(secret, event_id=event_id, timestamp=at, body=body) for secret in secrets]
    return {
        "Content-Type": "application/json",
        "User-Agent": f"Nightdesk/{settings.VERSION}",
        # The same for every attempt, so that receivers can deduplicate.
        "webhook-id": event_id,
        # Of this attempt: receivers reject signatures older than a few minutes.
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join(signatures),
        "X-Sig": sign_body(secrets[0], body),
        "X-Nightdesk-Attempt": str(claimed.attempt),
    }


async def send(prepared: PreparedRequest, client: httpx.AsyncClient, total_seconds: float) -> DeliveryExchange:
    """Send the request, and return the response or why there is none."""
    started = time.monotonic()
    response: CappedResponse | NoResponse
    try:
        response = await post_capped(
            client, prepared.url, body=prepared.body, headers=prepared.headers, total_seconds=total_seconds
        )
    except NoResponse as error:
        response = error
    return DeliveryExchange(response, round((time.monotonic() - started) * 1000))


def _purpose_of(model: type[Event] | type[EndpointSecret], field_name: str) -> str:
    return cast(EncryptedField, model._meta.get_field(field_name)).purpose
