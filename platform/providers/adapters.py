"""Provider adapters: one endpoint with one key, in its dialect, through one HTTP client each."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import replace
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

import msgspec
from msgspec import Raw

from core.provider_http import ProviderClient
from providers.catalogue import ModelInfo, find_model
from providers.dialects import anthropic_upstream, anthropic_upstream_errors, openai_upstream, openai_upstream_errors
from providers.dialects.openai_upstream import COMPATIBLE_FLAVOR, OPENAI_FLAVOR, OpenAIFlavor
from providers.dialects.upstream_errors import REDACTED
from providers.errors import (
    AmbiguousOutcome,
    BadResponse,
    ProviderError,
    ProviderOverloaded,
    ProviderRateLimited,
    RequestRejected,
    ResponseInterrupted,
    TransientFailure,
    UnsupportedFeature,
)
from providers.exchange import ErrorMapper, UpstreamRequest, UpstreamResponse, exchange
from providers.sse import Frame, FrameTooLong, SSEDecoder
from providers.tiers import Tier
from providers.types import (
    AnswerFinished,
    Burst,
    CallContext,
    ChatRequest,
    Completion,
    Dialect,
    EmbeddingRequest,
    Embeddings,
    InferenceRequest,
    JSONObject,
    Provider,
    StreamEvent,
    TextPart,
    Usage,
)

OPENAI_URL = "https://api.openai.com/v1"
ANTHROPIC_URL = "https://api.anthropic.com"

#: The fields of a body that hold the prompt, which must not appear in errors; and the names in them that may appear.
PROMPT_FIELDS = {"messages", "system", "prediction"}
NON_PROMPT_FIELDS = {"type", "role", "name", "id", "tool_call_id", "tool_use_id", "media_type"}

#: An error message that repeats this many consecutive characters of the prompt quotes it.
MIN_QUOTE_CHARACTERS = 16


class StreamDecoder(Protocol):
    """Decodes a dialect's frames to events, and detects the proper end of the stream."""

    finished: AnswerFinished | None
    tier: Tier | None

    @property
    def usage(self) -> Usage | None: ...

    def decode(self, frame: Frame) -> list[StreamEvent]: ...

    def decode_trailing(self, frame: Frame) -> None: ...


class OpenAIProvider:
    """OpenAI, or any server that uses its dialect at `base_url`.

    `vendor` selects the models of the catalogue; None for servers whose models it does not know.
    """

    def __init__(
        self,
        name: str = "openai",
        *,
        api_key: str,
        base_url: str = OPENAI_URL,
        vendor: str | None = None,
        flavor: OpenAIFlavor | None = None,
        http: ProviderClient | None = None,
    ) -> None:
        self.name = name
        self._base_url = _validated_url(base_url)
        self._api_key = _validated_key(api_key)
        self._vendor = vendor or ("openai" if self._base_url == OPENAI_URL else None)
        self._flavor = flavor or (OPENAI_FLAVOR if self._vendor == "openai" else COMPATIBLE_FLAVOR)
        self._http = http or ProviderClient()

    async def stream(self, request: ChatRequest, call: CallContext) -> AsyncGenerator[Burst, None]:
        with _redacted_errors(self._api_key, request):
            payload = openai_upstream.to_payload(
                request, stream=True, flavor=self._flavor, model=self._model(request.model)
            )
            upstream_request = self._request("chat/completions", request.model, payload, call)
            stream_decoder = openai_upstream.OpenAIStreamDecoder(request.choice_count)
            bursts = _stream(self._http, upstream_request, call, openai_upstream_errors.to_error, stream_decoder)
            async with aclosing(bursts):
                async for burst in bursts:
                    yield burst

    async def complete(self, request: ChatRequest, call: CallContext) -> Completion:
        with _redacted_errors(self._api_key, request):
            payload = openai_upstream.to_payload(request, flavor=self._flavor, model=self._model(request.model))
            upstream_request = self._request("chat/completions", request.model, payload, call)
            return openai_upstream.to_completion(
                await _fetch_body(self._http, upstream_request, call, openai_upstream_errors.to_error)
            )

    async def embed(self, request: EmbeddingRequest, call: CallContext) -> Embeddings:
        with _redacted_errors(self._api_key, request):
            payload = openai_upstream.to_embedding_payload(request)
            upstream_request = self._request("embeddings", request.model, payload, call)
            body = await _fetch_body(self._http, upstream_request, call, openai_upstream_errors.to_error)
            return openai_upstream.to_embeddings(body, len(request.inputs))

    async def close(self) -> None:
        await self._http.aclose()

    def _request(self, path: str, model: str, payload: JSONObject, call: CallContext) -> UpstreamRequest:
        return _build_request(self._url(path, model), self._headers(), payload, call)

    def _url(self, path: str, model: str) -> str:
        return f"{self._base_url}/{path}"

    def _headers(self) -> dict[str, str]:
        # Self-hosted servers often need no key.
        return {"authorization": f"Bearer {self._api_key}"} if self._api_key else {}

    def _model(self, name: str) -> ModelInfo | None:
        return find_model(self._vendor, name) if self._vendor else None


