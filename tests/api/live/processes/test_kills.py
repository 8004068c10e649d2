"""A process that serves streams is killed: their readers get an error, and every call is recorded exactly once."""

import signal
import time
from typing import Any

import pytest

from metering.models import UsageOutcome
from providers.types import Dialect
from tests.api.live.processes.fleet import Caller, Desk, Web
from tests.api.live.processes.wire import Answer, ask, at_once, error_in, has_clean_end
from tests.polling import wait_until

ENDLESS = "deltas=600,inter_token_ms=50"
#: The dialects of `POST /v1/streams`, in which its readers get the error.
SPOKEN = {"openai": Dialect.OPENAI, "anthropic": Dialect.ANTHROPIC, "wordpress": Dialect.OPENAI}
#: A heartbeat expires after 4 s; the rest allows for a busy machine.
SECONDS = 10


@pytest.fixture(scope="module")
def model(desk: Desk) -> str:
    desk.make_routes([[(Dialect.OPENAI, ENDLESS)]])
    return desk.model((Dialect.OPENAI, ENDLESS))


def body(model: str, *, stream: bool) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Go on for ever."}]
    return {"model": model, "messages": messages, "stream": stream, "max_tokens": 4000}


async def start(web: Web, caller: Caller, model: str, dialect: str) -> str:
    """Start a stream without a reader; return its id."""
    answer = await ask(web.url, "POST", f"/v1/streams?dialect={dialect}", caller.headers, body(model, stream=True))
    assert answer.status == 202, answer.raw
    return str(answer.json()["id"])


async def read(web: Web, caller: Caller, stream_id: str, after: str = "") -> Answer:
    return await ask(web.url, "GET", f"/v1/streams/{stream_id}/events{after}", caller.headers)


def test_readers_of_a_killed_process_get_an_error_and_its_usage_is_recorded(
    desk: Desk, caller: Caller, model: str
) -> None:
    (victim,) = desk.fleet.start({})
    (here,) = desk.webs(1)
    desk.make_known([victim])
    begun = dict(zip(SPOKEN, at_once(*(start(victim, caller, model, dialect) for dialect in SPOKEN)), strict=True))
    killed_at = 0.0

    async def kill() -> Answer:
        """Kill it once all streams are in progress."""
        nonlocal killed_at
        await wait_until(lambda: sum(entry["output_tokens"] > 8 for entry in desk.simulator.journal()) == len(SPOKEN))
        victim.signal(signal.SIGKILL)
        killed_at = time.monotonic()
        return Answer(b"")

    plain = ask(victim.url, "POST", "/v1/chat/completions", caller.headers, body(model, stream=False))
    direct, _, *read_on = at_once(plain, kill(), *(read(here, caller, each) for each in begun.values()))

    assert time.monotonic() - killed_at < SECONDS
    assert not direct.is_whole
    for dialect, answer in zip(begun, read_on, strict=True):
        spoken = SPOKEN[dialect]
        assert answer.is_whole, dialect
        assert error_in(answer.events, spoken) is not None, (dialect, answer.body[-500:])
        assert not has_clean_end(answer.events, spoken)
        # The error is not an event of the stream: a reader that reconnects has not seen more events than there are.
        assert (answer.events[-1].id, answer.events[-1].name) == ("", "" if dialect == "openai" else "error")
    seen = zip(begun.values(), (answer.events[-2].id for answer in read_on), strict=True)
    back = at_once(*(read(here, caller, stream_id, f"?after={last}") for stream_id, last in seen))
    assert [(again.status, again.is_whole) for again in back] == [(502, True)] * len(begun)
    lost = [event for _, event in caller.settled().values()]
    assert [(event.outcome, event.estimated, event.billable) for event in lost] == [
        (UsageOutcome.LOST, True, False)
    ] * 4
    # They are closed only once.
    assert len(caller.usage()) == len(lost)
