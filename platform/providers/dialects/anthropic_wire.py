"""Request bodies of Anthropic's dialect, field by field (docs/reference/wire-formats.md, 11)."""

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta, Struct

from providers.dialects.openai_wire import ModelName, TokenCount, ToolName
from providers.dialects.validation import UnknownContentPart

# Content blocks. `cache_control` and other unknown fields in them are sent only to a provider of this dialect: they
# affect the cost, not the answer.


class TextBlock(Struct, tag_field="type", tag="text"):
    text: str


class Base64Source(Struct, tag_field="type", tag="base64"):
    media_type: Literal["image/png", "image/jpeg", "image/gif", "image/webp"]
    data: str


class URLSource(Struct, tag_field="type", tag="url"):
    url: Annotated[str, Meta(pattern=r"^https?://")]


class FileSource(Struct, tag_field="type", tag="file"):
    file_id: Any = None


class ImageBlock(Struct, tag_field="type", tag="image"):
    source: Base64Source | URLSource | FileSource


class DocumentBlock(Struct, tag_field="type", tag="document"):
    source: Any = None


class SearchResultBlock(Struct, tag_field="type", tag="search_result"):
    content: Any = None


class ToolUseBlock(Struct, tag_field="type", tag="tool_use"):
    id: Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_-]+$")]
    name: ToolName
    input: dict[str, Any]


class ToolResultBlock(Struct, tag_field="type", tag="tool_result"):
    tool_use_id: str
    content: str | list[TextBlock | ImageBlock | DocumentBlock | SearchResultBlock | UnknownContentPart] | None = None
    is_error: bool | None = None


class ThinkingBlock(Struct, tag_field="type", tag="thinking"):
    pass


class RedactedThinkingBlock(Struct, tag_field="type", tag="redacted_thinking"):
    pass


UserBlock: TypeAlias = TextBlock | ImageBlock | ToolResultBlock | DocumentBlock | SearchResultBlock | UnknownContentPart
AssistantBlock: TypeAlias = (
    TextBlock | ToolUseBlock | ThinkingBlock | RedactedThinkingBlock | DocumentBlock | UnknownContentPart
)
#: The block types that have a struct.
BLOCK_TYPES = frozenset(
    ("text", "image", "tool_use", "tool_result", "thinking", "redacted_thinking", "document", "search_result")
)


class AnthropicUserMessage(Struct, tag_field="role", tag="user"):
    content: str | Annotated[list[UserBlock], Meta(min_length=1)]


class AnthropicAssistantMessage(Struct, tag_field="role", tag="assistant"):
    content: str | Annotated[list[AssistantBlock], Meta(min_length=1)]


# Tools, thinking, output format


class AnthropicTool(Struct):
    #: Some server tools have none.
    name: ToolName | None = None
    #: Absent or "custom" for the caller's own tools; a server tool of the vendor has its name and date.
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None


class AnthropicToolChoice(Struct):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingEnabled(Struct, tag_field="type", tag="enabled"):
    budget_tokens: Annotated[int, Meta(ge=1024)]


class ThinkingAdaptive(Struct, tag_field="type", tag="adaptive"):
    pass


class ThinkingDisabled(Struct, tag_field="type", tag="disabled"):
    pass


class SchemaFormat(Struct, tag_field="type", tag="json_schema"):
    schema: dict[str, Any]


class OutputConfig(Struct):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: SchemaFormat | None = None


class AnthropicMetadata(Struct):
    user_id: Annotated[str, Meta(max_length=512)] | None = None


class MessagesBody(Struct):
    """`POST /v1/messages`. A provider of this dialect gets it unchanged, including fields not listed here."""

    model: ModelName
    max_tokens: TokenCount
    messages: Annotated[list[AnthropicUserMessage | AnthropicAssistantMessage], Meta(min_length=1, max_length=100_000)]
    system: str | list[TextBlock] | None = None
    stop_sequences: list[Annotated[str, Meta(min_length=1)]] | None = None
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    tools: Annotated[list[AnthropicTool], Meta(max_length=128)] | None = None
    tool_choice: AnthropicToolChoice | None = None
    thinking: ThinkingEnabled | ThinkingAdaptive | ThinkingDisabled | None = None
    output_config: OutputConfig | None = None
    metadata: AnthropicMetadata | None = None
    # Not sent to a provider: the caller of `Provider` decides whether to stream.
    stream: bool | None = None
    # Sent only to a provider of this dialect: they affect cost or diagnostics, never the answer.
    cache_control: Any = None
    service_tier: Literal["auto", "standard_only"] | None = None
    diagnostics: Any = None
    # Only a provider of this dialect can serve these (`anthropic._untranslatable_fields`).
    top_k: int | None = None
    speed: Literal["standard", "fast"] | None = None
    inference_geo: str | None = None
    container: Any = None
    mcp_servers: Any = None
    context_management: Any = None
    user_profile_id: str | None = None
    workspace_id: str | None = None
    # Rejected: a thread is stored at one provider, and the next request may go to another.
    thread: Any = None


class CountTokensBody(Struct, forbid_unknown_fields=True):
    """`POST /v1/messages/count_tokens`."""

    model: ModelName
    messages: Annotated[list[AnthropicUserMessage | AnthropicAssistantMessage], Meta(min_length=1, max_length=100_000)]
    system: str | list[TextBlock] | None = None
    tools: Annotated[list[AnthropicTool], Meta(max_length=128)] | None = None
    tool_choice: AnthropicToolChoice | None = None
    thinking: ThinkingEnabled | ThinkingAdaptive | ThinkingDisabled | None = None
    output_config: OutputConfig | None = None

    # Accepted, without effect on the count.
    cache_control: Any = None
    speed: Literal["standard", "fast"] | None = None
