"""Anthropic's dialect, server side: callers' bodies to neutral requests, neutral answers to response bodies."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from providers.dialects import anthropic_wire as wire
from providers.dialects.validation import (
    DecodedBody,
    UnknownContentPart,
    ValidationIssue,
    check_nesting,
    decode_body,
    is_base64,
    precompile_decoders,
)
from providers.invalid_request import InvalidRequest
from providers.tiers import Tier
from providers.token_estimation import TOKENS_PER_IMAGE, estimate_input_tokens, estimate_opaque_tokens
from providers.types import (
    ChatMessage,
    ChatRequest,
    Completion,
    ContentPart,
    Dialect,
    FinishReason,
    ImagePart,
    JSONObject,
    OpaquePart,
    OriginalRequest,
    OutputFormat,
    Role,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
    Usage,
)

#: Accepted values of `anthropic-version`. The newer version rejects sampling settings, whatever the model.
CLASSIC_VERSION = "2023-06-01"
STRICT_VERSION = "2026-10-21"

_KNOWN_FIELDS = frozenset(wire.MessagesBody.__struct_fields__)
precompile_decoders(wire.MessagesBody, wire.CountTokensBody)

# Requests


def check_version(header: str | None) -> str:
    """Return the version of a caller, or raise InvalidRequest: this dialect has no default."""
    if header is None:
        raise InvalidRequest("anthropic-version: header is required", "anthropic-version")
    if header not in (CLASSIC_VERSION, STRICT_VERSION):
        raise InvalidRequest(
            f"anthropic-version: not a valid version; send {CLASSIC_VERSION} or {STRICT_VERSION}", "anthropic-version"
        )
    return header


def select_forwarded_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that are part of the request and are forwarded to a provider of this dialect."""
    return {name: headers[name] for name in ("anthropic-version", "anthropic-beta") if name in headers}


def decode_chat(data: bytes | Mapping[str, Any], version: str = CLASSIC_VERSION) -> ChatRequest:
    """Return the chat request of a body, or raise InvalidRequest."""
    return to_chat_request(parse_chat(data, version))


def parse_chat(data: bytes | Mapping[str, Any], version: str = CLASSIC_VERSION) -> DecodedBody[wire.MessagesBody]:
    """Return the body as a struct, for callers that also need fields outside the request (`stream`)."""
    decoded = decode_body(data, wire.MessagesBody, _to_invalid_request, wire.BLOCK_TYPES)
    if version == STRICT_VERSION:
        _reject_sampling(decoded.body)
    if decoded.body.thread is not None:
        # The vendor's tool runner tries a thread first; on this code it sends the complete conversation instead.
        raise InvalidRequest("thread: not supported here.", "thread", "thread_unsupported_request")
    return decoded


def decode_count_tokens(data: bytes | Mapping[str, Any]) -> ChatRequest:
    """Return the request whose tokens are to be counted, or raise InvalidRequest."""
    decoded = decode_body(data, wire.CountTokensBody, _to_invalid_request, wire.BLOCK_TYPES)
    body = decoded.body
    messages_body = wire.MessagesBody(
        model=body.model,
        max_tokens=1,
        messages=body.messages,
        system=body.system,
        tools=body.tools,
        tool_choice=body.tool_choice,
        thinking=body.thinking,
        output_config=body.output_config,
    )
    return to_chat_request(DecodedBody(messages_body, decoded.fields))


def to_chat_request(decoded: DecodedBody[wire.MessagesBody], headers: Mapping[str, str] | None = None) -> ChatRequest:
    """Return the request; `headers` are forwarded to a provider of this dialect."""
    body = decoded.body
    untranslatable = [*_unknown_fields(decoded.fields), *_untranslatable_fields(body)]
    messages = tuple(_messages(body, untranslatable))
    _check_tool_results(messages)
    tools = tuple(_tool(tool, f"tools.{index}", untranslatable) for index, tool in enumerate(body.tools or ()))
    return ChatRequest(
        model=body.model,
        messages=messages,
        max_tokens=body.max_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        stop=tuple(body.stop_sequences or ()),
        tools=tools,
        tool_choice=_tool_choice(body.tool_choice, tools),
        parallel_tool_calls=_parallel_tool_calls(body.tool_choice),
        output_format=_output_format(body.output_config),
        reasoning_effort=_effort(body),
        user=body.metadata.user_id if body.metadata else None,
        tier=_tier(body),
        original=OriginalRequest(
            Dialect.ANTHROPIC, decoded.fields, headers or {}, untranslatable[0] if untranslatable else None
        ),
    )


