"""Anthropic's Messages API: parses the request and rejects what Anthropic rejects."""

from collections.abc import Iterable
from itertools import groupby
from operator import attrgetter
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from simulator.catalogue import ADAPTIVE_ONLY, ALWAYS_THINKING, NO_FORCED_TOOLS
from simulator.decode import decoder_for, to_anthropic_error
from simulator.errors import ApiError
from simulator.neutral_request import NeutralRequest, OfferedTools, Tool, ToolMode, seed_for, to_compact_json
from simulator.tokens import FILE_TOKENS, IMAGE_TOKENS, MESSAGE_TOKENS, PROMPT_TOKENS, tokens_of

OLDEST_VERSION = "2023-06-01"
NEWEST_VERSION = "2026-10-21"
VERSIONS = (OLDEST_VERSION, NEWEST_VERSION)
SAMPLING_PARAMETERS = ("temperature", "top_p", "top_k")

Ignored = Any


class BlockSource(Struct):
    type: Literal["base64", "url", "file", "text", "content"]
    data: str = ""


class ContentBlock(Struct):
    """A block of content; each type uses some of the fields. `type` may also be one of the server tools' blocks."""

    type: str
    text: str = ""
    source: BlockSource | None = None
    id: str = ""
    name: str = ""
    input: Any = None
    tool_use_id: str = ""
    content: "str | list[ContentBlock] | None" = None
    thinking: str = ""
    signature: str = ""
    citations: Any = None


class InputMessage(Struct):
    role: Literal["user", "assistant"]
    content: str | list[ContentBlock]


class OfferedTool(Struct):
    """A tool of the caller's; server tools have a `type` such as web_search_20250305 and no schema."""

    name: Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_-]{1,128}$")]
    type: str = "custom"
    description: str | None = None
    input_schema: dict[str, Any] | None = None


class ToolChoice(Struct):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool = False


class Thinking(Struct):
    type: Literal["enabled", "adaptive", "disabled", "between_tools"]
    budget_tokens: Annotated[int, Meta(ge=1024)] | None = None


class OutputFormat(Struct):
    type: Literal["json_schema"]
    definition: dict[str, Any] = msgspec.field(name="schema")


class OutputConfig(Struct):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None


class CountTokensRequest(Struct, forbid_unknown_fields=True):
    """The fields that `count_tokens` and `messages` share."""

    model: str
    messages: Annotated[list[InputMessage], Meta(min_length=1, max_length=100_000)]
    system: str | list[ContentBlock] | None = None
    tools: list[OfferedTool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    cache_control: Ignored = None
    prefill: Ignored = None
    speed: Literal["standard", "fast"] | None = None
    user_profile_id: Ignored = None
    workspace_id: Ignored = None


class MessagesRequest(CountTokensRequest, kw_only=True, forbid_unknown_fields=True):
    max_tokens: Annotated[int, Meta(ge=0)]
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0)] | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    metadata: Ignored = None
    inference_geo: str | None = None
    container: Ignored = None
    diagnostics: Ignored = None


decode_messages = decoder_for(MessagesRequest, to_anthropic_error)
decode_count = decoder_for(CountTokensRequest, to_anthropic_error)


def read_messages(body: bytes, model: str, version: str) -> NeutralRequest:
    """Return the request in neutral form; `model` has no controls. Raises `ApiError` if Anthropic would reject it."""
    request = decode_messages(body)
    check_sampling(request, model, version)
    check_thinking(request, model)
    return _to_neutral(
        request,
        model,
        version,
        stream=request.stream is True,
        max_tokens=request.max_tokens,
        stop=tuple(word for word in request.stop_sequences or () if word),
        inference_geo=request.inference_geo or "global",
    )


def read_count_tokens(body: bytes, model: str, version: str) -> NeutralRequest:
    """The request whose tokens are to be counted, in neutral form."""
    return _to_neutral(decode_count(body), model, version)


