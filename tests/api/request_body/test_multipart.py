"""Uploads and downloads through the ASGI application: preauthenticated, and never in memory as a whole."""

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import httpx
import pytest

from api.asgi import get_application
from api.asgi_types import ASGIApp
from core import clock
from core.database_threads import DatabaseThreadPool
from jobs.files.store import CHUNK_BYTES, DEFAULT_TTL_SECONDS
from jobs.models import FileChunk
from tenants.credentials import NewSite
from tenants.models import Site
from tests.api.forms import FORM, LINE, PURPOSE, WHOLE, form, is_empty, part
from tests.factories import make_file
from tests.request_signing import bearer, signed, signed_legacy, token

pytestmark = pytest.mark.django_db(transaction=True)

#: A thread for the database access of the tests themselves; it returns its connection to the pool.
DATABASE = DatabaseThreadPool("tests", 1)


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


async def post(http: httpx.AsyncClient, body: bytes, headers: dict[str, str]) -> httpx.Response:
    return await http.post("/v1/files", content=body, headers={"Content-Type": FORM, **headers})


async def test_an_uploaded_file_is_downloaded_unchanged(http: httpx.AsyncClient, key: dict[str, str]) -> None:
    # Longer than a chunk and than the memory limit, and with line ends that the form parser must not interpret.
    content = b"\r\n--a-bound\r\n\x00\xff" * 200_000

    made = await post(http, form(part("file", content, "requests.jsonl"), PURPOSE), key)
    read = await http.get(f"/v1/files/{made.json()['id']}/content", headers=key)

    assert made.status_code == 200, made.text
    assert (made.json()["bytes"], made.json()["filename"]) == (len(content), "requests.jsonl")
    assert made.json()["expires_at"] - made.json()["created_at"] == DEFAULT_TTL_SECONDS
    assert read.content == content
    assert read.headers["Content-Length"] == str(len(content))
    chunks = await DATABASE.run(lambda: [len(chunk.content) for chunk in FileChunk.objects.all()])
    assert max(chunks) <= CHUNK_BYTES
    assert len(chunks) < 2 * len(content) / CHUNK_BYTES + 2


class Watched:
    """A body that records whether it was read."""

    def __init__(self, body: bytes) -> None:
        self.body, self.was_read = body, False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.was_read = True
        yield self.body


async def test_invalid_credentials_are_rejected_before_the_body_is_read(
    http: httpx.AsyncClient, bakery: NewSite
) -> None:
    wrong = bakery.api_key.secret[:-4] + "0000"
    narrow = token(bakery, scope="jobs:read")

    for headers, status in (({}, 401), (bearer(wrong), 401), (bearer(narrow), 403)):
        body = Watched(WHOLE)
        answer = await http.post("/v1/files", content=body, headers={"Content-Type": FORM, **headers})
        assert (answer.status_code, body.was_read) == (status, False)
        assert answer.json()["error"]["request_id"] == answer.headers["X-Request-ID"]
    assert await DATABASE.run(is_empty)


async def test_a_token_may_expire_during_the_upload(http: httpx.AsyncClient, bakery: NewSite) -> None:
    now = clock.now()

    async def body() -> AsyncIterator[bytes]:
        yield WHOLE[:100]
        frozen.enter_context(clock.frozen(now + timedelta(hours=2)))
        yield WHOLE[100:]

    with ExitStack() as frozen:
        headers = {"Content-Type": FORM, **bearer(token(bakery))}
        answer = await http.post("/v1/files", content=body(), headers=headers)

    assert answer.status_code == 200, answer.text


async def test_a_signature_covers_the_file(http: httpx.AsyncClient, bakery: NewSite) -> None:
    large = form(PURPOSE, part("file", LINE * 50_000, "requests.jsonl"))

    right = await post(http, large, signed(bakery, "POST", "/v1/files", large))
    wrong = await post(http, large[:-3] + b"x\r\n", signed(bakery, "POST", "/v1/files", large))
    again = signed(bakery, "POST", "/v1/files", WHOLE)
    twice = [(await post(http, WHOLE, again)).status_code for _ in range(2)]

    assert (right.status_code, wrong.status_code, twice) == (200, 401, [200, 401])


async def test_the_legacy_signature_cannot_sign_a_file(http: httpx.AsyncClient, bakery: NewSite) -> None:
    await DATABASE.run(Site.objects.update, accepts_legacy_signature=True)

    # Neither over the file nor over an empty body, as for a GET.
    for body in (WHOLE, b""):
        answer = await post(http, WHOLE, signed_legacy(bakery, body))
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_credentials")


async def test_a_disconnect_during_an_upload_stores_nothing(
    app: ASGIApp, http: httpx.AsyncClient, key: dict[str, str]
) -> None:
    begun = {"type": "http.request", "body": WHOLE[:-40], "more_body": True}
    messages: Iterator[Any] = iter([begun, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(messages)

    async def send(message: object) -> None:
        raise AssertionError("The client has disconnected.")

    headers = [(b"host", b"localhost"), (b"content-type", FORM.encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in key.items()]
    scope = {"type": "http", "method": "POST", "path": "/v1/files", "raw_path": b"/v1/files", "query_string": b"",
             "headers": headers, "scheme": "http", "client": ("127.0.0.1", 4711)}  # fmt: skip
    await app(scope, receive, send)

    assert next(messages, None) is None
    assert await DATABASE.run(is_empty)


async def test_an_error_during_a_download_interrupts_the_response(
    http: httpx.AsyncClient, bakery: NewSite, key: dict[str, str]
) -> None:
    def make() -> str:
        file = make_file(bakery.site, *[b"x" * 70_000] * 3)
        FileChunk.objects.filter(number=2).delete()
        return file.public_id

    file_id = await DATABASE.run(make)
    with pytest.raises(Exception, match="can no longer be read"):
        await http.get(f"/v1/files/{file_id}/content", headers=key)
