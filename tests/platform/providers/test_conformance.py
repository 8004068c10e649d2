"""Conformance suite: what every adapter must do, whichever its vendor."""

import asyncio
import gc
from contextlib import aclosing
from dataclasses import replace

import pytest

from providers.errors import (
    AmbiguousOutcome,
    BadResponse,
    ModelNotFound,
    ProviderError,
    ProviderKeyRejected,
    ProviderOverloaded,
    ProviderRateLimited,
    ProviderTimeout,
    RequestRejected,
    ResponseInterrupted,
    TransientFailure,
    UnsupportedFeature,
)
from providers.types import (
    AnswerFinished,
    AnswerStarted,
    CallContext,
    EmbeddingRequest,
    FinishReason,
    OutputFormat,
    Provider,
    TextDelta,
    Tool,
    ToolCallDelta,
    ToolCallStarted,
)
from tests.platform.providers.stream_helpers import error_of, events_of
from tests.platform.providers.upstream import (
    Act,
    Upstream,
    Wire,
    answers,
    begin_stream,
    falls_silent,
    sends,
    streams,
    streams_then,
)
from tests.platform.providers.vendors import KEY, TEXT, VENDORS, Vendor, frames, recorded

TOOLS = (Tool("get_weather", "The weather", {"type": "object", "properties": {"city": {"type": "string"}}}),)
SCHEMA = {"type": "object", "properties": {"mood": {"type": "string"}}, "required": ["mood"]}


# Requests


async def test_it_calls_the_right_url_with_its_key_and_our_call_id(
    provider: Provider, vendor: Vendor, upstream: Upstream, call: CallContext
) -> None:
    upstream.plays(answers(recorded(vendor.text_body)))

    await provider.complete(vendor.request(), call)

    [seen] = upstream.seen
    assert seen.path.partition("?")[0] == vendor.path
    assert seen.headers[vendor.auth[0]] == vendor.auth[1]
    assert seen.headers["x-client-request-id"] == "call_01"
    assert seen.headers["accept-encoding"] == "identity"
    assert seen.headers["user-agent"] == "nightdesk"
    assert seen.body["messages"] == [{"role": "user", "content": "How is the weather?"}]


async def test_it_keeps_no_cookies(vendor: Vendor, upstream: Upstream, call: CallContext) -> None:
    upstream.plays(answers(recorded(vendor.text_body), set_cookie="tracked=1; Path=/"))
    # A host name: most cookie jars ignore cookies of bare IP addresses anyway.
    provider = vendor.connect(upstream.url.replace("127.0.0.1", "localhost"))

    await provider.complete(vendor.request(), call)
    await provider.complete(vendor.request(), call)
    await provider.close()

    assert "cookie" not in upstream.seen[1].headers