class AzureOpenAIProvider(OpenAIProvider):
    """Azure OpenAI at `https://{resource}.openai.azure.com`. The model's name is the name of the deployment.

    Without `api_version` it uses the v1 API, otherwise the dated API (such as `2024-10-21`).
    """

    def __init__(
        self,
        name: str = "azure",
        *,
        api_key: str,
        base_url: str,
        api_version: str | None = None,
        http: ProviderClient | None = None,
    ) -> None:
        # In the dated APIs only reasoning models accept `max_completion_tokens`.
        flavor = COMPATIBLE_FLAVOR if api_version else OPENAI_FLAVOR
        base_url = base_url.rstrip("/").removesuffix("/v1").removesuffix("/openai")
        super().__init__(name, api_key=api_key, base_url=base_url, vendor="azure", flavor=flavor, http=http)
        self._api_version = api_version

    def _url(self, path: str, model: str) -> str:
        if self._api_version is None:
            return f"{self._base_url}/openai/v1/{path}"
        deployment = f"{self._base_url}/openai/deployments/{quote(model, safe='')}"
        return f"{deployment}/{path}?api-version={quote(self._api_version)}"

    def _headers(self) -> dict[str, str]:
        return {"api-key": self._api_key}


class AnthropicProvider:
    """Anthropic, or any server that uses its dialect at `base_url`."""

    def __init__(
        self,
        name: str = "anthropic",
        *,
        api_key: str,
        base_url: str = ANTHROPIC_URL,
        http: ProviderClient | None = None,
    ) -> None:
        self.name = name
        self._base_url = _validated_url(base_url).removesuffix("/v1")
        self._api_key = _validated_key(api_key)
        self._http = http or ProviderClient()

    async def stream(self, request: ChatRequest, call: CallContext) -> AsyncGenerator[Burst, None]:
        with _redacted_errors(self._api_key, request):
            upstream_request = self._request(request, call, stream=True)
            bursts = _stream(
                self._http,
                upstream_request,
                call,
                anthropic_upstream_errors.to_error,
                anthropic_upstream.AnthropicStreamDecoder(),
            )
            async with aclosing(bursts):
                async for burst in bursts:
                    yield burst

    async def complete(self, request: ChatRequest, call: CallContext) -> Completion:
        with _redacted_errors(self._api_key, request):
            upstream_request = self._request(request, call, stream=False)
            return anthropic_upstream.to_completion(
                await _fetch_body(self._http, upstream_request, call, anthropic_upstream_errors.to_error)
            )

    async def embed(self, request: EmbeddingRequest, call: CallContext) -> Embeddings:
        raise UnsupportedFeature("This provider has no embeddings.")

    async def close(self) -> None:
        await self._http.aclose()

    def _request(self, request: ChatRequest, call: CallContext, *, stream: bool) -> UpstreamRequest:
        model = find_model("anthropic", request.model)
        payload = anthropic_upstream.to_payload(request, stream=stream, model=model)
        forwarded = request.original.headers if request.original is not None else {}
        headers = {"anthropic-version": anthropic_upstream.API_VERSION, **forwarded, "x-api-key": self._api_key}
        return _build_request(f"{self._base_url}/v1/messages", headers, payload, call)


def create_provider(
    dialect: Dialect,
    name: str,
    *,
    api_key: str,
    base_url: str | None = None,
    vendor: str | None = None,
    api_version: str | None = None,
    flavor: OpenAIFlavor | None = None,
    http: ProviderClient | None = None,
) -> Provider:
    """Return the provider of a dialect. Raises ValueError if the address or the key is invalid.

    It belongs to the event loop that first uses it, and must be closed there.
    """
    match dialect:
        case Dialect.OPENAI:
            return OpenAIProvider(
                name, api_key=api_key, base_url=base_url or OPENAI_URL, vendor=vendor, flavor=flavor, http=http
            )
        case Dialect.ANTHROPIC:
            return AnthropicProvider(name, api_key=api_key, base_url=base_url or ANTHROPIC_URL, http=http)
        case Dialect.AZURE:
            if base_url is None:
                raise ValueError("Azure OpenAI needs a base URL: the address of its resource.")
            return AzureOpenAIProvider(name, api_key=api_key, base_url=base_url, api_version=api_version, http=http)


async def _stream(
    http: ProviderClient,
    request: UpstreamRequest,
    call: CallContext,
    to_error: ErrorMapper,
    stream_decoder: StreamDecoder,
) -> AsyncGenerator[Burst, None]:
    """Yield a stream's events; the last is AnswerFinished, or this raises."""
    async with exchange(http, request, call, to_error) as response:
        sse_decoder = SSEDecoder()
        async with aclosing(response.chunks()) as chunks:
            async for chunk in chunks:
                burst, error = _decode_chunk(chunk, sse_decoder, stream_decoder, response)
                if stream_decoder.finished is not None:
                    break
                if burst.frames:
                    yield burst
                if error is not None:
                    raise error
            else:
                burst = Burst(())
        if stream_decoder.finished is None and (last := sse_decoder.close()) is not None:
            stream_decoder.decode_trailing(last)
            burst = Burst((), (last,))
        if stream_decoder.finished is None:
            raise _premature_end_error(response)
        # Before the last event, not after it: a caller rarely iterates beyond that one.
        await response.drain()
        yield Burst((*burst.events, stream_decoder.finished), burst.frames, stream_decoder.usage, stream_decoder.tier)


