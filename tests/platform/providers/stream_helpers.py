"""Helpers that read a stream to its end or its error."""

from providers.errors import ProviderError
from providers.types import CallContext, ChatRequest, Provider, StreamEvent


async def events_of(provider: Provider, request: ChatRequest, call: CallContext) -> list[StreamEvent]:
    return [event async for burst in provider.stream(request, call) for event in burst.events]


async def error_of(
    provider: Provider, request: ChatRequest, call: CallContext
) -> tuple[list[StreamEvent], ProviderError]:
    """Return the events before a stream's error, and the error."""
    events: list[StreamEvent] = []
    try:
        async for burst in provider.stream(request, call):
            events += burst.events
    except ProviderError as error:
        return events, error
    raise AssertionError("The stream ended without an error.")
