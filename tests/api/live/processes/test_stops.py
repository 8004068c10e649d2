"""Graceful shutdown at SIGTERM: no new requests, streams end or are interrupted with an error, usage is recorded."""

import signal
import time
from contextlib import suppress
from subprocess import TimeoutExpired
from typing import Any

import httpx
import pytest

from metering.models import UsageOutcome
from providers.types import Dialect
from tests.api.live.processes.fleet import Caller, Desk, Web
from tests.api.live.processes.wire import Answer, ask, at_once, error_in, has_clean_end
from tests.polling import wait_until

#: The drain time of these processes is 2 s: one stream ends within it, one does not.
SHORT = (Dialect.OPENAI, "deltas=30,inter_token_ms=40")
LONG = (Dialect.OPENAI, "deltas=600,tokens=600,inter_token_ms=50")
DRAIN = {"LIVE_DRAIN_SECONDS": "2"}
SECONDS = 30


@pytest.fixture(scope="module")
def stopping(desk: Desk) -> dict[str, Web]:
    """A process of each server, and one that keeps running."""
    desk.make_routes([[SHORT], [LONG]])
    started = {server: desk.fleet.start(DRAIN, server=server)[0] for server in ("uvicorn", "daphne")}
    desk.webs(1)
    desk.make_known(list(started.values()))
    return started


def body(model: str, *, stream: bool = True) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Go on."}]
    return {"model": model, "messages": messages, "stream": stream, "max_tokens": 4000}


@pytest.mark.parametrize("server", ["uvicorn", "daphne"])
def test_at_sigterm_streams_end_or_are_interrupted_with_an_error_and_all_usage_is_recorded(
    desk: Desk, caller: Caller, stopping: dict[str, Web], server: str
) -> None:
    web, other = stopping[server], desk.webs(1)[0]

    async def chat(model: str) -> Answer:
        return await ask(web.url, "POST", "/v1/chat/completions", caller.headers, body(model))

    async def start_and_read() -> tuple[str, Answer]:
        started = await ask(web.url, "POST", "/v1/streams", caller.headers, body(desk.model(LONG)))
        stream_id = str(started.json()["id"])
        return stream_id, await ask(other.url, "GET", f"/v1/streams/{stream_id}/events", caller.headers)

    async def stop() -> tuple[float, list[int | None]]:
        await wait_until(lambda: sum(entry["output_tokens"] > 4 for entry in desk.simulator.journal()) == 3)
        web.signal(signal.SIGTERM)
        told_at = time.monotonic()
        await wait_until(lambda: status(web, "GET", "/readyz") != 200)
        seen = [status(web, "GET", "/readyz"), status(web, "POST", "/v1/chat/completions", body(desk.model(SHORT)))]
        return told_at, seen

    def status(web: Web, method: str, path: str, request_body: Any = None) -> int | None:
        """Return None if the process accepts no connection any more."""
        with suppress(httpx.TransportError):
            return httpx.request(
                method, web.url + path, json=request_body, headers=caller.headers, timeout=5
            ).status_code
        return None

    asking: list[Any] = [chat(desk.model(SHORT)), chat(desk.model(LONG)), start_and_read(), stop()]
    short, long, (stream_id, elsewhere), (told_at, seen) = at_once(*asking)

    with suppress(TimeoutExpired):
        web.process.wait(SECONDS)
    assert time.monotonic() - told_at < SECONDS
    assert web.process.poll() in (0, -signal.SIGTERM), web.log.read_text()[-2000:]
    # The server may stop listening between the first of these and the second.
    assert seen in ([503, 503], [503, None], [None, None])
    assert (short.is_whole, has_clean_end(short.events, Dialect.OPENAI)) == (True, True)
    (again,) = at_once(ask(other.url, "GET", f"/v1/streams/{stream_id}/events", caller.headers))
    for answer in (long, elsewhere, again):
        error = error_in(answer.events, Dialect.OPENAI)
        assert answer.is_whole
        assert error is not None, answer.body[-300:]
        assert error["code"] == "shutting_down"
        assert not has_clean_end(answer.events, Dialect.OPENAI)
    assert again.events == elsewhere.events
    outcomes = sorted(event.outcome for _, event in caller.settled().values())
    assert outcomes == [UsageOutcome.CANCELED, UsageOutcome.CANCELED, UsageOutcome.OK]


@pytest.mark.parametrize("server", ["uvicorn", "daphne"])
def test_at_sigterm_a_complete_answer_has_the_same_drain_time(
    desk: Desk, caller: Caller, stopping: dict[str, Web], server: str
) -> None:
    (web,) = desk.fleet.start(DRAIN, server=server)
    desk.make_known([web])

    async def stop() -> None:
        await wait_until(desk.simulator.journal)
        web.signal(signal.SIGTERM)

    request_body = body(desk.model(SHORT), stream=False)
    asking: list[Any] = [ask(web.url, "POST", "/v1/chat/completions", caller.headers, request_body), stop()]
    whole, _ = at_once(*asking)

    assert (whole.status, whole.is_whole) == (200, True), whole.raw
    assert [event.outcome for _, event in caller.settled().values()] == [UsageOutcome.OK]
