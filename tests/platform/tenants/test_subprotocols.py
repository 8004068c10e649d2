"""What a WebSocket client offers."""

import pytest

from tenants.errors import Contradicting
from tenants.subprotocols import Offer, read_offer


@pytest.mark.parametrize(
    ("offered", "offer"),
    [
        ([], Offer(None)),
        (["nightdesk.v1"], Offer("nightdesk.v1")),
        (["nightdesk.v1", "ticket.a.b.c"], Offer("nightdesk.v1", "ticket", "a.b.c")),
        (["bearer.nd_x", "nightdesk.v1"], Offer("nightdesk.v1", "bearer", "nd_x")),
        (["graphql-ws", "nightdesk.v1"], Offer("nightdesk.v1")),
        (["nightdesk.v2", "ticket.a.b.c"], Offer(None, "ticket", "a.b.c")),
        (["Nightdesk.V1"], Offer(None)),
        (["nightdesk.v1", "ticket."], Offer("nightdesk.v1")),
        (["nightdesk.v1", "ticket"], Offer("nightdesk.v1")),
        (["nightdesk.v1", "tickets.a"], Offer("nightdesk.v1")),
        (["nightdesk.v1", "ticket.a", "ticket.a"], Offer("nightdesk.v1", "ticket", "a")),
    ],
)
def test_an_offer_is_read(offered: list[str], offer: Offer) -> None:
    assert read_offer(offered) == offer


@pytest.mark.parametrize("proofs", [["ticket.a", "ticket.b"], ["ticket.a", "bearer.a"], ["bearer.a", "bearer.b"]])
def test_two_proofs_contradict_each_other(proofs: list[str]) -> None:
    with pytest.raises(Contradicting):
        read_offer(["nightdesk.v1", *proofs])


def test_the_proof_becomes_the_header_that_a_browser_cannot_set_and_is_not_shown() -> None:
    offer = read_offer(["nightdesk.v1", "ticket.a.b.c"])

    assert offer.headers == {"authorization": "Bearer a.b.c"}
    assert "a.b.c" not in repr(offer)
    assert read_offer(["nightdesk.v1"]).headers == {}
