"""Signatures match the published vectors, and nothing that was changed is accepted."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from core import signing
from core.signing import InvalidSignature, verify_webhook

VECTORS: dict[str, list[dict[str, str]]] = json.loads(
    (Path(__file__).parents[2] / "contract" / "signing_vectors.json").read_text()
)
NOW = 1_764_000_000
ONE, TWO = VECTORS["webhooks"][0], VECTORS["webhooks"][1]
BODY = ONE["body"].encode()


def headers(**changes: str) -> dict[str, str]:
    good = {"webhook-id": ONE["id"], "webhook-timestamp": ONE["timestamp"], "webhook-signature": ONE["signature"]}
    return {**good, **{name.replace("_", "-"): value for name, value in changes.items()}}


@pytest.mark.parametrize("vector", VECTORS["webhooks"], ids=lambda v: v["source"])
def test_webhook_signatures_match_the_published_vectors(vector: dict[str, str]) -> None:
    signed = signing.sign_webhook(
        vector["secret"], event_id=vector["id"], timestamp=vector["timestamp"], body=vector["body"].encode()
    )

    assert signed == vector["signature"]


@pytest.mark.parametrize("vector", VECTORS["requests"], ids=lambda v: v["method"])
def test_request_signatures_match_the_contract(vector: dict[str, Any]) -> None:
    wanted = vector.pop("signature")
    vector["body"] = vector["body"].encode()

    assert signing.sign_request(vector.pop("secret"), **vector) == wanted


def test_the_legacy_signature_matches_the_contract() -> None:
    vector = VECTORS["requests_older"][0]

    signed = signing.sign_request_legacy(vector["secret"], timestamp=vector["timestamp"], body=vector["body"].encode())

    assert signed == vector["signature"]


def test_x_sig_matches_the_contract() -> None:
    vector = VECTORS["bodies"][0]

    assert signing.sign_body(vector["secret"], vector["body"].encode()) == vector["signature"]


def test_an_independent_library_accepts_what_we_sign() -> None:
    secret, moment = signing.new_webhook_secret(), datetime.now(UTC)
    signature = signing.sign_webhook(secret, event_id="evt_1", timestamp=int(moment.timestamp()), body=b'{"a":1}')

    assert Webhook(secret).sign("evt_1", moment, '{"a":1}') == signature


def test_a_valid_webhook_returns_its_event_id() -> None:
    assert verify_webhook([ONE["secret"]], headers(), BODY, now=NOW) == ONE["id"]


@pytest.mark.parametrize("secret", [ONE["secret"], TWO["secret"]])
def test_either_secret_is_enough_during_a_rotation(secret: str) -> None:
    both = headers(webhook_signature=f"{TWO['signature']} {ONE['signature']}")

    assert verify_webhook([secret], both, BODY, now=NOW) == ONE["id"]
    assert verify_webhook([ONE["secret"], TWO["secret"]], headers(), BODY, now=NOW) == ONE["id"]


def test_unknown_entries_before_a_valid_one_are_skipped() -> None:
    found = headers(webhook_signature=f"junk v2,xyz v1, v1a,AAAA {ONE['signature']}")

    assert verify_webhook([ONE["secret"]], found, BODY, now=NOW) == ONE["id"]


@pytest.mark.parametrize("now", [NOW - 300, NOW + 300])
def test_a_webhook_may_be_five_minutes_late_or_early(now: int) -> None:
    assert verify_webhook([ONE["secret"]], headers(), BODY, now=now)


@pytest.mark.parametrize(
    ("changes", "body", "now"),
    [
        ({}, BODY + b" ", NOW),
        ({}, BODY, NOW + 301),
        ({}, BODY, NOW - 301),
        ({"webhook_timestamp": "1764000000.0"}, BODY, NOW),
        ({"webhook_timestamp": "01764000000"}, BODY, NOW),
        ({"webhook_timestamp": "1764000001"}, BODY, NOW),
        ({"webhook_timestamp": "\u0661764000000"}, BODY, NOW),
        ({"webhook_timestamp": ""}, BODY, NOW),
        ({"webhook_id": "evt_01.JD"}, BODY, NOW),
        ({"webhook_id": ""}, BODY, NOW),
        ({"webhook_id": "evt_other"}, BODY, NOW),
        ({"webhook_signature": ""}, BODY, NOW),
        ({"webhook_signature": "v1,"}, BODY, NOW),
        ({"webhook_signature": ONE["signature"].replace("v1,", "v1a,")}, BODY, NOW),
        ({"webhook_signature": "junk junk"}, BODY, NOW),
        ({"webhook_signature": "x " * 16 + ONE["signature"]}, BODY, NOW),
        ({"webhook_signature": "v1,é"}, BODY, NOW),
    ],
)
def test_a_changed_webhook_is_rejected(changes: dict[str, str], body: bytes, now: int) -> None:
    with pytest.raises(InvalidSignature):
        verify_webhook([ONE["secret"]], headers(**changes), body, now=now)


def test_a_wrong_secret_is_rejected() -> None:
    with pytest.raises(InvalidSignature):
        verify_webhook([signing.new_webhook_secret()], headers(), BODY, now=NOW)


@pytest.mark.parametrize("text", ["", "whsec", "AAECAwQ=", "whsec_not base64!"])
def test_a_malformed_secret_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="whsec_"):
        signing.webhook_key(text)
