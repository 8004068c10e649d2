"""The vendors of the conformance suite: how to create each adapter, and its vendor's recorded answers."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from providers.adapters import AnthropicProvider, AzureOpenAIProvider, OpenAIProvider
from providers.tiers import Tier
from providers.types import (
    ChatMessage,
    ChatRequest,
    Completion,
    FinishReason,
    Provider,
    Role,
    TextPart,
    ToolCall,
    Usage,
)

CONTRACT = Path(__file__).parents[2] / "contract"
KEY = "sk-test-0123456789abcdef"

TEXT = "Grüße aus Oslo 🌧"
#: The usage of every recorded text, in neutral counts.
USAGE = Usage(input_tokens=19, output_tokens=10, cached_input_tokens=8, reasoning_tokens=2)
CALLS = (ToolCall("call_a", "get_weather", '{"city":"Oslo"}'), ToolCall("call_b", "get_time", "{}"))


@dataclass(frozen=True, slots=True)
class Vendor:
    """One adapter, to be connected to a server at a given URL."""

    name: str
    make: Callable[[str, str], Provider]
    model: str
    path: str
    auth: tuple[str, str]
    text_stream: str
    tools_stream: str
    text_body: str
    tools_body: str
    usage: Usage
    calls: tuple[ToolCall, ...]
    rate_error: bytes
    embeddings_path: str | None

    def connect(self, url: str, key: str = KEY) -> Provider:
        return self.make(url, key)

    def request(self, text: str = "How is the weather?") -> ChatRequest:
        return ChatRequest(self.model, (ChatMessage(Role.USER, (TextPart(text),)),))

    def completion(self) -> Completion:
        ids = {"claude-sonnet-5-5": "msg_01A"}.get(self.model, "chatcmpl-D1")
        model = self.model if self.model.startswith("claude") else "gpt-4o-mini-2024-07-18"
        return Completion(ids, model, TEXT, FinishReason.STOP, self.usage, tier=Tier.STANDARD)


def recorded(name: str) -> bytes:
    return (CONTRACT / name).read_bytes()


def frames(name: str) -> list[bytes]:
    """Return a recorded stream split between its events."""
    return [frame + b"\n\n" for frame in recorded(name).split(b"\n\n") if frame]


def _openai(name: str, make: Callable[[str, str], Provider], path: str, auth: tuple[str, str], stream: str) -> Vendor:
    return Vendor(
        name=name,
        make=make,
        model="gpt-4o-mini",
        path=f"{path}/chat/completions",
        auth=auth,
        text_stream=stream,
        tools_stream="openai/chat_tools.sse",
        text_body="openai/chat_text.json",
        tools_body="openai/chat_tools.json",
        usage=USAGE,
        calls=CALLS,
        rate_error=b'{"error": {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}}',
        embeddings_path=f"{path}/embeddings",
    )


BEARER = ("authorization", f"Bearer {KEY}")

VENDORS = (
    _openai(
        "openai",
        lambda url, key: OpenAIProvider(api_key=key, base_url=f"{url}/v1", vendor="openai"),
        "/v1",
        BEARER,
        "openai/chat_text.sse",
    ),
    _openai(
        "compatible",
        lambda url, key: OpenAIProvider("own-server", api_key=key, base_url=f"{url}/v1/"),
        "/v1",
        BEARER,
        "openai/chat_text.sse",
    ),
    _openai(
        "azure",
        lambda url, key: AzureOpenAIProvider(api_key=key, base_url=url),
        "/openai/v1",
        ("api-key", KEY),
        "azure/chat_text.sse",
    ),
    _openai(
        "azure-dated",
        lambda url, key: AzureOpenAIProvider(api_key=key, base_url=url, api_version="2024-10-21"),
        "/openai/deployments/gpt-4o-mini",
        ("api-key", KEY),
        "azure/chat_text.sse",
    ),
    Vendor(
        name="anthropic",
        make=lambda url, key: AnthropicProvider(api_key=key, base_url=url),
        model="claude-sonnet-5-5",
        path="/v1/messages",
        auth=("x-api-key", KEY),
        text_stream="anthropic/messages_text.sse",
        tools_stream="anthropic/messages_tools.sse",
        text_body="anthropic/messages_text.json",
        tools_body="anthropic/messages_tools.json",
        usage=Usage(19, 10, cached_input_tokens=8, cache_write_tokens=3, cache_write_1h_tokens=3, reasoning_tokens=2),
        calls=(ToolCall("toolu_a", "get_weather", '{"city":"Oslo"}'), ToolCall("toolu_b", "get_time", "{}")),
        rate_error=b'{"type": "error", "error": {"type": "rate_limit_error", "message": "Rate limit reached"}}',
        embeddings_path=None,
    ),
)
