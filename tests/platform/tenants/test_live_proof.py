"""Who asks, on an event loop that never waits for Postgres. (On the loop itself Django refuses every query.)"""

import pytest

from tenants import directory, live_proof, tickets, tokens
from tenants.credentials import NewSite, revoke
from tenants.errors import (
    Contradicting,
    Missing,
    NotProven,
    OriginNotAllowed,
    Replayed,
    ScopeMissing,
    TenantError,
    Unfit,
)
from tenants.limits import Scope, check_origin
from tenants.live_proof import is_site_origin, prove_live, prove_reader
from tenants.models import Site
from tenants.proof import Identity, Means, Presented, prove
from tenants.tickets import Readable
from tenants.tokens import Wanted
from tests.asking import bearer, signed, signed_older, token
from tests.platform.tenants.counted import Counted

with_rows = pytest.mark.django_db(transaction=True)

PAGE, SHOP, OTHER = "https://bakery.test", "https://shop.bakery.test", "https://florist.test"
TARGET, BODY = "/v1/chat/completions", b'{"model": "gpt-5"}'


@pytest.fixture
def pages(bakery: NewSite) -> NewSite:
    Site.objects.filter(slug="bakery").update(origins=[PAGE, SHOP])
    bakery.site.refresh_from_db()
    return bakery


def presented(headers: dict[str, str], body: bytes = BODY) -> Presented:
    return Presented("POST", TARGET, {name.lower(): value for name, value in headers.items()}, body)


def key_of(made: NewSite) -> Presented:
    return presented(bearer(made.api_key.secret))


def narrow(made: NewSite, *scopes: Scope, origin: str | None = PAGE) -> Presented:
    wanted = Wanted(frozenset(scopes), 60, origin=origin)
    identity = Identity(made.site, Means.API_KEY, made.api_key.credential.public_id)
    return presented(bearer(tokens.mint(identity, wanted).minted.text))


def ticket_text(made: NewSite, *, origin: str | None = PAGE) -> str:
    identity = Identity(made.site, Means.API_KEY, made.api_key.credential.public_id)
    return tickets.mint(identity, Readable.STREAM, "stm_1", origin=origin).text


# Proofs


@with_rows
async def test_every_proof_is_proven_as_elsewhere_and_then_without_asking(pages: NewSite, threads: Counted) -> None:
    long = b"x" * (live_proof.HASHED_HERE_BYTES + 1)
    for asked, means in [
        (presented(signed(pages, "POST", TARGET, BODY)), Means.SIGNED_REQUEST),
        (presented(signed(pages, "POST", TARGET, long), long), Means.SIGNED_REQUEST),
        (presented(bearer(token(pages, scope="chat:write"))), Means.JWT),
        (key_of(pages), Means.API_KEY),
        (narrow(pages, Scope.CHAT_WRITE), Means.TOKEN),
    ]:
        first = await prove_live(asked, threads)
        threads.is_away = True
        second = await prove_live(asked, threads)
        threads.is_away = False

        assert first == second
        assert (first.identity.site, first.identity.means) == (pages.site, means)
        assert (first.nonce is not None) is (means is Means.SIGNED_REQUEST)


@with_rows
async def test_who_proves_nothing_is_refused(bakery: NewSite, threads: Counted) -> None:
    long = b"x" * (live_proof.HASHED_HERE_BYTES + 1)
    hostile: list[tuple[Presented, type[TenantError]]] = [
        (presented({}), Missing),
        (presented(bearer("nd_0123456789_" + "0" * 40)), NotProven),
        (presented(bearer("a.b.c")), NotProven),
        (presented({**signed(bakery, "POST", TARGET, BODY), "X-Site-ID": "nobody"}), NotProven),
        (presented(signed(bakery, "POST", TARGET, long), long + b"x"), NotProven),
        (presented({**bearer("other"), "X-Api-Key": "one"}), Contradicting),
        (presented({**bearer(bakery.api_key.secret), "X-Site-ID": "florist"}), Contradicting),
        (presented(bearer(ticket_text(bakery, origin=None))), Unfit),
    ]

    for asked, error in hostile:
        with pytest.raises(error):
            await prove_live(asked, threads)


@with_rows
async def test_an_older_signature_is_used_up_for_every_address(bakery: NewSite, threads: Counted) -> None:
    """It binds none. Were it used up in Redis on one way in and in Postgres on the other, it would let in twice."""
    await threads.run(lambda: Site.objects.update(accepts_older_signature=True))
    asked = presented(signed_older(bakery, BODY))

    proven = await prove_live(asked, threads)

    assert (proven.identity.means, proven.nonce) == (Means.OLDER_SIGNATURE, None)
    with pytest.raises(Replayed):
        await threads.run(prove, asked)


