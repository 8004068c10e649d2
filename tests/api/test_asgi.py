"""The ASGI application: bodies of all sizes and encodings, and concurrent requests."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from pytest_django import Settings

from api.asgi import get_application
from api.asgi_types import ASGIApp
from api.request_body.size_limit import body_limit_for
from jobs.models import Job
from jobs.tasks import bell
from tenants.credentials import NewSite
from tests.api.calling import job_body
from tests.request_signing import bearer, signed, token

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def app() -> ASGIApp:
    return get_application()


@pytest.fixture(autouse=True)
def _no_doorbell() -> Iterator[None]:
    """Ring no broker: these tests check the rows."""
    bell.set_listener(lambda: None)
    yield
    bell.set_listener(None)


@pytest.fixture
async def http(app: ASGIApp) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


async def test_a_signed_request_is_checked_against_the_path_as_it_was_sent(
    http: httpx.AsyncClient, bakery: NewSite
) -> None:
    target = "/v1/jobs?model=a%2Fb%20c&state=queued"

    answer = await http.get(target, headers=signed(bakery, "GET", target))
    other = await http.get("/v1/jobs?model=a/b%20c&state=queued", headers=signed(bakery, "GET", target))

    assert (answer.status_code, other.status_code) == (200, 401)


async def test_a_chunked_body_is_read(http: httpx.AsyncClient, bakery: NewSite, route: object) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for part in json.dumps(job_body()).partition("gpt"):
            yield part.encode()

    headers = {**bearer(bakery.api_key.secret), "Content-Type": "application/json"}
    answer = await http.post("/v1/jobs", content=chunks(), headers=headers)

    assert answer.status_code == 202, answer.text


@pytest.mark.parametrize("announced", [True, False])
async def test_an_endless_body_gets_413_and_is_not_read(app: ASGIApp, bakery: NewSite, announced: bool) -> None:
    read = 0

    async def receive() -> dict[str, Any]:
        nonlocal read
        await asyncio.sleep(0)
        read += 65_536
        return {"type": "http.request", "body": b"x" * 65_536, "more_body": True}

    answer = await call(app, receive, [(b"content-length", b"99999999999")] if announced else [])

    assert (answer["status"], answer["body"]["error"]["code"]) == (413, "body_too_large")
    assert answer["headers"][b"Connection"] == b"close"
    assert answer["headers"][b"X-Request-ID"].decode() == answer["body"]["error"]["request_id"]
    assert read <= (0 if announced else 2 * 262_144)


@pytest.mark.parametrize(
    ("method", "path", "setting"),
    [
        ("POST", "/v1/jobs", "MAX_BODY_BYTES"),
        ("POST", "/v1/batches", "MAX_BATCH_BODY_BYTES"),
        ("POST", "/v1/files", "MAX_UPLOAD_BYTES"),
        ("PUT", "/v1/files", "MAX_BODY_BYTES"),
        ("POST", "/v1/files/", "MAX_BODY_BYTES"),
    ],
)
def test_each_path_has_its_body_limit(settings: Settings, method: str, path: str, setting: str) -> None:
    assert body_limit_for(method, path) == getattr(settings, setting)


async def call(app: ASGIApp, receive: Any, headers: list[tuple[bytes, bytes]], **scope: Any) -> dict[str, Any]:
    """Call the ASGI application directly; return status, headers and body."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    path, type_ = scope.pop("path", "/v1/jobs"), scope.pop("type_", "application/json")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "server": ("localhost", 80),
        "client": ("127.0.0.1", 4711),
        "headers": [(b"host", b"localhost"), (b"content-type", type_.encode()), *headers],
        **scope,
    }
    await asyncio.wait_for(app(scope, receive, send), 10)
    return {
        "status": sent[0]["status"],
        "headers": dict(sent[0]["headers"]),
        "body": json.loads(b"".join(message.get("body", b"") for message in sent[1:])),
    }


async def test_concurrent_requests_share_a_few_database_connections(
    http: httpx.AsyncClient, bakery: NewSite, route: object
) -> None:
    async def submit(number: int) -> str:
        body = json.dumps(job_body(metadata={"n": str(number)})).encode()
        headers = {**signed(bakery, "POST", "/v1/jobs", body), "Content-Type": "application/json"}
        answer = await http.post("/v1/jobs", content=body, headers=headers)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    ids = await asyncio.gather(*(submit(number) for number in range(100)))

    assert len(set(ids)) == 100
    assert await asyncio.to_thread(Job.objects.count) == 100


async def test_concurrent_submits_with_one_idempotency_key_create_one_job(
    http: httpx.AsyncClient, bakery: NewSite, route: object
) -> None:
    headers = {**bearer(token(bakery)), "Idempotency-Key": "order-4711"}

    answers = await asyncio.gather(*(http.post("/v1/jobs", json=job_body(), headers=headers) for _ in range(20)))

    assert {answer.status_code for answer in answers} == {202}
    assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == 1
    assert len({answer.json()["id"] for answer in answers}) == 1


async def test_of_concurrent_replays_of_a_signed_request_one_is_accepted(
    http: httpx.AsyncClient, bakery: NewSite, route: object
) -> None:
    body = json.dumps(job_body()).encode()
    headers = {**signed(bakery, "POST", "/v1/jobs", body), "Content-Type": "application/json"}

    answers = await asyncio.gather(*(http.post("/v1/jobs", content=body, headers=headers) for _ in range(10)))

    assert sorted(answer.status_code for answer in answers) == [202] + [401] * 9


async def test_malformed_query_and_headers_get_an_error_response(app: ASGIApp, bakery: NewSite) -> None:
    def receive() -> Any:
        messages = iter([{"type": "http.request", "body": b"", "more_body": False}])

        async def one() -> dict[str, Any]:
            return next(messages, None) or await asyncio.get_running_loop().create_future()

        return one

    key = [(b"authorization", f"Bearer {bakery.api_key.secret}".encode())]

    bad_query = await call(app, receive(), key, method="GET", query_string=b"model=\xff\xfe")
    bad_header = await call(app, receive(), [*key, (b"idempotency-key", b"\xff\xfe")])
    bad_length = await call(app, receive(), [*key, (b"content-length", b"many")])
    bad_type = await call(app, receive(), key, type_="text/plain; a*=utf-9''b")
    bad_charset = await call(
        app, receive(), key, type_="text/plain; charset=hex", method="GET", query_string=b"limit=1"
    )

    answers = (bad_query, bad_header, bad_length, bad_type, bad_charset)
    assert [answer["status"] for answer in answers] == [200, 400, 400, 400, 200]


async def test_a_disconnect_during_the_body_affects_no_later_request(
    app: ASGIApp, http: httpx.AsyncClient, bakery: NewSite
) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        raise AssertionError("The client has disconnected.")

    await app(
        {"type": "http", "method": "POST", "path": "/v1/jobs", "raw_path": b"/v1/jobs", "query_string": b"",
         "headers": [(b"host", b"localhost")], "scheme": "http"},
        receive,
        send,
    )  # fmt: skip

    assert (await http.get("/healthz")).status_code == 200
