"""Behaviour of single adapters, and requests that are rejected before anything is sent."""

from dataclasses import replace
from typing import Any

import pytest

from providers.adapters import AnthropicProvider, AzureOpenAIProvider, OpenAIProvider, create_provider
from providers.dialects import openai
from providers.dialects.openai_upstream import OpenAIFlavor
from providers.errors import RequestRejected, ResponseInterrupted, UnsupportedFeature
from providers.types import (
    CallContext,
    ChatMessage,
    ChatRequest,
    Dialect,
    EmbeddingRequest,
    JSONObject,
    Role,
    TextDelta,
    TextPart,
    Tool,
)
from tests.platform.providers.stream_helpers import error_of
from tests.platform.providers.upstream import Upstream, answers, streams
from tests.platform.providers.vendors import KEY, recorded

REQUEST = ChatRequest("gpt-4o-mini", (ChatMessage(Role.USER, (TextPart("Hello"),)),), max_tokens=9)


@pytest.mark.parametrize(
    ("options", "path", "limit"),
    [
        ({"dialect": Dialect.OPENAI}, "/v1/chat/completions", "max_tokens"),
        ({"dialect": Dialect.OPENAI, "vendor": "openai"}, "/v1/chat/completions", "max_completion_tokens"),
        (
            {"dialect": Dialect.OPENAI, "flavor": OpenAIFlavor("max_completion_tokens")},
            "/v1/chat/completions",
            "max_completion_tokens",
        ),
        ({"dialect": Dialect.AZURE}, "/openai/v1/chat/completions", "max_completion_tokens"),
        (
            {"dialect": Dialect.AZURE, "api_version": "2024-10-21"},
            "/openai/deployments/gpt-4o-mini/chat/completions?api-version=2024-10-21",
            "max_tokens",
        ),
    ],
)
async def test_create_provider_uses_dialect_vendor_and_api_version(
    upstream: Upstream, call: CallContext, options: dict[str, Any], path: str, limit: str
) -> None:
    upstream.plays(answers(recorded("openai/chat_text.json")))
    base_url = upstream.url if options["dialect"] is Dialect.AZURE else f"{upstream.url}/v1"
    provider = create_provider(name="a", api_key=KEY, base_url=base_url, **options)

    await provider.complete(REQUEST, call)
    await provider.close()

    assert provider.name == "a"
    assert upstream.seen[0].path == path
    assert upstream.seen[0].body[limit] == 9


async def test_anthropic_base_url_may_end_in_v1(upstream: Upstream, call: CallContext) -> None:
    upstream.plays(answers(recorded("anthropic/messages_text.json")))
    for base_url in (upstream.url, f"{upstream.url}/v1/"):
        provider = create_provider(Dialect.ANTHROPIC, "a", api_key=KEY, base_url=base_url)
        await provider.complete(REQUEST, call)
        await provider.close()

    assert [seen.path for seen in upstream.seen] == ["/v1/messages", "/v1/messages"]
    assert upstream.seen[0].headers["anthropic-version"] == "2023-06-01"


@pytest.mark.parametrize("suffix", ["", "/", "/openai", "/openai/v1", "/openai/v1/"])
async def test_azure_base_url_accepts_every_common_form(upstream: Upstream, call: CallContext, suffix: str) -> None:
    upstream.plays(answers(recorded("openai/chat_text.json")))
    provider = AzureOpenAIProvider(api_key=KEY, base_url=upstream.url + suffix)

    await provider.complete(REQUEST, call)
    await provider.close()

    assert upstream.seen[0].path == "/openai/v1/chat/completions"


async def test_a_deployment_name_cannot_change_the_path(upstream: Upstream, call: CallContext) -> None:
    upstream.plays(answers(recorded("openai/chat_text.json")))
    provider = AzureOpenAIProvider(api_key=KEY, base_url=upstream.url, api_version="2024-10-21")

    await provider.complete(replace(REQUEST, model="../x?y#z"), call)
    await provider.close()

    assert upstream.seen[0].path == "/openai/deployments/..%2Fx%3Fy%23z/chat/completions?api-version=2024-10-21"


async def test_a_self_hosted_server_needs_no_key(upstream: Upstream, call: CallContext) -> None:
    upstream.plays(answers(recorded("openai/chat_text.json")), answers(b"{}", 401))
    provider = OpenAIProvider("own", api_key="", base_url=upstream.url)

    await provider.complete(REQUEST, call)
    await provider.close()

    assert "authorization" not in upstream.seen[0].headers