def check_version(version: str | None) -> str:
    """Return the API version of the caller. Raises `ApiError` for an unknown one."""
    if version is None:
        raise ApiError(400, "anthropic-version: header is required")
    if version not in VERSIONS:
        raise ApiError(400, f'anthropic-version: "{version}" is not a valid version')
    return version


def check_sampling(request: MessagesRequest, model: str, version: str) -> None:
    for name in SAMPLING_PARAMETERS:
        value = getattr(request, name)
        if value is None:
            continue
        if version == NEWEST_VERSION:
            raise ApiError(400, f"{name}: not supported in anthropic-version {NEWEST_VERSION}")
        if model in ADAPTIVE_ONLY and value != 1:
            raise ApiError(400, f"{name}: `{name}` may only be set to its default with {model}")


def check_thinking(request: MessagesRequest, model: str) -> None:
    thinking = request.thinking
    if thinking is None:
        return
    if thinking.type == "disabled" and model in ALWAYS_THINKING:
        raise ApiError(400, f"thinking.type: thinking cannot be disabled with {model}")
    if thinking.type != "enabled":
        return
    if model in ADAPTIVE_ONLY:
        raise ApiError(400, f"thinking.type: manual thinking budgets are not supported with {model}; use adaptive")
    if thinking.budget_tokens is None:
        raise ApiError(400, "thinking.enabled.budget_tokens: Field required")
    if thinking.budget_tokens >= request.max_tokens:
        raise ApiError(400, "`max_tokens` must be greater than `thinking.budget_tokens`")


def check_tool_choice(request: CountTokensRequest, model: str) -> None:
    choice = request.tool_choice
    if choice is None or choice.type == "none":
        return
    if not request.tools:
        raise ApiError(400, "tool_choice: `tool_choice` may only be specified while providing `tools`")
    if choice.type in ("any", "tool") and model in NO_FORCED_TOOLS:
        raise ApiError(400, f'tool_choice.type: "{choice.type}" is not supported with {model}')
    if choice.type == "tool" and choice.name not in {tool.name for tool in request.tools}:
        raise ApiError(400, f"tool_choice.name: Tool '{choice.name}' not found in provided tools")


def check_content(messages: list[InputMessage], version: str) -> None:
    if messages[0].role != "user":
        raise ApiError(400, 'messages: first message must use the "user" role')
    for index, message in enumerate(messages):
        for position, block in enumerate(blocks_of(message.content)):
            where = f"messages.{index}.content.{position}"
            if block.type == "text" and not block.text:
                raise ApiError(400, "messages: text content blocks must be non-empty")
            if version == NEWEST_VERSION and message.role == "assistant" and block.type == "document":
                raise ApiError(400, f"{where}: document blocks are not supported in assistant messages")
            if version == NEWEST_VERSION and message.role == "user" and block.type == "text" and block.citations:
                raise ApiError(400, f"{where}.citations: citations are not supported on user text blocks")


def check_tool_turns(messages: list[InputMessage]) -> None:
    """Every tool use has its result in the very next turn, and every result its use in the one before."""
    open_ids: set[str] = set()
    index = 0
    # Messages of one role that follow each other are one turn.
    for index, (role, turn) in enumerate(groupby(messages, key=attrgetter("role"))):
        blocks = [block for message in turn for block in blocks_of(message.content)]
        answered = {block.tool_use_id for block in blocks if block.type == "tool_result"}
        if role == "user" and (unknown := answered - open_ids):
            raise ApiError(
                400,
                f"messages.{index}: unexpected `tool_use_id` found in `tool_result` blocks: {min(unknown)}. Each "
                "`tool_result` block must have a corresponding `tool_use` block in the previous message.",
            )
        if missing := open_ids - answered:
            raise _missing_tool_results(index - 1, missing)
        open_ids = {block.id for block in blocks if block.type == "tool_use"}
    if open_ids:
        raise _missing_tool_results(index, open_ids)


def blocks_of(content: str | list[ContentBlock] | None) -> Iterable[ContentBlock]:
    if isinstance(content, str):
        return (ContentBlock(type="text", text=content),)
    return content or ()