# What no other dialect can express is added to `untranslatable`; the neutral form holds a placeholder of its tokens.


def _unknown_fields(fields: Collection[str]) -> Iterator[InvalidRequest]:
    for name in fields:
        if name not in _KNOWN_FIELDS:
            yield _to_invalid_request(ValidationIssue("unknown", name, name))


def _untranslatable_fields(body: wire.MessagesBody) -> Iterator[InvalidRequest]:
    is_used = {
        "top_k": body.top_k is not None,
        "speed": body.speed == "fast",
        "inference_geo": body.inference_geo not in (None, "global"),
        "container": body.container is not None,
        "mcp_servers": bool(body.mcp_servers),
        "context_management": body.context_management is not None,
        "user_profile_id": body.user_profile_id is not None,
        "workspace_id": body.workspace_id is not None,
    }
    for name, used in is_used.items():
        if used:
            yield _unsupported(name)


def _unsupported(path: str, what: str = "") -> InvalidRequest:
    subject = f"{what} not" if what else "not"
    return InvalidRequest(f"{path}: {subject} supported by any provider of this model.", path)


def _messages(body: wire.MessagesBody, untranslatable: list[InvalidRequest]) -> Iterator[ChatMessage]:
    if body.system:
        yield ChatMessage(Role.SYSTEM, _text_parts(body.system))
    for index, message in enumerate(body.messages):
        path = f"messages.{index}.content"
        if isinstance(message, wire.AnthropicAssistantMessage):
            yield _assistant_message(message, path, untranslatable)
        elif isinstance(message.content, str):
            yield ChatMessage(Role.USER, (TextPart(message.content),))
        else:
            yield from _user_messages(message.content, path, untranslatable)


def _user_messages(
    blocks: Sequence[wire.UserBlock], path: str, untranslatable: list[InvalidRequest]
) -> Iterator[ChatMessage]:
    """Yield one message for each tool result, then one for the other blocks."""
    results = [(i, block) for i, block in enumerate(blocks) if isinstance(block, wire.ToolResultBlock)]
    others = [(i, block) for i, block in enumerate(blocks) if not isinstance(block, wire.ToolResultBlock)]
    if results and others and others[0][0] < results[-1][0]:
        raise InvalidRequest(f"{path}: tool_result blocks must come first.", path)
    for index, result in results:
        yield _tool_message(result, f"{path}.{index}", untranslatable)
    if others:
        yield ChatMessage(Role.USER, tuple(_part(block, f"{path}.{index}", untranslatable) for index, block in others))


def _tool_message(block: wire.ToolResultBlock, path: str, untranslatable: list[InvalidRequest]) -> ChatMessage:
    if isinstance(block.content, str) or block.content is None:
        parts: tuple[ContentPart, ...] = (TextPart(block.content or ""),)
    else:
        parts = tuple(
            _part(inner, f"{path}.content.{index}", untranslatable) for index, inner in enumerate(block.content)
        )
    return ChatMessage(Role.TOOL, parts, tool_call_id=block.tool_use_id, is_error=bool(block.is_error))


def _assistant_message(
    message: wire.AnthropicAssistantMessage, path: str, untranslatable: list[InvalidRequest]
) -> ChatMessage:
    if isinstance(message.content, str):
        return ChatMessage(Role.ASSISTANT, (TextPart(message.content),))
    # Thinking blocks are omitted: their signatures are valid for one model of one vendor only, and other models do not
    # need them.
    return ChatMessage(
        Role.ASSISTANT,
        tuple(
            _part(block, f"{path}.{index}", untranslatable)
            for index, block in enumerate(message.content)
            if isinstance(block, wire.TextBlock | wire.DocumentBlock | UnknownContentPart)
        ),
        tool_calls=tuple(
            _tool_call(block, f"{path}.{index}.input")
            for index, block in enumerate(message.content)
            if isinstance(block, wire.ToolUseBlock)
        ),
    )


def _tool_call(block: wire.ToolUseBlock, path: str) -> ToolCall:
    check_nesting(block.input, path, _to_invalid_request)
    return ToolCall(block.id, block.name, msgspec.json.encode(block.input).decode())


def _text_parts(content: str | list[wire.TextBlock]) -> tuple[ContentPart, ...]:
    return (TextPart(content),) if isinstance(content, str) else tuple(TextPart(block.text) for block in content)


