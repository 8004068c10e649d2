"""No foreign exception escapes, and each means what is known of the request at that time."""

import asyncio
from collections.abc import Iterator

import aiohttp
import httpx
import pytest
from aiohttp import http_exceptions

from core.http import ProviderClient
from providers.adapters import OpenAI
from providers.errors import Ambiguous, BadResponse, Interrupted, ProviderError, TimedOut, Transient
from providers.exchange import FOREIGN_ERRORS, to_provider_error
from providers.types import CallContext, ChatRequest, Message, Role, TextPart

REQUEST = ChatRequest("m", (Message(Role.USER, (TextPart("Hello"),)),))


def all_below(kind: type[BaseException]) -> Iterator[type[BaseException]]:
    for inner in kind.__subclasses__():
        yield inner
        yield from all_below(inner)


HTTPX_ERRORS = sorted(
    {
        value
        for value in vars(httpx).values()
        if isinstance(value, type) and issubclass(value, Exception) and value.__module__.startswith("httpx")
    },
    key=repr,
)
AIOHTTP_ERRORS = sorted(
    {kind for kind in (aiohttp.ClientError, *all_below(aiohttp.ClientError)) if kind.__module__.startswith("aiohttp")},
    key=repr,
)


def made(kind: type[BaseException]) -> Exception:
    """Return an exception of a kind, whatever its signature."""
    error = kind.__new__(kind, "boom")
    error.args = ("boom",)
    assert isinstance(error, Exception)
    return error


def test_all_of_httpx_s_exceptions_are_found() -> None:
    assert {httpx.ReadTimeout, httpx.CookieConflict, httpx.InvalidURL, httpx.StreamClosed} <= set(HTTPX_ERRORS)
    assert len(HTTPX_ERRORS) >= 25


@pytest.mark.parametrize("kind", [*HTTPX_ERRORS, *AIOHTTP_ERRORS], ids=lambda kind: kind.__name__)
async def test_no_foreign_exception_escapes(kind: type[Exception], call: CallContext) -> None:
    def fails(request: httpx.Request) -> httpx.Response:
        raise made(kind)

    provider = OpenAI(api_key="k", http=ProviderClient(httpx.MockTransport(fails)))

    with pytest.raises(ProviderError) as caught:
        await provider.complete(REQUEST, call)
    await provider.close()

    # Nothing is known of a foreign transport, so it may have been sent.
    assert caught.value.maybe_billed


@pytest.mark.parametrize(
    "kind",
    [
        OSError,
        ConnectionResetError,
        TimeoutError,
        asyncio.TimeoutError,
        http_exceptions.BadStatusLine,
        http_exceptions.TransferEncodingError,
    ],
)
def test_what_comes_from_below_them_is_foreign_too(kind: type[Exception]) -> None:
    assert issubclass(kind, FOREIGN_ERRORS)


def test_what_was_not_sent_can_be_sent_again() -> None:
    assert type(to_provider_error(made(httpx.ReadTimeout), sent=False, answered=False)) is Transient


def test_what_was_answered_in_part_was_interrupted() -> None:
    assert type(to_provider_error(made(httpx.ReadTimeout), sent=True, answered=True)) is Interrupted


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (made(httpx.ReadTimeout), TimedOut),
        (TimeoutError(), TimedOut),
        (aiohttp.SocketTimeoutError(), TimedOut),
        (made(httpx.ReadError), Ambiguous),
        (ConnectionResetError(), Ambiguous),
        (aiohttp.ServerDisconnectedError(), Ambiguous),
        (made(httpx.RemoteProtocolError), BadResponse),
        (made(httpx.DecodingError), BadResponse),
        (made(aiohttp.ClientResponseError), BadResponse),
    ],
)
def test_what_was_sent_and_not_answered_means(error: Exception, kind: type[ProviderError]) -> None:
    assert type(to_provider_error(error, sent=True, answered=False)) is kind


def test_aiohttp_s_own_error_decides_over_the_name_it_was_given() -> None:
    # httpx-aiohttp says ConnectTimeout for a server that closed the connection after it had read the request.
    named = httpx.ConnectTimeout("x")
    named.__cause__ = aiohttp.ServerDisconnectedError()

    error = to_provider_error(named, sent=True, answered=False)

    assert type(error) is Ambiguous
    assert "ServerDisconnectedError" in error.message
