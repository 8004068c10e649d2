"""Bodies that are not read to their end: not authenticated, over the budget, too slow, or without disk space."""

import asyncio
import json
import resource
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from pytest_django import Settings
from structlog.testing import capture_logs

from api.asgi import DjangoApp, get_application
from api.asgi_types import ASGIApp
from api.errors import BodyTimeout, TooManyUnverifiedUploads
from api.request_body import reader
from api.request_body.reader import (
    MAX_UNVERIFIED_SECONDS,
    RESERVATION,
    BodyReservation,
    UnverifiedBodyBudget,
    read_body,
)
from api.request_body.size_limit import BodyLimitMiddleware
from core import clock
from core.database_threads import DatabaseThreadPool
from jobs.models import Batch
from tenants.authentication import TIMESTAMP_TOLERANCE_SECONDS
from tenants.credentials import NewSite
from tenants.models import Site, UsedNonce
from tests.api.calling import CHAT
from tests.api.forms import FORM, PURPOSE, WHOLE, form, is_empty, part
from tests.request_signing import bearer, signed, signed_legacy

pytestmark = pytest.mark.django_db(transaction=True)

#: A thread for the database access of the tests themselves; it returns its connection to the pool.
DATABASE = DatabaseThreadPool("tests", 1)
LARGE = form(PURPOSE, part("file", b"x" * 4_000_000, "requests.jsonl"))
ADDRESSES = ("/v1/files", "/v1/batches")


@pytest.fixture(scope="module")
def app() -> ASGIApp:
    return get_application()


@pytest.fixture
async def http(app: ASGIApp) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


@pytest.fixture
def key(bakery: NewSite) -> dict[str, str]:
    return bearer(bakery.api_key.secret)


class Body:
    """A body that records whether it was read. One that stalls never ends."""

    def __init__(self, data: bytes, *, stalls: bool = False) -> None:
        self.data, self.stalls, self.was_read = data, stalls, False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.was_read = True
        yield self.data[:-40]
        if self.stalls:
            await asyncio.Event().wait()
        yield self.data[-40:]


async def post(http: httpx.AsyncClient, body: Any, headers: dict[str, str], path: str = "/v1/files") -> httpx.Response:
    return await http.post(path, content=body, headers={"Content-Type": FORM, **headers})


def refusal(answer: httpx.Response) -> tuple[int, str]:
    assert answer.json()["error"]["request_id"] == answer.headers["X-Request-ID"]
    return answer.status_code, answer.json()["error"]["code"]


# Preauthentication


@pytest.mark.parametrize("path", ADDRESSES)
async def test_a_signed_request_that_cannot_become_valid_is_rejected_before_its_body_is_read(
    http: httpx.AsyncClient, bakery: NewSite, path: str
) -> None:
    used = signed(bakery, "GET", "/v1/files")
    assert (await http.get("/v1/files", headers=used)).status_code == 200
    good = signed(bakery, "POST", path, WHOLE)
    cases = {
        "unknown site": ({**good, "X-Site-ID": "nobody"}, "invalid_credentials"),
        "no site": ({**good, "X-Site-ID": ""}, "invalid_credentials"),
        "no signature": ({**good, "X-Signature": "v1=x"}, "invalid_credentials"),
        "legacy signature, not allowed": (signed_legacy(bakery, WHOLE), "invalid_credentials"),
        "old": (signed(bakery, "POST", path, WHOLE, timestamp=clock.unix_seconds() - 61), "stale_timestamp"),
        "used": ({**good, "X-Nonce": used["X-Nonce"]}, "replayed_request"),
        "no nonce": ({**good, "X-Nonce": "short"}, "malformed_credentials"),
        "two proofs": ({**good, **bearer(bakery.api_key.secret)}, "conflicting_credentials"),
    }

    for name, (headers, code) in cases.items():
        body = Body(WHOLE)
        answer = await post(http, body, headers, path)
        assert (*refusal(answer), body.was_read) == (401, code, False), name
    assert await DATABASE.run(is_empty)


async def test_the_preauthentication_pass_consumes_no_nonce(http: httpx.AsyncClient, bakery: NewSite) -> None:
    forged = {**signed(bakery, "POST", "/v1/files", WHOLE), "X-Signature": "v1=" + "0" * 64}

    answer = await post(http, WHOLE, forged)

    assert refusal(answer) == (401, "invalid_credentials")
    assert not await DATABASE.run(UsedNonce.objects.exists)


async def test_an_address_that_is_not_allowed_is_rejected_before_the_body_is_read(
    http: httpx.AsyncClient, bakery: NewSite
) -> None:
    await DATABASE.run(Site.objects.update, ip_allowlist=["192.0.2.0/24"])
    body = Body(WHOLE)

    answer = await post(http, body, signed(bakery, "POST", "/v1/files", WHOLE))

    assert (*refusal(answer), body.was_read) == (403, "address_not_allowed", False)


async def test_a_large_batch_without_valid_credentials_is_not_read(
    http: httpx.AsyncClient, settings: Settings, bakery: NewSite
) -> None:
    length = {"Content-Length": str(settings.MAX_BODY_BYTES + 1)}
    for headers, was_read in (({}, False), (length, False), ({"Content-Length": "100"}, True)):
        body = Body(b"x" * 100)
        answer = await post(http, body, headers, "/v1/batches")
        assert (*refusal(answer), body.was_read) == (401, "missing_credentials", was_read)