async def test_it_ignores_the_proxies_of_the_environment(
    provider: Provider, vendor: Vendor, upstream: Upstream, call: CallContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    upstream.plays(answers(recorded(vendor.text_body)))

    assert (await provider.complete(vendor.request(), call)).text == TEXT


async def test_structured_output_reaches_the_wire(
    provider: Provider, vendor: Vendor, upstream: Upstream, call: CallContext
) -> None:
    upstream.plays(answers(recorded(vendor.text_body)))
    request = replace(vendor.request(), output_format=OutputFormat("json_schema", "mood", schema=SCHEMA, strict=True))

    await provider.complete(request, call)

    assert SCHEMA in _values(upstream.seen[0].body)


# Answers


async def test_it_streams_text_then_usage(
    provider: Provider, vendor: Vendor, upstream: Upstream, call: CallContext
) -> None:
    upstream.plays(streams(*frames(vendor.text_stream)))

    events = await events_of(provider, vendor.request(), call)

    assert isinstance(events[0], AnswerStarted)
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == TEXT
    assert events[-1] == AnswerFinished(FinishReason.STOP, vendor.usage)


async def test_it_streams_however_the_bytes_are_split(
    provider: Provider, vendor: Vendor, upstream: Upstream, call: CallContext
) -> None:
    stream = recorded(vendor.text_stream)
    upstream.plays(streams(*(stream[i : i + 7] for i in range(0, len(stream), 7))))

    events = await events_of(provider, vendor.request(), call)

    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == TEXT
    assert events[-1] == AnswerFinished(FinishReason.STOP, vendor.usage)


async def test_it_streams_tool_calls_counted_from_zero(
    provider: Provider, vendor: Vendor, upstream: Upstream, call: CallContext
) -> None:
    upstream.plays(streams(*frames(vendor.tools_stream)))
    request = replace(vendor.request(), tools=TOOLS)

    events = await events_of(provider, request, call)

    started = [event for event in events if isinstance(event, ToolCallStarted)]
    assert [(event.index, event.id, event.name) for event in started] == [
        (index, expected.id, expected.name) for index, expected in enumerate(vendor.calls)
    ]
    for index, expected in enumerate(vendor.calls):
        deltas = (event for event in events if isinstance(event, ToolCallDelta) and event.index == index)
        assert "".join(delta.arguments for delta in deltas) == expected.arguments
    assert isinstance(events[-1], AnswerFinished)
    assert events[-1].reason is FinishReason.TOOL_CALLS


async def test_it_completes_a_non_streaming_answer(
    provider: Provider, vendor: Vendor, upstream: Upstream, call: CallContext
) -> None:
    upstream.plays(answers(recorded(vendor.text_body)))

    completion = await provider.complete(vendor.request(), call)

    assert completion == vendor.completion()
    assert completion.body == recorded(vendor.text_body)


async def test_it_completes_with_tool_calls(
    provider: Provider, vendor: Vendor, upstream: Upstream, call: CallContext
) -> None:
    upstream.plays(answers(recorded(vendor.tools_body)))

    completion = await provider.complete(replace(vendor.request(), tools=TOOLS), call)

    assert completion.tool_calls == vendor.calls
    assert completion.finish_reason is FinishReason.TOOL_CALLS


@pytest.mark.parametrize("name", ["openai/embeddings.json", "openai/embeddings_base64.json"])
async def test_it_embeds_or_raises_unsupported_feature(
    provider: Provider, vendor: Vendor, upstream: Upstream, call: CallContext, name: str
) -> None:
    upstream.plays(answers(recorded(name)))
    request = EmbeddingRequest("text-embedding-3-small", ("one", "two"))

    if vendor.embeddings_path is None:
        with pytest.raises(UnsupportedFeature):
            await provider.embed(request, call)
        return
    embeddings = await provider.embed(request, call)

    assert embeddings.vectors == ((0.5, -0.25, 1.0), (0.0, 2.0, -1.5))
    assert embeddings.usage is not None
    assert embeddings.usage.input_tokens == 8
    assert embeddings.body == recorded(name)
    assert upstream.seen[0].path.rpartition("/")[2].startswith("embeddings")


async def test_bytes_after_the_end_are_not_read(
    provider: Provider, vendor: Vendor, upstream: Upstream, call: CallContext
) -> None:
    upstream.plays(streams(recorded(vendor.text_stream) + b"data: {nonsense}\n\n"))

    events = await events_of(provider, vendor.request(), call)

    assert events[-1] == AnswerFinished(FinishReason.STOP, vendor.usage)


async def test_missing_usage_is_not_zero(
    provider: Provider, vendor: Vendor, upstream: Upstream, call: CallContext
) -> None:
    upstream.plays(streams(*(frame for frame in frames(vendor.text_stream) if b"prompt_tokens" not in frame)))
    if vendor.name == "anthropic":
        upstream.plays(streams(recorded(vendor.text_stream).replace(b'"usage":', b'"other":')))

    events = await events_of(provider, vendor.request(), call)

    assert events[-1] == AnswerFinished(FinishReason.STOP, None)


async def test_consecutive_streams_share_one_connection(
    provider: Provider, vendor: Vendor, upstream: Upstream, call: CallContext
) -> None:
    upstream.plays(streams(*frames(vendor.text_stream)))

    for _ in range(3):
        await events_of(provider, vendor.request(), call)

    assert upstream.connections == 1


# Errors


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RequestRejected),
        (401, ProviderKeyRejected),
        (402, ProviderKeyRejected),
        (403, ProviderKeyRejected),
        (404, ModelNotFound),
        (408, TransientFailure),
        (409, TransientFailure),
        (413, RequestRejected),
        (422, RequestRejected),
        (429, ProviderRateLimited),
        (500, TransientFailure),
        (502, TransientFailure),
        (503, ProviderOverloaded),
        (504, TransientFailure),
        (529, ProviderOverloaded),
        (302, BadResponse),
        (204, BadResponse),
    ],
)
async def test_a_status_without_a_message_maps_to_its_error_class(
    provider: Provider, vendor: Vendor, upstream: Upstream, call: CallContext, status: int, kind: type[ProviderError]
) -> None:
    upstream.plays(answers(b"", status))

    _, error = await error_of(provider, vendor.request(), call)

    assert type(error) is kind
    assert error.status == status


