import http.client
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from core import clock
from core.signing import new_webhook_secret, sign_body, sign_webhook
from devstack.ports import HOST, free_port
from devstack.webhook_receiver import MAX_BODY_BYTES, MAX_RECEIVED, WebhookReceiver, read_secrets, verify

SECRET = new_webhook_secret()
BODY = b'{"type":"job.succeeded","timestamp":"2026-11-21T20:00:00Z","data":{"id":"job_1"}}'
NOW = datetime(2026, 11, 21, 20, tzinfo=UTC)


def signed(
    body: bytes = BODY, secret: str = SECRET, *, event_id: str = "evt_1", at: int | None = None
) -> dict[str, str]:
    timestamp = clock.unix_seconds() if at is None else at
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign_webhook(secret, event_id=event_id, timestamp=timestamp, body=body),
        "x-sig": sign_body(secret, body),
    }


def test_a_webhook_with_valid_signatures_is_verified() -> None:
    with clock.frozen(NOW):
        one = verify([SECRET], signed(), BODY)

    assert (one.id, one.type, one.verified, one.reason) == ("evt_1", "job.succeeded", True, "")
    assert one.received_at == "2026-11-21T20:00:00+00:00"
    assert one.payload["data"] == {"id": "job_1"}


def test_one_of_several_secrets_is_enough() -> None:
    assert verify([new_webhook_secret(), SECRET], signed(), BODY).verified


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"webhook-signature": "v1,AAAA"}, "No signature matches."),
        ({"webhook-id": "evt_2"}, "No signature matches."),
        ({"x-sig": "sha256=AAAA"}, "X-Sig does not match."),
        ({"x-sig": ""}, "X-Sig does not match."),
        ({"webhook-timestamp": "1"}, "webhook-timestamp is too far from now."),
    ],
)
def test_an_invalid_header_is_the_reason(change: dict[str, str], reason: str) -> None:
    one = verify([SECRET], signed() | change, BODY)

    assert (one.verified, one.reason) == (False, reason)


def test_a_changed_body_and_an_unknown_secret_are_rejected() -> None:
    assert not verify([SECRET], signed(), BODY + b" ").verified
    assert not verify([new_webhook_secret()], signed(), BODY).verified
    assert not verify([], signed(), BODY).verified


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b"[" * 100_000])
def test_a_body_that_is_not_an_event_is_stored_as_it_is(body: bytes) -> None:
    assert verify([SECRET], signed(body), body).type == ""


@pytest.mark.parametrize(
    ("text", "secrets"), [(None, []), ("{", []), ("{}", []), ('["whsec_a", "whsec_b"]', ["whsec_a", "whsec_b"])]
)
def test_secrets_are_a_json_list(tmp_path: Path, text: str | None, secrets: list[str]) -> None:
    path = tmp_path / "secrets.json"
    if text is not None:
        path.write_text(text)

    assert read_secrets(path) == secrets


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[WebhookReceiver]:
    path = tmp_path / "secrets.json"
    path.write_text(json.dumps([SECRET]))
    with WebhookReceiver(free_port(), path) as receiver:
        thread = threading.Thread(target=receiver.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield receiver
        receiver.shutdown()
        thread.join()


def ask(
    receiver: WebhookReceiver, method: str, headers: dict[str, str], body: bytes | None = None
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(HOST, receiver.server_address[1], timeout=5)
    connection.request(method, "/hook", body, headers)
    answer = connection.getresponse()
    read = answer.status, answer.read()
    connection.close()
    return read


def test_the_receiver_returns_204_or_401_for_a_forged_webhook(
    receiver: WebhookReceiver, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(receiver, "POST", signed(), BODY)[0] == 204
    assert ask(receiver, "POST", signed() | {"webhook-id": "evt_2\x1b[31m"}, BODY)[0] == 401

    said = capsys.readouterr().out.splitlines()
    assert said[0] == "job.succeeded evt_1 verified"
    assert said[1].startswith("'job.succeeded' 'evt_2\\x1b[31m' REJECTED: webhook-id is missing or malformed.")


def test_received_webhooks_are_listed_newest_first_up_to_a_limit(receiver: WebhookReceiver) -> None:
    for number in range(MAX_RECEIVED + 1):
        ask(receiver, "POST", signed(event_id=f"evt_{number}"), BODY)

    status, body = ask(receiver, "GET", {})

    shown = json.loads(body)
    assert status == 200
    assert len(shown) == MAX_RECEIVED
    assert (shown[0]["id"], shown[0]["verified"], shown[-1]["id"]) == (f"evt_{MAX_RECEIVED}", True, "evt_1")


def test_a_new_secret_takes_effect_immediately(receiver: WebhookReceiver) -> None:
    another = new_webhook_secret()
    assert ask(receiver, "POST", signed(secret=another), BODY)[0] == 401

    receiver.secrets_file.write_text(json.dumps([SECRET, another]))

    assert ask(receiver, "POST", signed(secret=another), BODY)[0] == 204


def test_a_body_too_large_or_of_unknown_length_is_not_read(receiver: WebhookReceiver) -> None:
    assert ask(receiver, "POST", {"Content-Length": str(MAX_BODY_BYTES + 1)})[0] == 413
    assert ask(receiver, "POST", {"Content-Length": "many"})[0] == 411
    assert not receiver.received
