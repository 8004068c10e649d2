"""A real server without Redis, through an outage of Postgres, and with endless bodies."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import urlsplit

import httpx
import pytest

from inference.models import Route
from jobs.models import Job
from tenants.credentials import NewSite, create_site, revoke
from tests.api.calling import job_body
from tests.api.forms import FORM, WHOLE, is_empty
from tests.api.serving import Gate
from tests.polling import wait_for
from tests.request_signing import bearer, signed

pytestmark = pytest.mark.django_db(transaction=True)
BODY = json.dumps(job_body()).encode()


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=10) as client:
        yield client


def submit(http: httpx.Client, made: NewSite) -> httpx.Response:
    headers = {**signed(made, "POST", "/v1/jobs", BODY), "Content-Type": "application/json"}
    return http.post("/v1/jobs", content=BODY, headers=headers)


def test_a_job_is_accepted_without_delay_while_redis_is_unavailable(http: httpx.Client, route: Route) -> None:
    made = create_site("Without Redis")

    started = time.monotonic()
    answer = submit(http, made)

    assert answer.status_code == 202, answer.text
    assert time.monotonic() - started < 2
    assert Job.objects.get().public_id == answer.json()["id"]
    assert answer.headers["X-Request-ID"].startswith("req_")
    ready = http.get("/readyz")
    assert (ready.status_code, ready.json()["redis"]) == (200, "unreachable")


def test_requests_get_503_while_postgres_is_unavailable_and_succeed_afterwards(
    http: httpx.Client, gate: Gate, route: Route
) -> None:
    made = create_site("Without Postgres")
    assert submit(http, made).status_code == 202

    gate.shut()
    refused = [submit(http, made), http.get("/readyz"), http.get("/v1/jobs", headers=bearer(made.api_key.secret))]
    alive = http.get("/healthz")
    gate.open()
    accepted = wait_for(lambda: answer if (answer := submit(http, made)).status_code == 202 else None)

    for answer in refused:
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
        assert answer.json()["error"]["code"] == "database_unavailable"
        assert answer.json()["error"]["request_id"] == answer.headers["X-Request-ID"]
    assert alive.status_code == 200
    assert accepted.json()["state"] == "queued"
    assert Job.objects.count() == 2


def test_a_key_revoked_by_another_process_is_rejected_within_a_second(http: httpx.Client) -> None:
    made = create_site("Revoked")
    headers = bearer(made.api_key.secret)
    assert http.get("/v1/jobs", headers=headers).status_code == 200

    revoke(made.api_key.credential)
    revoked_at = time.monotonic()
    wait_for(lambda: http.get("/v1/jobs", headers=headers).status_code == 401, seconds=5)

    assert time.monotonic() - revoked_at < 1.2  # the promise, and the time of one request on a busy machine


def test_a_body_of_two_megabytes_is_rejected(http: httpx.Client) -> None:
    made = create_site("Large")

    answer = http.post("/v1/jobs", content=b"x" * 2_000_000, headers=bearer(made.api_key.secret))

    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "body_too_large"


def test_an_endless_body_is_rejected_and_its_connection_closed(url: str) -> None:
    address = urlsplit(url)
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"

    with socket.create_connection((str(address.hostname), address.port or 0), timeout=10) as client:
        client.sendall(head)
        answer = b""
        client.setblocking(False)
        deadline = time.monotonic() + 10
        while b"body_too_large" not in answer and time.monotonic() < deadline:
            with suppress(BlockingIOError, ConnectionError):
                client.send(chunk)
            with suppress(BlockingIOError, ConnectionError):
                answer += client.recv(65_536)

    assert answer.startswith(b"HTTP/1.1 413")
    assert b"body_too_large" in answer


def test_a_stalled_upload_gets_408_and_its_connection_is_closed(url: str) -> None:
    address = urlsplit(url)
    made = create_site("Stalled")
    head = f"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\nContent-Type: {FORM}\r\n"
    proof = f"Authorization: Bearer {made.api_key.secret}\r\n\r\n"

    with socket.create_connection((str(address.hostname), address.port or 0), timeout=10) as client:
        client.sendall((head + proof).encode() + WHOLE[:-40])
        answer = b""
        # Reading ends when the server closes the connection.
        while piece := client.recv(65_536):
            answer += piece

    assert answer.startswith(b"HTTP/1.1 408")
    assert b"request_timeout" in answer
    assert is_empty()


def test_the_server_survives_malformed_http(url: str, http: httpx.Client) -> None:
    address = urlsplit(url)
    for nonsense in (b"\x00" * 100, b"GET\r\n\r\n", b"GET /v1/jobs?\xff\xfe=\xff HTTP/1.1\r\nHost: localhost\r\n\r\n"):
        with socket.create_connection((str(address.hostname), address.port or 0), timeout=10) as client:
            client.sendall(nonsense)
            first = client.recv(65_536)
            assert first.startswith((b"HTTP/1.1 400", b"HTTP/1.1 401")), first

    assert http.get("/healthz").status_code == 200
