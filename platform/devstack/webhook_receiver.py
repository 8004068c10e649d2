"""A webhook receiver for tests and demos: verifies both signatures, and lists what it received.

POST anything   a webhook: 204 if its signatures are valid, otherwise 401
GET  /          the last hundred, newest first, as JSON
"""

import json
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from core import clock
from core.signing import InvalidSignature, sign_body, signatures_match, verify_webhook
from devstack.ports import HOST

MAX_RECEIVED = 100
MAX_BODY_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class ReceivedWebhook:
    """One webhook, and the result of its verification."""

    received_at: str
    id: str
    type: str
    verified: bool
    #: Why the verification failed; empty if it succeeded.
    reason: str
    payload: Any


def verify(secrets: Sequence[str], headers: Mapping[str, str], body: bytes) -> ReceivedWebhook:
    """Verify a webhook with the secrets. Both signatures must be valid; a real site would verify one."""
    payload = _parse(body)
    kind = str(payload.get("type", "")) if isinstance(payload, dict) else ""
    event_id, reason = headers.get("webhook-id", ""), ""
    try:
        verify_webhook(secrets, headers, body, now=clock.unix_seconds())
        if not any(signatures_match(headers.get("x-sig", ""), sign_body(secret, body)) for secret in secrets):
            reason = "X-Sig does not match."
    except InvalidSignature as error:
        reason = str(error)
    return ReceivedWebhook(clock.now().isoformat(), event_id, kind, not reason, reason, payload)


def read_secrets(path: Path) -> list[str]:
    """Return the secrets in the file, a JSON list; none if the file is missing or invalid."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return []
    return [str(secret) for secret in found] if isinstance(found, list) else []


class WebhookReceiver(ThreadingHTTPServer):
    """Listens on loopback. Reads the secrets file for every webhook, so that new secrets take effect immediately."""

    daemon_threads = True

    def __init__(self, port: int, secrets_file: Path) -> None:
        super().__init__((HOST, port), _WebhookHandler)
        self.secrets_file = secrets_file
        self.received: deque[ReceivedWebhook] = deque(maxlen=MAX_RECEIVED)


class _WebhookHandler(BaseHTTPRequestHandler):
    server: WebhookReceiver
    protocol_version = "HTTP/1.1"
    timeout = 15

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit():
            self._respond(HTTPStatus.LENGTH_REQUIRED)
        elif int(length) > MAX_BODY_BYTES:
            self._respond(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        else:
            self._receive(self.rfile.read(int(length)))

    def do_GET(self) -> None:
        received = [asdict(webhook) for webhook in list(self.server.received)[::-1]]
        self._respond(HTTPStatus.OK, json.dumps(received, indent=2).encode() + b"\n")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (named so by the base class)
        """Log no requests; `_receive` prints one line per webhook."""

    def _receive(self, body: bytes) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        webhook = verify(read_secrets(self.server.secrets_file), headers, body)
        self.server.received.append(webhook)
        # The id and type of an unverified webhook are untrusted text, so they are quoted and cut.
        name = f"{webhook.type} {webhook.id}" if webhook.verified else f"{webhook.type[:64]!r} {webhook.id[:64]!r}"
        print(f"{name} {'verified' if webhook.verified else 'REJECTED: ' + webhook.reason}", flush=True)
        self._respond(HTTPStatus.NO_CONTENT if webhook.verified else HTTPStatus.UNAUTHORIZED)

    def _respond(self, status: HTTPStatus, body: bytes = b"") -> None:
        self.send_response(status)
        if status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
        if status >= HTTPStatus.BAD_REQUEST:
            # The rest of the request is not read.
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(body)


def serve(port: int, secrets_file: Path) -> None:
    """Receive webhooks until the process ends."""
    with WebhookReceiver(port, secrets_file) as receiver:
        print(f"receiving webhooks at http://{HOST}:{port}/", file=sys.stderr, flush=True)
        receiver.serve_forever()


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
