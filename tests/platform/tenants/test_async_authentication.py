"""Authentication on an event loop, which never waits for Postgres (Django raises on any query there)."""

import pytest

from tenants import async_authentication, cached_lookups, narrow_tokens, tickets
from tenants.access import TokenScope, check_origin
from tenants.async_authentication import authenticate_async, authenticate_reader, is_site_origin
from tenants.authentication import AuthMethod, Identity, PresentedRequest, authenticate
from tenants.credentials import NewSite, revoke
from tenants.errors import (
    ConflictingCredentials,
    InsufficientScope,
    InvalidCredentials,
    MalformedCredentials,
    MissingCredentials,
    OriginNotAllowed,
    ReplayedRequest,
    TenantError,
)
from tenants.models import Site
from tenants.narrow_tokens import TokenRequest
from tenants.tickets import ReadableKind
from tests.counting_threads import CountingThreads
from tests.request_signing import bearer, signed, signed_legacy, token

with_rows = pytest.mark.django_db(transaction=True)

PAGE, SHOP, OTHER = "https://bakery.test", "https://shop.bakery.test", "https://florist.test"
TARGET, BODY = "/v1/chat/completions", b'{"model": "gpt-5"}'


@pytest.fixture
def pages(bakery: NewSite) -> NewSite:
    Site.objects.filter(slug="bakery").update(origins=[PAGE, SHOP])
    bakery.site.refresh_from_db()
    return bakery


def presented(headers: dict[str, str], body: bytes = BODY) -> PresentedRequest:
    return PresentedRequest("POST", TARGET, {name.lower(): value for name, value in headers.items()}, body)


def key_of(made: NewSite) -> PresentedRequest:
    return presented(bearer(made.api_key.secret))


def narrow(made: NewSite, *scopes: TokenScope, origin: str | None = PAGE) -> PresentedRequest:
    wanted = TokenRequest(frozenset(scopes), 60, origin=origin)
    identity = Identity(made.site, AuthMethod.API_KEY, made.api_key.credential.public_id)
    return presented(bearer(narrow_tokens.mint(identity, wanted).minted.text))


def ticket_text(made: NewSite, *, origin: str | None = PAGE) -> str:
    identity = Identity(made.site, AuthMethod.API_KEY, made.api_key.credential.public_id)
    return tickets.mint(identity, ReadableKind.STREAM, "stm_1", origin=origin).text


# Proofs


@with_rows
async def test_every_kind_of_credential_is_authenticated_and_then_from_the_cache(
    pages: NewSite, threads: CountingThreads
) -> None:
    long = b"x" * (async_authentication.INLINE_HASH_MAX_BYTES + 1)
    for request, means in [
        (presented(signed(pages, "POST", TARGET, BODY)), AuthMethod.SIGNED_REQUEST),
        (presented(signed(pages, "POST", TARGET, long), long), AuthMethod.SIGNED_REQUEST),
        (presented(bearer(token(pages, scope="chat:write"))), AuthMethod.JWT),
        (key_of(pages), AuthMethod.API_KEY),
        (narrow(pages, TokenScope.CHAT_WRITE), AuthMethod.TOKEN),
    ]:
        first = await authenticate_async(request, threads)
        threads.is_unavailable = True
        second = await authenticate_async(request, threads)
        threads.is_unavailable = False

        assert first == second
        assert (first.identity.site, first.identity.auth_method) == (pages.site, means)
        assert (first.nonce is not None) is (means is AuthMethod.SIGNED_REQUEST)


@with_rows
async def test_invalid_credentials_are_rejected(bakery: NewSite, threads: CountingThreads) -> None:
    long = b"x" * (async_authentication.INLINE_HASH_MAX_BYTES + 1)
    hostile: list[tuple[PresentedRequest, type[TenantError]]] = [
        (presented({}), MissingCredentials),
        (presented(bearer("nd_0123456789_" + "0" * 40)), InvalidCredentials),
        (presented(bearer("a.b.c")), InvalidCredentials),
        (presented({**signed(bakery, "POST", TARGET, BODY), "X-Site-ID": "nobody"}), InvalidCredentials),
        (presented(signed(bakery, "POST", TARGET, long), long + b"x"), InvalidCredentials),
        (presented({**bearer("other"), "X-Api-Key": "one"}), ConflictingCredentials),
        (presented({**bearer(bakery.api_key.secret), "X-Site-ID": "florist"}), ConflictingCredentials),
        (presented(bearer(ticket_text(bakery, origin=None))), MalformedCredentials),
    ]

    for request, error in hostile:
        with pytest.raises(error):
            await authenticate_async(request, threads)


@with_rows
async def test_a_legacy_signature_is_consumed_for_every_path(bakery: NewSite, threads: CountingThreads) -> None:
    """It binds no path. If it were consumed in Redis for one path and in Postgres for another, it would work twice."""
    await threads.run(lambda: Site.objects.update(accepts_legacy_signature=True))
    request = presented(signed_legacy(bakery, BODY))

    authenticated = await authenticate_async(request, threads)

    assert (authenticated.identity.auth_method, authenticated.nonce) == (AuthMethod.LEGACY_SIGNATURE, None)
    with pytest.raises(ReplayedRequest):
        await threads.run(authenticate, request)