@pytest.mark.parametrize("method", ["key", "signature", "legacy"])
async def test_a_large_batch_with_valid_credentials_is_accepted(
    http: httpx.AsyncClient, bakery: NewSite, route: object, method: str
) -> None:
    await DATABASE.run(Site.objects.update, accepts_legacy_signature=True)
    requests = [{"custom_id": f"r{n}", "body": {**CHAT, "user": "u" * 400}} for n in range(600)]
    body = json.dumps({"endpoint": "/v1/chat/completions", "requests": requests}).encode()
    headers = {
        "key": bearer(bakery.api_key.secret),
        "signature": signed(bakery, "POST", "/v1/batches", body),
        "legacy": signed_legacy(bakery, body),
    }[method]

    answer = await http.post("/v1/batches", content=body, headers={"Content-Type": "application/json", **headers})

    assert (answer.status_code, answer.json().get("status")) == (200, "in_progress"), answer.text
    assert await DATABASE.run(lambda: Batch.objects.get().total) == 600


async def test_large_batches_share_a_few_threads_and_do_not_delay_small_requests(
    bakery: NewSite, route: object, key: dict[str, str]
) -> None:
    slow, go_on = DatabaseThreadPool("slow", 1), threading.Event()
    app = BodyLimitMiddleware(DjangoApp(DatabaseThreadPool("web", 1), slow=slow))
    requests = [{"custom_id": f"r{n}", "body": CHAT} for n in range(5000)]
    body = json.dumps({"endpoint": "/v1/chat/completions", "requests": requests}).encode()
    busy = asyncio.create_task(slow.run(go_on.wait))
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]

    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=key) as http:
        long = asyncio.create_task(http.post("/v1/batches", content=body, headers={"Content-Type": "application/json"}))
        short = [(await http.get("/v1/batches")).json()["data"] for _ in range(3)]
        go_on.set()
        answer, _ = await asyncio.gather(long, busy)

    assert short == [[], [], []]
    assert answer.status_code == 200, answer.text


# Budget for unverified bodies


async def test_the_budget_bounds_unverified_bodies(
    http: httpx.AsyncClient, settings: Settings, bakery: NewSite, key: dict[str, str]
) -> None:
    settings.MAX_UNVERIFIED_BYTES = len(LARGE) - 1

    refused = await post(http, LARGE, signed(bakery, "POST", "/v1/files", LARGE))
    # The reservations were released, and an authenticated sender needs none.
    smaller = [await post(http, WHOLE, signed(bakery, "POST", "/v1/files", WHOLE)) for _ in range(2)]
    with_key = await post(http, LARGE, key)

    assert refusal(refused) == (503, "too_many_uploads")
    assert refused.headers["Retry-After"] == "5"
    assert [answer.status_code for answer in (*smaller, with_key)] == [200, 200, 200]


def test_a_verified_body_releases_its_reservation(settings: Settings) -> None:
    settings.MAX_UNVERIFIED_BYTES = 10
    room = UnverifiedBodyBudget()
    first, second = BodyReservation(room), BodyReservation(room)

    first.reserve(10)
    with pytest.raises(TooManyUnverifiedUploads):
        second.reserve(1)
    for _ in range(2):
        first.release()
    second.reserve(10)
    with pytest.raises(TooManyUnverifiedUploads):
        first.reserve(1)


# Timeouts


async def test_a_stalled_upload_gets_408_and_stores_nothing(
    http: httpx.AsyncClient, settings: Settings, key: dict[str, str]
) -> None:
    settings.BODY_READ_TIMEOUT_SECONDS = 0.05

    answer = await post(http, Body(LARGE, stalls=True), key)

    assert refusal(answer) == (408, "request_timeout")
    assert answer.headers["Connection"] == "close"
    assert await DATABASE.run(is_empty)


async def test_a_stalled_json_body_gets_408(http: httpx.AsyncClient, settings: Settings) -> None:
    settings.BODY_READ_TIMEOUT_SECONDS = 0.05

    answer = await post(http, Body(b"{}" * 100, stalls=True), {}, "/v1/jobs")

    assert refusal(answer) == (408, "request_timeout")


async def drip(scope: dict[str, Any]) -> int:
    """Send single bytes at short intervals without end; return how many were read."""
    sent = 0

    async def receive() -> dict[str, Any]:
        nonlocal sent
        await asyncio.sleep(0.005)
        sent += 1
        return {"type": "http.request", "body": b"x", "more_body": True}

    with await read_body(scope, receive) as body:
        assert (body.read(), type(scope[reader.UNREAD_REASON])) == (b"", BodyTimeout)
    return sent


async def test_a_slow_body_times_out(settings: Settings) -> None:
    settings.BODY_READ_TIMEOUT_SECONDS = 0.05

    assert await drip({}) <= 10


async def test_an_unverified_body_times_out_when_its_signature_expires(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert MAX_UNVERIFIED_SECONDS == 2 * TIMESTAMP_TOLERANCE_SECONDS
    monkeypatch.setattr(reader, "MAX_UNVERIFIED_SECONDS", 0.05)

    assert await drip({RESERVATION: BodyReservation(UnverifiedBodyBudget())}) <= 10


# Full disk


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """Limit the size of every file that this process writes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("limit", [3_000_000, 3_500_000, len(LARGE) - 10])
async def test_a_full_disk_gets_507_is_logged_and_stores_nothing(
    http: httpx.AsyncClient, key: dict[str, str], limit: int
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for begin in range(0, len(LARGE), 65_536):
            yield LARGE[begin : begin + 65_536]

    with full_disk(limit), capture_logs() as lines:
        answer = await post(http, pieces(), key)
    again = await post(http, LARGE, key)

    assert refusal(answer) == (507, "storage_full")
    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("body_storage_failed", "error"),
        ("request_failed", "error"),
    ]
    assert again.status_code == 200, again.text
