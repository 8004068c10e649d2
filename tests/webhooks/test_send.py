"""Signing and sending: the headers, verified by an independent library."""

import asyncio
import base64
import hashlib
import hmac
import json
import re
from datetime import timedelta
from typing import Any

import pytest
from pytest_django import Settings
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from core import clock
from core.crypto import UnknownEncryptionKey, new_key
from core.ssrf_guard import CappedResponse, ConnectionInterrupted, NoResponse, guarded_client
from tests.webhooks.receiver import Behavior, Received, answering, cut, receiving
from webhooks.claim import ClaimedDelivery, claim_due
from webhooks.endpoints import rotate_secret
from webhooks.errors import NoLiveSecret
from webhooks.models import Delivery, Endpoint, EndpointSecret
from webhooks.network_policy import webhook_network_policy
from webhooks.send import DeliveryExchange, PreparedRequest, prepare, send


def claimed() -> ClaimedDelivery:
    (claim,) = claim_due(1, timedelta(seconds=30))
    return claim


def exchanged(prepared: PreparedRequest, behavior: Behavior) -> tuple[DeliveryExchange, Received]:
    async def exchange() -> tuple[DeliveryExchange, Received]:
        async with receiving() as receiver, guarded_client(webhook_network_policy()) as client:
            receiver.script = [behavior]
            return await send(
                PreparedRequest(receiver.url, prepared.headers, prepared.body), client, 5
            ), receiver.received[0]

    return asyncio.run(exchange())


def verify(secret: str, received: PreparedRequest | Received) -> Any:
    headers = {name.lower(): value for name, value in received.headers.items()}
    return Webhook(secret).verify(received.body, headers)


def test_the_request_conforms_to_standard_webhooks(delivery: Delivery, settings: Settings) -> None:
    prepared = prepare(claimed(), 1764000000)

    assert prepared.url == delivery.endpoint.url
    assert prepared.body == delivery.event.payload
    assert prepared.headers["Content-Type"] == "application/json"
    assert prepared.headers["User-Agent"] == f"Nightdesk/{settings.VERSION}"
    assert prepared.headers["webhook-id"] == delivery.event.public_id
    assert prepared.headers["webhook-timestamp"] == "1764000000"
    assert re.fullmatch(r"v1,[A-Za-z0-9+/]{43}=", prepared.headers["webhook-signature"])
    assert prepared.headers["X-Nightdesk-Attempt"] == "1"


def test_an_independent_library_verifies_the_signature(delivery: Delivery, secret: str) -> None:
    _, received = exchanged(prepare(claimed(), clock.unix_seconds()), answering(200))

    assert verify(secret, received) == json.loads(delivery.event.payload)
    with pytest.raises(WebhookVerificationError):
        verify("whsec_" + base64.b64encode(b"x" * 32).decode(), received)


def test_x_sig_is_the_hmac_of_the_body_keyed_with_the_secret_as_shown(delivery: Delivery, secret: str) -> None:
    _, received = exchanged(prepare(claimed(), clock.unix_seconds()), answering(200))

    digest = hmac.new(secret.encode(), received.body, hashlib.sha256).digest()
    assert received.headers["x-sig"] == "sha256=" + base64.b64encode(digest).decode()


def test_during_rotation_both_secrets_sign_the_newest_first(delivery: Delivery, secret: str) -> None:
    newer = rotate_secret(delivery.endpoint)

    prepared = prepare(claimed(), clock.unix_seconds())

    assert verify(secret, prepared) == verify(newer, prepared)
    first = prepared.headers["webhook-signature"].split(" ")[0]
    assert Webhook(newer).verify(prepared.body, {**prepared.headers, "webhook-signature": first})
    digest = hmac.new(newer.encode(), prepared.body, hashlib.sha256).digest()
    assert prepared.headers["X-Sig"] == "sha256=" + base64.b64encode(digest).decode()


def test_without_a_live_secret_nothing_is_prepared(delivery: Delivery) -> None:
    EndpointSecret.objects.all().delete()

    with pytest.raises(NoLiveSecret):
        prepare(claimed(), 0)


def test_a_payload_without_its_encryption_key_cannot_be_prepared(delivery: Delivery, settings: Settings) -> None:
    claim = claimed()
    settings.ENCRYPTION_KEYS = f"other:{new_key()}"

    with pytest.raises(UnknownEncryptionKey):
        prepare(claim, 0)


def test_the_repr_of_a_prepared_request_hides_url_and_body(delivery: Delivery) -> None:
    Endpoint.objects.update(url="https://example.com/?token=hidden")

    assert repr(prepare(claimed(), 0)) == "PreparedRequest()"


@pytest.mark.parametrize(
    ("behavior", "kind"),
    [(answering(204), CappedResponse), (answering(500, body=b"no"), CappedResponse), (cut, ConnectionInterrupted)],
)
def test_an_exchange_holds_the_response_or_the_reason_for_none(
    delivery: Delivery, behavior: Behavior, kind: type[CappedResponse | NoResponse]
) -> None:
    exchange, _ = exchanged(prepare(claimed(), clock.unix_seconds()), behavior)

    assert isinstance(exchange.response, kind)
    assert 0 <= exchange.duration_ms < 5000