async def test_a_429_response_carries_retry_after(
    provider: Provider, vendor: Vendor, upstream: Upstream, call: CallContext
) -> None:
    upstream.plays(answers(vendor.rate_error, 429, retry_after="7"))

    _, error = await error_of(provider, vendor.request(), call)

    assert isinstance(error, ProviderRateLimited)
    assert error.retry_after_seconds == 7
    assert error.message == "Rate limit reached"


async def test_an_html_page_is_not_shown(
    provider: Provider, vendor: Vendor, upstream: Upstream, call: CallContext
) -> None:
    upstream.plays(answers(b"<html><body>Bad gateway</body></html>", 502, "text/html"))

    _, error = await error_of(provider, vendor.request(), call)

    assert isinstance(error, TransientFailure)
    assert "html" not in error.message


async def test_errors_contain_neither_key_nor_prompt(
    provider: Provider, vendor: Vendor, upstream: Upstream, call: CallContext
) -> None:
    secret = "the diagnosis of Mrs. Hansen is worse than we thought"
    upstream.plays(
        answers(b'{"error":{"type":"t","message":"Bad key %b"}}' % KEY.encode(), 401),
        answers(b'{"error":{"type":"t","message":"Cannot parse: %b"}}' % secret.encode(), 400),
    )

    _, key_error = await error_of(provider, vendor.request(), call)
    with pytest.raises(RequestRejected) as prompt_error:
        await provider.complete(vendor.request(secret), call)

    assert KEY not in repr(key_error) + repr(key_error.args)
    assert "Hansen" not in repr(prompt_error.value) + repr(prompt_error.value.args)


async def test_an_endless_error_body_is_truncated(
    provider: Provider, vendor: Vendor, upstream: Upstream, call: CallContext
) -> None:
    poured = 0

    async def pours(wire: Wire) -> None:
        nonlocal poured
        await wire.send(b"HTTP/1.1 500 Whatever\r\ncontent-type: text/plain\r\n\r\n")
        while True:
            await wire.send(b"x" * 65536)
            poured += 65536

    upstream.plays(pours)

    _, error = await error_of(provider, vendor.request(), call)

    assert isinstance(error, TransientFailure)
    # The socket buffers, and not much more.
    assert poured < 16 * 1024 * 1024


# Silence. A first call opens the connection, so that on a busy machine connecting does not exceed the timeout.


async def warm_up(provider: Provider, vendor: Vendor, upstream: Upstream, call: CallContext, *then: Act) -> None:
    upstream.plays(answers(recorded(vendor.text_body)), *then)
    await provider.complete(vendor.request(), call)


async def test_silence_before_the_first_byte_is_a_timeout(
    provider: Provider, vendor: Vendor, upstream: Upstream, call: CallContext
) -> None:
    await warm_up(provider, vendor, upstream, call, falls_silent)

    _, error = await error_of(provider, vendor.request(), replace(call, first_byte_seconds=0.2))

    assert isinstance(error, ProviderTimeout)
    await asyncio.wait_for(upstream.closed_by_client.wait(), 5)


async def test_headers_alone_are_still_silence(
    provider: Provider, vendor: Vendor, upstream: Upstream, call: CallContext
) -> None:
    await warm_up(provider, vendor, upstream, call, streams_then(falls_silent))

    _, error = await error_of(provider, vendor.request(), replace(call, first_byte_seconds=0.2))

    assert isinstance(error, ProviderTimeout)


async def test_silence_after_the_first_token_is_an_interruption(
    provider: Provider, vendor: Vendor, upstream: Upstream, call: CallContext
) -> None:
    upstream.plays(streams_then(falls_silent, *frames(vendor.text_stream)[:4]))

    async with asyncio.timeout(3):
        events, error = await error_of(provider, vendor.request(), replace(call, idle_seconds=0.3))

    assert any(isinstance(event, TextDelta) for event in events)
    assert isinstance(error, ResponseInterrupted)
    await asyncio.wait_for(upstream.closed_by_client.wait(), 5)


