"""No transport exception escapes, and each maps to the error for the state of the request."""

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
    """Return an exception of a class, whatever its signature."""
    error = kind.__new__(kind, "boom")
    error.args = ("boom",)
    assert isinstance(error, Exception)
    return error


class Failing(ProviderClient):
    """A client whose every exchange fails at an unknown stage."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    async def send(
        self, url: str, headers: Mapping[str, str], body: bytes, *, connect_seconds: float
    ) -> ProviderResponse:
        raise self._error


def test_the_test_lists_all_exceptions_of_aiohttp() -> None:
    assert {aiohttp.ServerTimeoutError, aiohttp.ClientPayloadError, aiohttp.InvalidURL} <= set(AIOHTTP_ERRORS)
    assert len(AIOHTTP_ERRORS) >= 20


@pytest.mark.parametrize("kind", AIOHTTP_ERRORS, ids=lambda kind: kind.__name__)
async def test_no_foreign_exception_escapes(kind: type[Exception], call: CallContext) -> None:
    provider = OpenAIProvider(api_key="k", http=Failing(made(kind)))

    with pytest.raises(ProviderError) as caught:
        await provider.complete(REQUEST, call)
    await provider.close()

    # The stage is unknown, so the request may have been sent.
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
def test_exceptions_of_the_socket_and_parser_are_transport_errors(kind: type[Exception]) -> None:
    assert issubclass(kind, TRANSPORT_ERRORS)


def test_a_request_that_was_not_sent_is_a_transient_failure() -> None:
    assert (
        type(map_transport_error(made(aiohttp.ServerTimeoutError), request_sent=False, response_started=False))
        is TransientFailure
    )


def test_a_partial_response_is_an_interruption() -> None:
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
def test_a_request_without_a_response_maps_by_exception(error: Exception, kind: type[ProviderError]) -> None:
    assert type(map_transport_error(error, request_sent=True, response_started=False)) is kind
