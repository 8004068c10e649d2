"""The admin page of live streams, with real servers: listing and canceling them."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from django.conf import settings
from django.test import Client
from django.test.utils import override_settings

from core.redis import blocking_client
from inference.models import ProviderAccount
from streams.entries import encode, process_report_key
from streams.process import MAX_REPORTED_STREAMS, PROCESSES_KEY, ProcessReport, RunningStream
from tenants.models import AuditEntry
from tests.api.live.conftest import Live
from tests.api.live.conftest import _nothing_is_left as _nothing_is_left
from tests.api.live.conftest import live as live
from tests.api.live.conftest import simulator as simulator
from tests.api.live.conftest import simulator_process as simulator_process
from tests.api.live.conftest import uvicorn_url as server_url  # noqa: F401 (a fixture by another name)
from tests.factories import make_route
from tests.operators import sign_in, words
from tests.polling import wait_for

PAGE = "/admin/streams/"
PROMPT = "a prompt that nobody else may read"
MAY_LOOK, MAY_CANCEL = "tenants.view_stream", "tenants.cancel_stream"
LONG: dict[str, Any] = {"model": "slow-chat", "stream": True, "messages": [{"role": "user", "content": PROMPT}]}


@pytest.fixture
def stream(live: Live) -> Iterator[str]:
    """A running stream that emits events slowly for a minute."""
    slow = "gpt-4o-mini@tokens=200,deltas=200,inter_token_ms=300"
    make_route("slow-chat", (ProviderAccount.objects.get(name="sim-openai"), slow))
    stream_id = live.post("/v1/streams", LONG).json()["id"]
    yield stream_id
    httpx.delete(f"{live.url}/v1/streams/{stream_id}", headers=live.headers)


def page(browser: Client) -> str:
    response = browser.get(PAGE)
    assert response.status_code == 200
    return words(response.content.decode())


def page_with(browser: Client, stream_id: str) -> str:
    """Return the page once it lists only this stream."""

    def told() -> str:
        shown = page(browser)
        return shown if stream_id in shown and "1 running" in shown else ""

    return wait_for(told, every=0.1)


def canceled() -> list[AuditEntry]:
    return list(AuditEntry.objects.filter(action="stream.cancel"))


def cancel(browser: Client, stream_id: str) -> str:
    return words(browser.post(f"{PAGE}cancel/", {"id": stream_id}, follow=True).content.decode())


def test_running_streams_are_listed_without_their_content(live: Live, stream: str) -> None:
    browser = sign_in()

    shown = page_with(browser, stream)

    assert f"{stream} Detached Bakery slow-chat openai " in shown
    assert "none" in shown
    assert PROMPT not in browser.get(PAGE).content.decode()


def test_canceling_a_stream_is_audited(live: Live, stream: str) -> None:
    browser = sign_in(MAY_LOOK, MAY_CANCEL)
    page_with(browser, stream)

    assert f"{stream} will be canceled within a second" in cancel(browser, stream)

    wait_for(lambda: "No running streams." in page(browser), every=0.1)
    (event,) = live.usage(1)
    assert event.outcome == "canceled"
    (entry,) = canceled()
    assert (entry.actor, entry.action, entry.subject, entry.site, entry.address) == (
        "ada",
        "stream.cancel",
        stream,
        live.made.site,
        "192.0.2.7",
    )
    assert "Nothing to do" in cancel(browser, stream)
    assert len(canceled()) == 1


@pytest.mark.django_db
def test_view_permission_alone_shows_no_button(live: Live, stream: str) -> None:
    browser = sign_in(MAY_LOOK)

    shown = page_with(browser, stream)

    assert "cancel Cancel" not in shown
    assert browser.post(f"{PAGE}cancel/", {"id": stream}).status_code == 403
    assert browser.get(f"{PAGE}cancel/", {"id": stream}).status_code == 403


@pytest.mark.django_db
def test_the_page_requires_the_view_permission() -> None:
    browser = sign_in("jobs.view_job", MAY_CANCEL)

    for address in (PAGE, f"{PAGE}live/"):
        assert browser.get(address).status_code == 403
    assert browser.post(f"{PAGE}cancel/", {"id": "stm_1"}).status_code == 403


@pytest.mark.django_db
def test_without_redis_streams_can_be_neither_listed_nor_canceled() -> None:
    browser = sign_in()

    with override_settings(REDIS_URL="redis://127.0.0.1:1/0"):
        assert "Redis is unavailable, so running streams can be neither listed nor canceled" in page(browser)
        assert "Could not cancel it: Redis is unavailable" in cancel(browser, "stm_1")
    assert canceled() == []


@pytest.mark.django_db
def test_a_long_list_shows_the_oldest_streams_and_counts_the_rest() -> None:
    lines = [
        RunningStream(f"stm_{n}", "site_of_nobody", "", "openai", "answer", 1_800_000_000.0 + n, 0, 0, 2, False)
        for n in range(MAX_REPORTED_STREAMS)
    ]
    with blocking_client(settings.REDIS_URL) as server:
        server.zadd(PROCESSES_KEY, {"process_of_a_test": 1})
        server.set(process_report_key("process_of_a_test"), encode(ProcessReport(1234, lines)), px=5000)
        try:
            shown = page(sign_in())
        finally:
            server.delete(process_report_key("process_of_a_test"), PROCESSES_KEY)

    assert "1234 running" in shown
    assert "stm_0 Non-streaming site_of_nobody –" in shown
    assert f"{1234 - MAX_REPORTED_STREAMS} newer streams not shown" in shown