def _part(block: wire.UserBlock, path: str, untranslatable: list[InvalidRequest]) -> ContentPart:
    match block:
        case wire.TextBlock(text):
            return TextPart(text)
        case wire.ImageBlock(wire.URLSource(url)):
            return ImagePart(url=url)
        case wire.ImageBlock(wire.Base64Source(media_type, data)) if is_base64(data):
            return ImagePart(media_type=media_type, data=data)
        case wire.ImageBlock(wire.Base64Source()):
            raise InvalidRequest(f"{path}.source.data: Input should be base64.", f"{path}.source.data")
        case wire.ImageBlock():
            untranslatable.append(_unsupported(f"{path}.source", "images by file id are"))
            return OpaquePart(TOKENS_PER_IMAGE)
        case wire.DocumentBlock(content) | wire.SearchResultBlock(content):
            return _opaque(content, path, "document and search_result blocks are", untranslatable)
        case UnknownContentPart(content):
            return _opaque(content, path, "blocks of this type are", untranslatable)
        case _:
            raise InvalidRequest(f"{path}: a tool_result block is not expected here.", path)


def _opaque(value: Any, path: str, what: str, untranslatable: list[InvalidRequest]) -> OpaquePart:
    check_nesting(value, path, _to_invalid_request)
    untranslatable.append(_unsupported(path, what))
    return OpaquePart(estimate_opaque_tokens(value))


def _check_tool_results(messages: Sequence[ChatMessage]) -> None:
    """Require that every tool_use has a result in the next user message, and that every result has a tool_use."""
    open_calls: set[str] = set()
    for message in messages:
        if message.role is Role.TOOL:
            if message.tool_call_id not in open_calls:
                raise InvalidRequest(
                    "messages: unexpected `tool_use_id` found in `tool_result` blocks. Each `tool_result` block must "
                    "have a corresponding `tool_use` block in the previous message.",
                    "messages",
                )
            open_calls.remove(message.tool_call_id)
            continue
        if open_calls:
            break
        open_calls = {call.id for call in message.tool_calls}
    if open_calls:
        raise InvalidRequest(
            "messages: `tool_use` ids were found without `tool_result` blocks immediately after: "
            f"{', '.join(sorted(open_calls))}.",
            "messages",
        )


def _tool(tool: wire.AnthropicTool, path: str, untranslatable: list[InvalidRequest]) -> Tool:
    if tool.type not in (None, "custom"):
        untranslatable.append(_unsupported(f"{path}.type", "server tools are"))
        return Tool(tool.name or "", tool.type, {})
    if tool.name is None:
        raise InvalidRequest(f"{path}.name: Field required", f"{path}.name")
    if tool.input_schema is None:
        raise InvalidRequest(f"{path}.input_schema: Field required", f"{path}.input_schema")
    check_nesting(tool.input_schema, f"{path}.input_schema", _to_invalid_request)
    return Tool(tool.name, tool.description, tool.input_schema, tool.strict)


def _tool_choice(choice: wire.AnthropicToolChoice | None, tools: Sequence[Tool]) -> ToolChoice | None:
    if choice is None:
        return None
    if choice.type == "any" and tools:
        return ToolChoice("required")
    if choice.type == "tool" and choice.name in {tool.name for tool in tools}:
        return ToolChoice("named", choice.name)
    if choice.type == "auto" or choice.type == "none":
        return ToolChoice(choice.type)
    raise InvalidRequest("tool_choice: it names no tool of `tools`.", "tool_choice")


def _parallel_tool_calls(choice: wire.AnthropicToolChoice | None) -> bool | None:
    if choice is None or choice.disable_parallel_tool_use is None:
        return None
    return not choice.disable_parallel_tool_use


def _output_format(config: wire.OutputConfig | None) -> OutputFormat | None:
    if config is None or config.format is None:
        return None
    check_nesting(config.format.schema, "output_config.format.schema", _to_invalid_request)
    # This dialect always enforces the schema, and its callers rely on that.
    return OutputFormat("json_schema", schema=config.format.schema, strict=True)


def _tier(body: wire.MessagesBody) -> Tier:
    # `service_tier` only selects whether capacity bought in advance may be used.
    tier = to_tier(body.speed, body.inference_geo)
    return Tier.OTHER if tier is Tier.STANDARD and body.inference_geo not in (None, "global") else tier


