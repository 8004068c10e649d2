"""No foreign exception escapes, and each means what is known of the request at that time."""

import asyncio
from collections.abc import Iterator, Mapping

import aiohttp
import pytest
from aiohttp import http_exceptions

from core.provider_http import ProviderClient, ProviderResponse
from providers.adapters import OpenAIProvider
from providers.errors import (
    AmbiguousOutcome,
    BadResponse,
    ProviderError,
    ProviderTimeout,
    ResponseInterrupted,
    TransientFailure,
)
from providers.exchange import TRANSPORT_ERRORS, map_transport_error
from providers.types import CallContext, ChatMessage, ChatRequest, Role, TextPart

REQUEST = ChatRequest("m", (ChatMessage(Role.USER, (TextPart("Hello"),)),))


def all_below(kind: type[BaseException]) -> Iterator[type[BaseException]]:
    for inner in kind.__subclasses__():
        yield inner
        yield from all_below(inner)


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


class Failing(ProviderClient):
    """A client whose every exchange ends in an error, nobody knows how far it came."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    async def send(
        self, url: str, headers: Mapping[str, str], body: bytes, *, connect_seconds: float
    ) -> ProviderResponse:
        raise self._error


def test_all_of_aiohttp_s_exceptions_are_found() -> None:
    assert {aiohttp.ServerTimeoutError, aiohttp.ClientPayloadError, aiohttp.InvalidURL} <= set(AIOHTTP_ERRORS)
    assert len(AIOHTTP_ERRORS) >= 20


@pytest.mark.parametrize("kind", AIOHTTP_ERRORS, ids=lambda kind: kind.__name__)
async def test_no_foreign_exception_escapes(kind: type[Exception], call: CallContext) -> None:
    provider = OpenAIProvider(api_key="k", http=Failing(made(kind)))

    with pytest.raises(ProviderError) as caught:
        await provider.complete(REQUEST, call)
    await provider.close()

    # Nothing is known of how far it came, so it may have been sent.
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
    assert issubclass(kind, TRANSPORT_ERRORS)


def test_what_was_not_sent_can_be_sent_again() -> None:
    assert (
        type(map_transport_error(made(aiohttp.ServerTimeoutError), request_sent=False, response_started=False))
        is TransientFailure
    )


def test_what_was_answered_in_part_was_interrupted() -> None:
    assert (
        type(map_transport_error(made(aiohttp.ServerTimeoutError), request_sent=True, response_started=True))
        is ResponseInterrupted
    )


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (made(aiohttp.ServerTimeoutError), ProviderTimeout),
        (TimeoutError(), ProviderTimeout),
        (aiohttp.SocketTimeoutError(), ProviderTimeout),
        (made(aiohttp.ClientPayloadError), AmbiguousOutcome),
        (ConnectionResetError(), AmbiguousOutcome),
        (aiohttp.ServerDisconnectedError(), AmbiguousOutcome),
        (http_exceptions.BadStatusLine("x"), BadResponse),
        (made(aiohttp.ClientResponseError), BadResponse),
    ],
)
def test_what_was_sent_and_not_answered_means(error: Exception, kind: type[ProviderError]) -> None:
    assert type(map_transport_error(error, request_sent=True, response_started=False)) is kind
