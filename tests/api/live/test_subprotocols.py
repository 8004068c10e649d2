"""Credentials in `Sec-WebSocket-Protocol`."""

import pytest

from api.live.subprotocols import SubprotocolOffer, parse_offer
from tenants.errors import ConflictingCredentials


@pytest.mark.parametrize(
    ("offered", "offer"),
    [
        ([], SubprotocolOffer(None)),
        (["nightdesk.v1"], SubprotocolOffer("nightdesk.v1")),
        (["nightdesk.v1", "ticket.a.b.c"], SubprotocolOffer("nightdesk.v1", "ticket", "a.b.c")),
        (["bearer.nd_x", "nightdesk.v1"], SubprotocolOffer("nightdesk.v1", "bearer", "nd_x")),
        (["graphql-ws", "nightdesk.v1"], SubprotocolOffer("nightdesk.v1")),
        (["nightdesk.v2", "ticket.a.b.c"], SubprotocolOffer(None, "ticket", "a.b.c")),
        (["Nightdesk.V1"], SubprotocolOffer(None)),
        (["nightdesk.v1", "ticket."], SubprotocolOffer("nightdesk.v1")),
        (["nightdesk.v1", "ticket"], SubprotocolOffer("nightdesk.v1")),
        (["nightdesk.v1", "tickets.a"], SubprotocolOffer("nightdesk.v1")),
        (["nightdesk.v1", "ticket.a", "ticket.a"], SubprotocolOffer("nightdesk.v1", "ticket", "a")),
    ],
)
def test_an_offer_is_parsed(offered: list[str], offer: SubprotocolOffer) -> None:
    assert parse_offer(offered) == offer


@pytest.mark.parametrize("proofs", [["ticket.a", "ticket.b"], ["ticket.a", "bearer.a"], ["bearer.a", "bearer.b"]])
def test_two_credentials_in_one_offer_conflict(proofs: list[str]) -> None:
    with pytest.raises(ConflictingCredentials):
        parse_offer(["nightdesk.v1", *proofs])


def test_the_credential_becomes_an_authorization_header_and_is_not_in_the_repr() -> None:
    offer = parse_offer(["nightdesk.v1", "ticket.a.b.c"])

    assert offer.headers == {"authorization": "Bearer a.b.c"}
    assert "a.b.c" not in repr(offer)
    assert parse_offer(["nightdesk.v1"]).headers == {}