async def test_comments_without_an_answer_end_at_the_total_timeout(
    provider: Provider, vendor: Vendor, upstream: Upstream, call: CallContext
) -> None:
    async def keeps_alive(wire: Wire) -> None:
        await begin_stream(wire)
        while True:
            await wire.send(b"4\r\n:x\n\n\r\n")
            await asyncio.sleep(0.02)

    await warm_up(provider, vendor, upstream, call, keeps_alive)

    events, error = await error_of(provider, vendor.request(), replace(call, total_seconds=0.3))

    assert events == []
    assert isinstance(error, ProviderTimeout)


async def test_the_total_timeout_applies_to_complete_answers_too(
    provider: Provider, vendor: Vendor, upstream: Upstream, call: CallContext
) -> None:
    await warm_up(provider, vendor, upstream, call, falls_silent)

    with pytest.raises(ProviderTimeout):
        await provider.complete(vendor.request(), replace(call, total_seconds=0.2))


async def test_a_refused_connection_is_transient(vendor: Vendor, call: CallContext, unused_tcp_port: int) -> None:
    provider = vendor.connect(f"http://127.0.0.1:{unused_tcp_port}")

    _, error = await error_of(provider, vendor.request(), call)
    await provider.close()

    assert type(error) is TransientFailure


async def test_a_connection_that_is_never_made_is_transient(
    vendor: Vendor, upstream: Upstream, call: CallContext
) -> None:
    # A TLS handshake without an answer: the server waits for an HTTP request.
    provider = vendor.connect(upstream.url.replace("http:", "https:"))

    async with asyncio.timeout(3):
        _, error = await error_of(provider, vendor.request(), replace(call, connect_seconds=0.1))
    await provider.close()

    assert type(error) is TransientFailure


# Interruptions


@pytest.mark.parametrize("how", ["chunk missing", "end of connection", "reset"])
@pytest.mark.parametrize(
    ("vendor", "count"),
    [
        pytest.param(vendor, count, id=f"{vendor.name}-{count}")
        for vendor in (VENDORS[0], VENDORS[2], VENDORS[-1])
        for count in range(len(frames(vendor.text_stream)))
    ],
)
async def test_an_interruption_after_any_event_is_never_a_clean_end(
    vendor: Vendor, upstream: Upstream, call: CallContext, count: int, how: str
) -> None:
    pieces = frames(vendor.text_stream)[:count]
    cuts: dict[str, Act] = {
        "chunk missing": streams_then(Wire.hang_up, *pieces),
        "end of connection": sends(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + b"".join(pieces)),
        "reset": streams_then(Wire.reset, *pieces),
    }
    upstream.plays(cuts[how])
    provider = vendor.connect(upstream.url)

    events, error = await error_of(provider, vendor.request(), call)
    await provider.close()

    assert type(error) is (ResponseInterrupted if events else AmbiguousOutcome)
    assert events or count < 2
    assert not any(isinstance(event, AnswerFinished) for event in events)


async def test_a_connection_lost_before_any_byte_is_ambiguous(
    provider: Provider, vendor: Vendor, upstream: Upstream, call: CallContext
) -> None:
    upstream.plays(Wire.hang_up, Wire.reset)

    _, orderly = await error_of(provider, vendor.request(), call)
    _, reset = await error_of(provider, vendor.request(), call)

    assert (type(orderly), type(reset)) == (AmbiguousOutcome, AmbiguousOutcome)


async def test_a_truncated_body_is_an_interruption(
    provider: Provider, vendor: Vendor, upstream: Upstream, call: CallContext
) -> None:
    body = recorded(vendor.text_body)
    upstream.plays(sends(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body[:100]))

    with pytest.raises(ResponseInterrupted):
        await provider.complete(vendor.request(), call)