def _decode_chunk(
    chunk: bytes, sse_decoder: SSEDecoder, stream_decoder: StreamDecoder, response: UpstreamResponse
) -> tuple[Burst, ProviderError | None]:
    """Return the events that a chunk completes, and the error that follows them, if any."""
    events: list[StreamEvent] = []
    frames: list[Frame] = []
    error: ProviderError | None = None
    try:
        for frame in sse_decoder.feed(chunk):
            events += stream_decoder.decode(frame)
            frames.append(frame)
            if stream_decoder.finished is not None:
                break
    except FrameTooLong as too_long:
        error = BadResponse(f"The provider's stream could not be read: {too_long}")
    except ProviderError as reported:
        error = reported
    response.response_started = response.response_started or bool(events)
    if response.response_started and isinstance(error, ProviderOverloaded | ProviderRateLimited | TransientFailure):
        # An error frame. After part of the answer was passed on, failover is no longer invisible.
        error = ResponseInterrupted(error.message, code=error.code)
    return Burst(events, frames, stream_decoder.usage, stream_decoder.tier), error


def _premature_end_error(response: UpstreamResponse) -> ProviderError:
    if response.response_started:
        return ResponseInterrupted("The provider's stream ended in the middle of the answer.")
    if "text/event-stream" not in response.content_type:
        return BadResponse(
            f"The provider sent {response.content_type[:80] or 'no content type'} instead of an event stream."
        )
    return AmbiguousOutcome("The provider's stream ended before the answer began.")


async def _fetch_body(
    http: ProviderClient, request: UpstreamRequest, call: CallContext, to_error: ErrorMapper
) -> bytes:
    async with exchange(http, request, call, to_error) as response:
        return await response.read()


def _build_request(url: str, headers: dict[str, str], payload: JSONObject, call: CallContext) -> UpstreamRequest:
    try:
        body = msgspec.json.encode(payload)
    except (UnicodeError, RecursionError) as error:
        raise RequestRejected(f"The request cannot be written as JSON: {error}") from error
    headers = {**headers, "content-type": "application/json", "x-client-request-id": call.call_id}
    return UpstreamRequest(url, headers, body)


@contextmanager
def _redacted_errors(api_key: str, request: InferenceRequest) -> Iterator[None]:
    """Remove the key and the prompt from errors: vendors quote both in their messages."""
    try:
        yield
    except ProviderError as error:
        message = error.message.replace(api_key, REDACTED) if api_key else error.message
        if _quotes_prompt(message, request):
            message = "The provider's message quotes the request, so it is not shown."
        if message == error.message:
            raise
        raise replace(error, message=message) from None


def _quotes_prompt(message: str, request: InferenceRequest) -> bool:
    # Aligned windows: every quote of twice this length contains one, and the search stays fast for megabytes of prompt.
    windows = [
        message[i : i + MIN_QUOTE_CHARACTERS]
        for i in range(0, len(message) - MIN_QUOTE_CHARACTERS + 1, MIN_QUOTE_CHARACTERS)
    ]
    return any(
        window in text for text in _prompt_texts(request) if len(text) >= MIN_QUOTE_CHARACTERS for window in windows
    ) or any(
        text in message
        for text in _prompt_texts(request)
        if MIN_QUOTE_CHARACTERS // 2 <= len(text) < MIN_QUOTE_CHARACTERS
    )


def _prompt_texts(request: InferenceRequest) -> Iterator[str]:
    if isinstance(request, EmbeddingRequest):
        yield from (text for text in request.inputs if isinstance(text, str))
        return
    for message in request.messages:
        yield from (part.text for part in message.parts if isinstance(part, TextPart))
        yield from (call.arguments for call in message.tool_calls)
    if request.original is not None:
        for name in PROMPT_FIELDS & request.original.fields.keys():
            yield from _strings_in(request.original.fields[name])


def _strings_in(field: Raw) -> Iterator[str]:
    """Yield every string value anywhere in a field of a body, but no names."""
    pending: list[Any] = []
    # No vendor quotes what is nested too deeply to be decoded here.
    with suppress(RecursionError):
        pending.append(msgspec.json.decode(field))
    while pending:
        match pending.pop():
            case str(text):
                yield text
            case list(values):
                pending += values
            case dict(values):
                pending += [value for name, value in values.items() if name not in NON_PROMPT_FIELDS]


def _validated_url(base_url: str) -> str:
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("A provider's address must begin with http:// or https:// and a host.")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("A provider's address must not contain a user, a password, a query or a fragment.")
    return base_url.rstrip("/")


def _validated_key(api_key: str) -> str:
    if not (api_key.isascii() and api_key.isprintable()) or " " in api_key:
        raise ValueError("A provider's key must be printable ASCII without spaces. Check for white space around it.")
    return api_key