def to_tier(speed: object, inference_geo: object) -> Tier:
    if inference_geo == "us":
        return Tier.FAST_US if speed == "fast" else Tier.US
    return Tier.FAST if speed == "fast" else Tier.STANDARD


def _effort(body: wire.MessagesBody) -> str | None:
    if body.output_config is not None and body.output_config.effort is not None:
        return body.output_config.effort
    match body.thinking:
        case wire.ThinkingDisabled():
            return "none"
        case wire.ThinkingEnabled(budget):
            return "low" if budget < 4096 else "medium" if budget < 16_384 else "high"
        case _:
            return None


def _reject_sampling(body: wire.MessagesBody) -> None:
    for field, value in (("temperature", body.temperature), ("top_p", body.top_p), ("top_k", body.top_k)):
        # Even if it is the default value.
        if value is not None:
            raise InvalidRequest(f"{field}: not supported in anthropic-version {STRICT_VERSION}", field)


def _to_invalid_request(issue: ValidationIssue) -> InvalidRequest:
    match issue.kind:
        case "missing":
            return InvalidRequest(f"{issue.path}: Field required", issue.path)
        case "unknown":
            return InvalidRequest(f"{issue.path}: Extra inputs are not permitted", issue.path)
        case "value":
            return InvalidRequest(f"{issue.path or 'body'}: {issue.detail}", issue.path)
        case "malformed":
            return InvalidRequest(f"The request body is not valid JSON: {issue.detail}")


# Answers

_STOP_REASONS = {
    FinishReason.STOP: "end_turn",
    FinishReason.LENGTH: "max_tokens",
    FinishReason.TOOL_CALLS: "tool_use",
    FinishReason.CONTENT_FILTER: "refusal",
}


def encode_completion(completion: Completion) -> JSONObject:
    """Return the body of a message. Without usage its counts are zero: this dialect requires them."""
    return {
        "id": completion.id,
        "type": "message",
        "role": "assistant",
        "model": completion.model,
        "content": _encode_content(completion),
        "stop_reason": _stop_reason(completion),
        "stop_sequence": None,
        "stop_details": None,
        "usage": encode_usage(completion.usage or Usage(), completion.tier),
    }


def encode_usage(usage: Usage, tier: Tier | None = None) -> JSONObject:
    return {
        # In this dialect cached and cache-written tokens are not part of the input.
        "input_tokens": usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cached_input_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_tokens - usage.cache_write_1h_tokens,
            "ephemeral_1h_input_tokens": usage.cache_write_1h_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
        "server_tool_use": None,
        "service_tier": "standard",
        "inference_geo": "us" if tier in (Tier.US, Tier.FAST_US) else "global",
        "speed": "fast" if tier in (Tier.FAST, Tier.FAST_US) else "standard",
    }


def encode_token_count(request: ChatRequest) -> JSONObject:
    """Return the estimated tokens of a request (`providers.token_estimation`)."""
    return {"input_tokens": estimate_input_tokens(request)}


def to_tool_input(arguments: str) -> JSONObject:
    """Return a tool call's arguments as an object, which this dialect requires; other text is wrapped, not lost.

    A model may write invalid JSON, most often when max_tokens truncates its answer.
    """
    try:
        value = msgspec.json.decode(arguments or "{}")
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {"INVALID_JSON": arguments}


def _encode_content(completion: Completion) -> list[JSONObject]:
    blocks: list[JSONObject] = []
    if completion.reasoning:
        # A signature proves that thinking is the vendor's own. Without one it is shown, but cannot be sent back.
        blocks.append({"type": "thinking", "thinking": completion.reasoning, "signature": ""})
    if text := completion.text or completion.refusal:
        blocks.append({"type": "text", "text": text})
    blocks.extend(
        {"type": "tool_use", "id": call.id, "name": call.name, "input": to_tool_input(call.arguments)}
        for call in completion.tool_calls
    )
    return blocks


def _stop_reason(completion: Completion) -> str:
    if completion.refusal is not None:
        return "refusal"
    return stop_reason(completion.finish_reason, has_calls=bool(completion.tool_calls))


def stop_reason(reason: FinishReason, *, has_calls: bool) -> str:
    """Return the stop reason of this dialect."""
    # OpenAI sends "stop" after a tool call that was forced by name; in this dialect only "tool_use" runs the tool.
    if has_calls and reason is FinishReason.STOP:
        return "tool_use"
    return _STOP_REASONS[reason]