def texts_of(block: ContentBlock) -> list[str]:
    """Everything in a block that is counted as text, in order."""
    match block.type:
        case "text":
            return [block.text]
        case "thinking":
            return [block.thinking]
        case "tool_use":
            return [block.name, to_compact_json(block.input)]
        case "tool_result":
            return [text for inner in blocks_of(block.content) for text in texts_of(inner)]
        case "document" if block.source and block.source.type == "text":
            return [block.source.data]
        case _:
            return []


def tokens_of_block(block: ContentBlock) -> int:
    match block.type:
        case "image":
            return IMAGE_TOKENS
        case "document" if not block.source or block.source.type != "text":
            return FILE_TOKENS
        case "tool_result":
            return sum(map(tokens_of_block, blocks_of(block.content)))
        case _:
            return sum(map(tokens_of, texts_of(block)))


def input_tokens_of(request: CountTokensRequest) -> int:
    tokens = PROMPT_TOKENS
    if request.system:
        tokens += MESSAGE_TOKENS + sum(map(tokens_of_block, blocks_of(request.system)))
    for message in request.messages:
        tokens += MESSAGE_TOKENS + sum(map(tokens_of_block, blocks_of(message.content)))
    tokens += sum(tool.tokens for tool in map(to_tool, request.tools or ()))
    if request.output_config and request.output_config.format:
        tokens += tokens_of(to_compact_json(request.output_config.format.definition))
    return tokens


def topic_of(messages: list[InputMessage]) -> str:
    """Return the text of the last user message that has any: a tool result alone is no question."""
    for message in reversed(messages):
        texts = [block.text for block in blocks_of(message.content) if block.type == "text"]
        if message.role == "user" and texts:
            return " ".join(texts)
    return ""


def to_tool(offered: OfferedTool) -> Tool:
    return Tool(offered.name, offered.description or "", offered.input_schema)


def to_tools(request: CountTokensRequest) -> OfferedTools:
    # Server tools run at the provider; the answer never asks the caller to run them.
    offered = tuple(to_tool(tool) for tool in request.tools or () if tool.type == "custom")
    choice = request.tool_choice or ToolChoice("auto")
    mode = {"none": ToolMode.NONE, "auto": ToolMode.AUTO}.get(choice.type, ToolMode.REQUIRED)
    allowed = (choice.name,) if choice.type == "tool" and choice.name else ()
    return OfferedTools(offered, mode, allowed, parallel=not choice.disable_parallel_tool_use and not allowed)


def _to_neutral(
    request: CountTokensRequest,
    model: str,
    version: str,
    *,
    stream: bool = False,
    max_tokens: int | None = None,
    stop: tuple[str, ...] = (),
    inference_geo: str = "global",
) -> NeutralRequest:
    check_content(request.messages, version)
    check_tool_turns(request.messages)
    check_tool_choice(request, model)
    contents = [request.system, *(message.content for message in request.messages)]
    texts = [text for content in contents for block in blocks_of(content) for text in texts_of(block)]
    output_format = request.output_config.format if request.output_config else None
    return NeutralRequest(
        model=model,
        seed=seed_for(model, texts),
        topic=topic_of(request.messages),
        input_tokens=input_tokens_of(request),
        stream=stream,
        max_tokens=max_tokens,
        stop=stop,
        tools=to_tools(request),
        schema=output_format.definition if output_format else None,
        thinking=request.thinking is not None and request.thinking.type in ("enabled", "adaptive"),
        speed=request.speed or "standard",
        inference_geo=inference_geo,
    )


def _missing_tool_results(index: int, tool_use_ids: set[str]) -> ApiError:
    return ApiError(
        400,
        f"messages.{index}: `tool_use` ids were found without `tool_result` blocks immediately after: "
        f"{', '.join(sorted(tool_use_ids))}. Each `tool_use` block must have a corresponding `tool_result` block in "
        "the next message.",
    )
