"""A page on another origin reads an answer, loses its network in the middle, and shows the whole of it."""

from typing import Any

import pytest

from tests.browser.conftest import Shop
from tests.browser.devtools import Tab

CHAT: dict[str, Any] = {"model": "paced", "messages": [{"role": "user", "content": "What is fresh today?"}]}
STREAMED = {**CHAT, "stream": True}


def uncut_text(shop: Shop) -> str:
    """The answer as a server gets it in one response; the simulator's answers are deterministic."""
    answer = shop.live.post("/v1/chat/completions", {**CHAT, "model": "at-once"})
    assert answer.status_code == 200, answer.text
    shop.live.simulator.finished()
    shop.live.simulator.clear()
    return str(answer.json()["choices"][0]["message"]["content"])


def lose_the_network_in_the_middle(shop: Shop) -> str:
    """Return what the page shows at the end."""
    shop.wait_for_state("seq", 5)
    shop.lose_network()
    # One connection that broke, and two that could not be made.
    lost = shop.wait_for_state("lost", 3)
    shop.regain_network()
    whole = shop.wait_for_state("ended")
    assert 0 < lost["lost"][0] == lost["lost"][2] < len(whole["text"])
    return str(whole["text"])


def assert_no_address_tells(shop: Shop, secret: str) -> None:
    seen = [*shop.line.targets(), *shop.line.referers(), shop.tab.evaluate("location.href")]
    # The middle of a JWT is its claims.
    assert not [each for each in seen if any(part in each for part in secret.split("."))]


def test_an_answer_by_fetch_resumes_after_a_network_loss(shop: Shop) -> None:
    uncut, token = uncut_text(shop), shop.token()

    shop.tab.begin("readByFetch", desk=shop.desk, token=token, start=STREAMED)
    text = lose_the_network_in_the_middle(shop)

    assert text == uncut
    assert len(shop.live.simulator.finished()) == 1
    assert "/v1/chat/completions" in shop.line.targets()
    assert shop.line.targets()[-1].endswith("/events")
    assert_no_address_tells(shop, token)


def test_an_answer_by_websocket_resumes_after_a_network_loss(shop: Shop) -> None:
    uncut, token = uncut_text(shop), shop.token()

    shop.tab.begin("readBySocket", desk=shop.desk, proof=f"bearer.{token}", start=STREAMED)
    text = lose_the_network_in_the_middle(shop)

    assert text == uncut
    assert len(shop.live.simulator.finished()) == 1
    assert shop.line.targets() == ["/v1/ws", "/v1/ws"]
    assert_no_address_tells(shop, token)


@pytest.mark.parametrize("way", ["fetch", "websocket"])
def test_a_ticket_reads_the_complete_stream_that_a_server_started(shop: Shop, way: str) -> None:
    uncut = uncut_text(shop)
    begun = shop.live.post("/v1/streams", CHAT, x_ticket_origin=shop.origin).json()
    ticket, stream = begun["ticket"], begun["id"]

    if way == "fetch":
        shop.tab.begin("readByFetch", desk=shop.desk, token=ticket, stream=stream)
    else:
        shop.tab.begin("readBySocket", desk=shop.desk, proof=f"ticket.{ticket}", stream=stream)
    text = lose_the_network_in_the_middle(shop)

    assert text == uncut
    assert begun["events_url"] == f"{shop.desk}/v1/streams/{stream}/events"
    assert len(shop.live.simulator.finished()) == 1
    assert_no_address_tells(shop, ticket)


def test_a_page_of_another_origin_is_refused(shop: Shop) -> None:
    token, chat = shop.token("at-once"), {**STREAMED, "model": "at-once"}
    begun = shop.live.post("/v1/streams", chat, x_ticket_origin=shop.origin).json()
    shop.live.simulator.finished()

    def tried_by(page: Tab) -> list[Any]:
        ask = page.invoke("tryFetch", address=f"{shop.desk}/v1/chat/completions", token=token, body=chat)
        read = page.invoke("tryFetch", address=begun["events_url"], token=begun["ticket"])
        return [ask, read, page.invoke("trySocket", desk=shop.desk, proof=f"bearer.{token}")]

    # A handshake that is refused closes with the browser's own 1006.
    with shop.browser.open(f"{shop.nobody_s_origin}/shop.html") as page:
        assert tried_by(page) == ["blocked", "blocked", 1006]
    # Another site's page may read that it is refused, and nothing else.
    with shop.browser.open(f"{shop.other_site_s_origin}/shop.html") as page:
        assert tried_by(page) == [403, 403, 4403]
    assert len(shop.live.simulator.journal()) == 1
    assert tried_by(shop.tab) == [200, 200, "ready"]