@with_rows
async def test_a_narrow_token_brings_its_narrowness_along(pages: NewSite, threads: Counted) -> None:
    one = (await prove_live(narrow(pages, Scope.CHAT_WRITE), threads)).identity
    other = (await prove_live(narrow(pages, Scope.CHAT_WRITE), threads)).identity

    assert (one.scopes, one.origin) == (frozenset({"chat:write"}), PAGE)
    assert one.credential_id == pages.api_key.credential.public_id
    assert one.token_id != other.token_id
    check_origin(one, PAGE)
    for origin in (SHOP, OTHER, "null", None):
        with pytest.raises(OriginNotAllowed):
            check_origin(one, origin)


@with_rows
@pytest.mark.parametrize("end", ["revoked", "switched off"])
async def test_tickets_and_tokens_end_with_credential_and_site(pages: NewSite, threads: Counted, end: str) -> None:
    asked, shown = narrow(pages, Scope.CHAT_WRITE), presented(bearer(ticket_text(pages)))
    await prove_live(asked, threads)
    await prove_reader(shown, Readable.STREAM, "stm_1", origin=PAGE, threads=threads)

    if end == "revoked":
        await threads.run(revoke, pages.api_key.credential)
    else:
        await threads.run(lambda: Site.objects.update(is_active=False))
        # As time does: nothing that is remembered counts for as long as a second.
        directory.forget_all()

    with pytest.raises(NotProven):
        await prove_live(asked, threads)
    with pytest.raises(NotProven):
        await prove_reader(shown, Readable.STREAM, "stm_1", origin=PAGE, threads=threads)


# Readers


@with_rows
async def test_a_ticket_reads_one_thing_from_one_origin_as_often_as_its_holder_likes(
    pages: NewSite, threads: Counted
) -> None:
    asked = presented(bearer(ticket_text(pages)))
    hostile: list[tuple[Readable, str, str | None, type[TenantError]]] = [
        (Readable.STREAM, "stm_2", PAGE, Unfit),
        (Readable.JOB, "stm_1", PAGE, Unfit),
        (Readable.STREAM, "stm_1", SHOP, OriginNotAllowed),
        (Readable.STREAM, "stm_1", OTHER, OriginNotAllowed),
        (Readable.STREAM, "stm_1", "null", OriginNotAllowed),
        (Readable.STREAM, "stm_1", None, OriginNotAllowed),
    ]

    for _ in range(2):
        reader = await prove_reader(asked, Readable.STREAM, "stm_1", origin=PAGE, threads=threads)
        assert (reader.site, reader.origin, reader.proven) == (pages.site, PAGE, None)
    for what, public_id, origin, error in hostile:
        with pytest.raises(error):
            await prove_reader(asked, what, public_id, origin=origin, threads=threads)
    both = presented({**bearer(ticket_text(pages)), "X-Api-Key": pages.api_key.secret})
    with pytest.raises(Contradicting):
        await prove_reader(both, Readable.STREAM, "stm_1", origin=PAGE, threads=threads)


@with_rows
async def test_an_origin_that_the_site_gave_up_reads_no_more(pages: NewSite, threads: Counted) -> None:
    text = ticket_text(pages)
    await threads.run(lambda: Site.objects.update(origins=[SHOP]))

    with pytest.raises(OriginNotAllowed):
        await prove_reader(presented(bearer(text)), Readable.STREAM, "stm_1", origin=PAGE, threads=threads)


@with_rows
async def test_a_site_reads_its_own_with_any_proof_that_has_the_scope(pages: NewSite, threads: Counted) -> None:
    for asked in (key_of(pages), narrow(pages, Scope.STREAMS_READ)):
        reader = await prove_reader(asked, Readable.STREAM, "stm_1", origin=None, threads=threads)
        assert reader.site == pages.site
        assert reader.proven is not None
    for what, scope in ((Readable.STREAM, Scope.CHAT_WRITE), (Readable.JOB, Scope.STREAMS_READ)):
        with pytest.raises(ScopeMissing):
            await prove_reader(narrow(pages, scope), what, "stm_1", origin=PAGE, threads=threads)


# Preflights


@with_rows
async def test_pages_of_active_sites_are_known(pages: NewSite, threads: Counted) -> None:
    hostile = ("https://evil.test", "null", "", "*", "https://a\x00b", "https://" + "a" * 5000)

    assert [await is_site_origin(origin, threads) for origin in (PAGE, f"{SHOP}:443", *hostile)] == [
        True,
        True,
        *[False] * len(hostile),
    ]