@pytest.mark.parametrize(
    "base_url",
    ["", "api.openai.com", "ftp://x.test", "https://", "https://u:p@x.test", "https://x.test?a=1", "https://x.test#a"],
)
def test_an_invalid_base_url_is_rejected(base_url: str) -> None:
    for dialect in Dialect:
        if base_url or dialect is Dialect.AZURE:
            with pytest.raises(ValueError, match="address"):
                create_provider(dialect, "a", api_key=KEY, base_url=base_url)


def test_azure_requires_a_base_url() -> None:
    with pytest.raises(ValueError, match="resource"):
        create_provider(Dialect.AZURE, "a", api_key=KEY)


@pytest.mark.parametrize("key", ["sk-abc\n", "sk abc", "sk-äöü", "sk-\x00"])
def test_an_invalid_key_is_rejected_and_not_quoted(key: str) -> None:
    with pytest.raises(ValueError, match="printable") as caught:
        AnthropicProvider(api_key=key)

    assert key not in str(caught.value)


async def test_a_request_that_the_dialect_cannot_express_is_rejected_before_it_is_sent(
    upstream: Upstream, call: CallContext
) -> None:
    provider = OpenAIProvider(api_key=KEY, base_url=upstream.url, vendor="openai")
    request = replace(REQUEST, model="gpt-6.1-sol", tools=(Tool("f", None, {}),))

    with pytest.raises(UnsupportedFeature):
        await provider.complete(request, call)
    await provider.close()

    assert upstream.seen == []


async def test_a_request_that_cannot_be_encoded_is_rejected(upstream: Upstream, call: CallContext) -> None:
    provider = OpenAIProvider(api_key=KEY, base_url=upstream.url)

    with pytest.raises(RequestRejected):
        await provider.embed(EmbeddingRequest("m", ("\ud800",)), call)
    await provider.close()


async def test_errors_never_contain_a_key_of_any_shape(upstream: Upstream, call: CallContext) -> None:
    upstream.plays(answers(b'{"error": {"message": "Who is hunter2?"}}', 401))
    provider = OpenAIProvider(api_key="hunter2", base_url=upstream.url)

    _, error = await error_of(provider, REQUEST, call)
    await provider.close()

    assert error.message == "Who is [redacted]?"


@pytest.mark.parametrize("text", ["short one", "a text of some more characters than a window has"])
async def test_an_error_message_that_quotes_the_prompt_is_replaced(
    upstream: Upstream, call: CallContext, text: str
) -> None:
    upstream.plays(answers(b'{"error": {"message": "Cannot embed: %b!"}}' % text.encode(), 400))
    provider = OpenAIProvider(api_key=KEY, base_url=upstream.url)

    with pytest.raises(RequestRejected, match="quotes the request"):
        await provider.embed(EmbeddingRequest("m", (text,)), call)
    await provider.close()


@pytest.mark.parametrize(
    "fields",
    [
        {"prediction": {"type": "content", "content": "a secret of the baker that is longer than two windows"}},
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "file", "file": {"x": "a secret of the baker that is longer than two windows"}}
                    ],
                }
            ]
        },
    ],
)
async def test_an_error_message_that_quotes_a_passed_through_field_is_replaced(
    upstream: Upstream, call: CallContext, fields: JSONObject
) -> None:
    upstream.plays(
        answers(
            b'{"error": {"message": "No prediction with: a secret of the baker that is longer than two windows"}}', 400
        )
    )
    provider = OpenAIProvider(api_key=KEY, base_url=upstream.url)
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], **fields}

    with pytest.raises(RequestRejected, match="quotes the request"):
        await provider.complete(openai.decode_chat(body), call)
    await provider.close()


@pytest.mark.parametrize(
    ("dialect", "name", "code"),
    [
        (Dialect.OPENAI, "openai/chat_error.sse", "server_error"),
        (Dialect.ANTHROPIC, "anthropic/messages_error.sse", "overloaded_error"),
    ],
)
async def test_an_error_frame_after_the_first_token_is_an_interruption(
    upstream: Upstream, call: CallContext, dialect: Dialect, name: str, code: str
) -> None:
    upstream.plays(streams(recorded(name)))
    provider = create_provider(dialect, "a", api_key=KEY, base_url=upstream.url)

    events, error = await error_of(provider, REQUEST, call)
    await provider.close()

    assert TextDelta("Hel") in events
    assert (type(error), error.code) == (ResponseInterrupted, code)
