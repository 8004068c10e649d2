"""No foreign exception escapes, and each means what is known of the request at that time."""

import asyncio
from collections.abc import Iterator, Mapping

import aiohttp
import pytest
from aiohttp import http_exceptions

from core.http import ProviderClient, Response
from providers.adapters import OpenAI
from providers.errors import Ambiguous, BadResponse, Interrupted, ProviderError, TimedOut, Transient
from providers.exchange import FOREIGN_ERRORS, to_provider_error
from providers.types import CallContext, ChatRequest, Message, Role, TextPart

REQUEST = ChatRequest("m", (Message(Role.USER, (TextPart("Hello"),)),))


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

    async def send(self, url: str, headers: Mapping[str, str], body: bytes, *, connect_seconds: float) -> Response:
        raise self._error


def test_all_of_aiohttp_s_exceptions_are_found() -> None:
    assert {aiohttp.ServerTimeoutError, aiohttp.ClientPayloadError, aiohttp.InvalidURL} <= set(AIOHTTP_ERRORS)
    assert len(AIOHTTP_ERRORS) >= 20


@pytest.mark.parametrize("kind", AIOHTTP_ERRORS, ids=lambda kind: kind.__name__)
async def test_no_foreign_exception_escapes(kind: type[Exception], call: CallContext) -> None:
    provider = OpenAI(api_key="k", http=Failing(made(kind)))

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
    assert issubclass(kind, FOREIGN_ERRORS)


def test_what_was_not_sent_can_be_sent_again() -> None:
    assert type(to_provider_error(made(aiohttp.ServerTimeoutError), sent=False, answered=False)) is Transient


def test_what_was_answered_in_part_was_interrupted() -> None:
    assert type(to_provider_error(made(aiohttp.ServerTimeoutError), sent=True, answered=True)) is Interrupted


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (made(aiohttp.ServerTimeoutError), TimedOut),
        (TimeoutError(), TimedOut),
        (aiohttp.SocketTimeoutError(), TimedOut),
        (made(aiohttp.ClientPayloadError), Ambiguous),
        (ConnectionResetError(), Ambiguous),
        (aiohttp.ServerDisconnectedError(), Ambiguous),
        (http_exceptions.BadStatusLine("x"), BadResponse),
        (made(aiohttp.ClientResponseError), BadResponse),
    ],
)
def test_what_was_sent_and_not_answered_means(error: Exception, kind: type[ProviderError]) -> None:
    assert type(to_provider_error(error, sent=True, answered=False)) is kind
