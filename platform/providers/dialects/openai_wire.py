"""Request bodies of OpenAI's dialect, field by field (docs/reference/wire-formats.md, 2.1 and 4)."""

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta, Struct

from providers.dialects.validation import UnknownContentPart

ToolName: TypeAlias = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
ModelName: TypeAlias = Annotated[str, Meta(min_length=1, max_length=256)]
TokenCount: TypeAlias = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Penalty: TypeAlias = Annotated[float, Meta(ge=-2, le=2)]
Int64: TypeAlias = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
OpenAIMetadata: TypeAlias = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)
]

# Content parts


class TextContentPart(Struct, tag_field="type", tag="text"):
    text: str


class RefusalContentPart(Struct, tag_field="type", tag="refusal"):
    refusal: str


class ImageURL(Struct):
    url: str
    detail: Literal["auto", "low", "high"] | None = None


class ImageContentPart(Struct, tag_field="type", tag="image_url"):
    image_url: ImageURL


class AudioContentPart(Struct, tag_field="type", tag="input_audio"):
    input_audio: Any = None


class FileContentPart(Struct, tag_field="type", tag="file"):
    file: Any = None


OpenAIContentPart: TypeAlias = (
    TextContentPart | RefusalContentPart | ImageContentPart | AudioContentPart | FileContentPart | UnknownContentPart
)
#: The part types that have a struct.
PART_TYPES = frozenset(("text", "refusal", "image_url", "input_audio", "file"))

TextContent: TypeAlias = str | Annotated[list[TextContentPart | UnknownContentPart], Meta(min_length=1)]
UserContent: TypeAlias = (
    str
    | Annotated[
        list[TextContentPart | ImageContentPart | AudioContentPart | FileContentPart | UnknownContentPart],
        Meta(min_length=1),
    ]
)
AssistantContent: TypeAlias = (
    str | Annotated[list[TextContentPart | RefusalContentPart | UnknownContentPart], Meta(min_length=1)]
)

# Messages. Unknown fields in them are sent only to a provider of this dialect: SDKs send complete answers back, with
# whatever vendors add to them, and the next answer does not depend on that.


class CalledFunction(Struct):
    name: ToolName
    arguments: str


class FunctionToolCall(Struct, tag_field="type", tag="function"):
    id: str
    function: CalledFunction


class CustomToolCall(Struct, tag_field="type", tag="custom"):
    id: str
    custom: Any = None


class OpenAISystemMessage(Struct, tag_field="role", tag="system"):
    content: TextContent


class OpenAIDeveloperMessage(Struct, tag_field="role", tag="developer"):
    content: TextContent


class OpenAIUserMessage(Struct, tag_field="role", tag="user"):
    content: UserContent


class OpenAIAssistantMessage(Struct, tag_field="role", tag="assistant"):
    content: AssistantContent | None = None
    refusal: str | None = None
    tool_calls: list[FunctionToolCall | CustomToolCall] | None = None
    audio: Any = None
    function_call: Any = None


class OpenAIToolMessage(Struct, tag_field="role", tag="tool"):
    tool_call_id: str
    content: TextContent


class OpenAIFunctionMessage(Struct, tag_field="role", tag="function"):
    content: Any = None


OpenAIMessage: TypeAlias = (
    OpenAISystemMessage
    | OpenAIDeveloperMessage
    | OpenAIUserMessage
    | OpenAIAssistantMessage
    | OpenAIToolMessage
    | OpenAIFunctionMessage
)

# Tools and output format


class FunctionDefinition(Struct):
    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTool(Struct, tag_field="type", tag="function"):
    function: FunctionDefinition


class CustomTool(Struct, tag_field="type", tag="custom"):
    custom: Any = None


class NamedFunction(Struct):
    name: ToolName


class NamedToolChoice(Struct, tag_field="type", tag="function"):
    function: NamedFunction


class AllowedToolsChoice(Struct, tag_field="type", tag="allowed_tools"):
    allowed_tools: Any = None


class CustomToolChoice(Struct, tag_field="type", tag="custom"):
    custom: Any = None


class TextFormat(Struct, tag_field="type", tag="text"):
    pass


class JSONObjectFormat(Struct, tag_field="type", tag="json_object"):
    pass


class JSONSchemaDefinition(Struct):
    name: ToolName
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class JSONSchemaFormat(Struct, tag_field="type", tag="json_schema"):
    json_schema: JSONSchemaDefinition


class StreamOptions(Struct):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ChatBody(Struct):
    """`POST /v1/chat/completions`. A provider of this dialect gets it unchanged, including fields not listed here."""

    model: ModelName
    messages: Annotated[list[OpenAIMessage], Meta(min_length=1)]
    max_completion_tokens: TokenCount | None = None
    max_tokens: TokenCount | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    stop: str | Annotated[list[Annotated[str, Meta(min_length=1)]], Meta(max_length=4)] | None = None
    seed: Int64 | None = None
    tools: Annotated[list[FunctionTool | CustomTool], Meta(max_length=128)] | None = None
    tool_choice: (
        Literal["none", "auto", "required"] | NamedToolChoice | AllowedToolsChoice | CustomToolChoice | None
    ) = None
    parallel_tool_calls: bool | None = None
    response_format: TextFormat | JSONObjectFormat | JSONSchemaFormat | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    user: Annotated[str, Meta(max_length=512)] | None = None
    safety_identifier: Annotated[str, Meta(max_length=512)] | None = None
    # Not sent to a provider: the caller of `Provider` decides whether to stream.
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    # Sent only to a provider of this dialect: they affect where and at what cost a vendor works, never the answer.
    metadata: OpenAIMetadata | None = None
    store: bool | None = None
    service_tier: str | None = None
    prediction: Any = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: Any = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    # Only a provider of this dialect can serve these (`openai._untranslatable_fields`).
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    modalities: list[str] | None = None
    audio: Any = None
    web_search_options: Any = None
    moderation: Any = None
    functions: Any = None
    function_call: Any = None


class EmbeddingBody(Struct):
    """`POST /v1/embeddings`. `openai.to_embedding_request` validates `input`.

    Other fields are sent to the provider unchanged.
    """

    model: ModelName
    # msgspec allows only one list type in a union.
    input: str | Annotated[list[str | int | list[int]], Meta(min_length=1, max_length=300_000)]
    dimensions: Annotated[int, Meta(ge=1, le=65_536)] | None = None
    encoding_format: Literal["float", "base64"] | None = None
    user: Annotated[str, Meta(max_length=512)] | None = None