@with_rows
async def test_a_narrow_token_carries_its_restrictions(pages: NewSite, threads: CountingThreads) -> None:
    one = (await authenticate_async(narrow(pages, TokenScope.CHAT_WRITE), threads)).identity
    other = (await authenticate_async(narrow(pages, TokenScope.CHAT_WRITE), threads)).identity

    assert (one.scopes, one.origin) == (frozenset({"chat:write"}), PAGE)
    assert one.credential_id == pages.api_key.credential.public_id
    assert one.token_id != other.token_id
    check_origin(one, PAGE)
    for origin in (SHOP, OTHER, "null", None):
        with pytest.raises(OriginNotAllowed):
            check_origin(one, origin)


@with_rows
@pytest.mark.parametrize("end", ["revoked", "switched off"])
async def test_tickets_and_tokens_are_invalid_without_their_credential_and_site(
    pages: NewSite, threads: CountingThreads, end: str
) -> None:
    request, shown = narrow(pages, TokenScope.CHAT_WRITE), presented(bearer(ticket_text(pages)))
    await authenticate_async(request, threads)
    await authenticate_reader(shown, ReadableKind.STREAM, "stm_1", origin=PAGE, threads=threads)

    if end == "revoked":
        await threads.run(revoke, pages.api_key.credential)
    else:
        await threads.run(lambda: Site.objects.update(is_active=False))
        # As time does: nothing that is remembered counts for as long as a second.
        cached_lookups.clear_caches()

    with pytest.raises(InvalidCredentials):
        await authenticate_async(request, threads)
    with pytest.raises(InvalidCredentials):
        await authenticate_reader(shown, ReadableKind.STREAM, "stm_1", origin=PAGE, threads=threads)


# Readers


@with_rows
async def test_a_ticket_reads_one_object_from_one_origin_any_number_of_times(
    pages: NewSite, threads: CountingThreads
) -> None:
    request = presented(bearer(ticket_text(pages)))
    hostile: list[tuple[ReadableKind, str, str | None, type[TenantError]]] = [
        (ReadableKind.STREAM, "stm_2", PAGE, MalformedCredentials),
        (ReadableKind.JOB, "stm_1", PAGE, MalformedCredentials),
        (ReadableKind.STREAM, "stm_1", SHOP, OriginNotAllowed),
        (ReadableKind.STREAM, "stm_1", OTHER, OriginNotAllowed),
        (ReadableKind.STREAM, "stm_1", "null", OriginNotAllowed),
        (ReadableKind.STREAM, "stm_1", None, OriginNotAllowed),
    ]

    for _ in range(2):
        reader = await authenticate_reader(request, ReadableKind.STREAM, "stm_1", origin=PAGE, threads=threads)
        assert (reader.site, reader.origin, reader.authenticated) == (pages.site, PAGE, None)
    for what, public_id, origin, error in hostile:
        with pytest.raises(error):
            await authenticate_reader(request, what, public_id, origin=origin, threads=threads)
    both = presented({**bearer(ticket_text(pages)), "X-Api-Key": pages.api_key.secret})
    with pytest.raises(ConflictingCredentials):
        await authenticate_reader(both, ReadableKind.STREAM, "stm_1", origin=PAGE, threads=threads)


@with_rows
async def test_an_origin_that_the_site_removed_can_no_longer_read(pages: NewSite, threads: CountingThreads) -> None:
    text = ticket_text(pages)
    await threads.run(lambda: Site.objects.update(origins=[SHOP]))

    with pytest.raises(OriginNotAllowed):
        await authenticate_reader(presented(bearer(text)), ReadableKind.STREAM, "stm_1", origin=PAGE, threads=threads)


@with_rows
async def test_a_site_reads_its_own_objects_with_any_credential_that_has_the_scope(
    pages: NewSite, threads: CountingThreads
) -> None:
    for request in (key_of(pages), narrow(pages, TokenScope.STREAMS_READ)):
        reader = await authenticate_reader(request, ReadableKind.STREAM, "stm_1", origin=None, threads=threads)
        assert reader.site == pages.site
        assert reader.authenticated is not None
    for what, scope in ((ReadableKind.STREAM, TokenScope.CHAT_WRITE), (ReadableKind.JOB, TokenScope.STREAMS_READ)):
        with pytest.raises(InsufficientScope):
            await authenticate_reader(narrow(pages, scope), what, "stm_1", origin=PAGE, threads=threads)


# Preflights


@with_rows
async def test_pages_of_active_sites_are_known(pages: NewSite, threads: CountingThreads) -> None:
    hostile = ("https://evil.test", "null", "", "*", "https://a\x00b", "https://" + "a" * 5000)

    assert [await is_site_origin(origin, threads) for origin in (PAGE, f"{SHOP}:443", *hostile)] == [
        True,
        True,
        *[False] * len(hostile),
    ]