# Garbage


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(streams(b"data: {nonsense}\n\n"), id="no JSON"),
        pytest.param(streams(b"data: [1, 2]\n\n"), id="no object"),
        pytest.param(streams(b'data: {"type": 3, "choices": "x"}\n\n'), id="wrong types"),
        pytest.param(streams(b'data: "\xff"\n\n'), id="no UTF-8"),
        pytest.param(answers(b"<html>Welcome</html>", 200, "text/html"), id="a page"),
        pytest.param(answers(b'{"hello": "world"}', 200), id="another JSON"),
        pytest.param(sends(b"SSH-2.0-OpenSSH_9.9\r\n\r\n"), id="no HTTP"),
        pytest.param(answers(b"xx", 200, "text/event-stream", content_encoding="gzip"), id="compressed"),
        pytest.param(sends(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nx: " + b"x" * 70000), id="huge header"),
    ],
)
async def test_garbage_is_a_bad_response(
    provider: Provider, vendor: Vendor, upstream: Upstream, call: CallContext, act: Act
) -> None:
    upstream.plays(act)

    events, error = await error_of(provider, vendor.request(), call)

    assert events == []
    assert type(error) is BadResponse


@pytest.mark.parametrize("body", [b"", b"nonsense", b"{}", b"[]", b"null", b'{"choices": [], "content": 5}'])
async def test_garbage_as_a_complete_answer_is_a_bad_response(
    provider: Provider, vendor: Vendor, upstream: Upstream, call: CallContext, body: bytes
) -> None:
    upstream.plays(answers(body))

    with pytest.raises(BadResponse):
        await provider.complete(vendor.request(), call)


async def test_an_answer_above_the_size_limit_is_a_bad_response(
    provider: Provider, vendor: Vendor, upstream: Upstream, call: CallContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("providers.exchange.MAX_RESPONSE_BYTES", 100_000)
    upstream.plays(answers(b" " * 200_000 + recorded(vendor.text_body)))

    with pytest.raises(BadResponse):
        await provider.complete(vendor.request(), call)


async def test_a_line_of_a_megabyte_is_decoded(
    provider: Provider, vendor: Vendor, upstream: Upstream, call: CallContext
) -> None:
    stream = recorded(vendor.text_stream).replace("Grüße".encode(), b"x" * 1_000_000)
    upstream.plays(streams(stream))

    events = await events_of(provider, vendor.request(), call)

    assert sum(len(event.text) for event in events if isinstance(event, TextDelta)) > 1_000_000


# Closing by the caller


async def test_a_canceled_task_closes_the_connection(
    provider: Provider, vendor: Vendor, upstream: Upstream, call: CallContext
) -> None:
    upstream.plays(streams_then(falls_silent, *frames(vendor.text_stream)[:4]))
    first = asyncio.Event()

    async def read() -> None:
        async for _ in provider.stream(vendor.request(), call):
            first.set()

    reading = asyncio.create_task(read())
    await asyncio.wait_for(first.wait(), 5)
    reading.cancel()

    await asyncio.wait_for(upstream.closed_by_client.wait(), 5)
    with pytest.raises(asyncio.CancelledError):
        await reading


async def test_a_canceled_call_without_answer_closes_the_connection(
    provider: Provider, vendor: Vendor, upstream: Upstream, call: CallContext
) -> None:
    received = asyncio.Event()

    async def holds(wire: Wire) -> None:
        received.set()
        await falls_silent(wire)

    upstream.plays(holds)
    waiting = asyncio.create_task(provider.complete(vendor.request(), call))
    await asyncio.wait_for(received.wait(), 5)
    waiting.cancel()

    await asyncio.wait_for(upstream.closed_by_client.wait(), 5)
    with pytest.raises(asyncio.CancelledError):
        await waiting


@pytest.mark.parametrize("closing", [True, False])
async def test_a_reader_that_stops_closes_the_connection(
    provider: Provider, vendor: Vendor, upstream: Upstream, call: CallContext, closing: bool
) -> None:
    upstream.plays(streams_then(falls_silent, *frames(vendor.text_stream)[:4]))
    events = provider.stream(vendor.request(), call)

    if closing:
        async with aclosing(events):
            await anext(events)
    else:
        await anext(events)
        del events
        gc.collect()

    await asyncio.wait_for(upstream.closed_by_client.wait(), 5)


async def test_a_call_to_a_closed_provider_is_a_transient_failure(
    provider: Provider, vendor: Vendor, call: CallContext
) -> None:
    await provider.close()

    _, error = await error_of(provider, vendor.request(), call)

    assert type(error) is TransientFailure


def _values(value: object) -> list[object]:
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return [value, *(deeper for item in inner for deeper in _values(item))]
