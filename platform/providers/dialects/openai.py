"""OpenAI's dialect, server side: callers' bodies to neutral requests, neutral answers to response bodies."""

import base64
import sys
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec

from providers.dialects import openai_wire as wire
from providers.dialects.validation import (
    DecodedBody,
    UnknownContentPart,
    ValidationIssue,
    check_nesting,
    decode_body,
    parse_data_url,
    precompile_decoders,
)
from providers.invalid_request import InvalidRequest
from providers.tiers import Tier
from providers.token_estimation import estimate_opaque_tokens
from providers.types import (
    ChatMessage,
    ChatRequest,
    Completion,
    ContentPart,
    Dialect,
    EmbeddingRequest,
    Embeddings,
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

Body = TypeVar("Body", bound=wire.ChatBody)

EncodingFormat: TypeAlias = Literal["float", "base64"]

#: The schema of a function without parameters.
NO_PARAMETERS: JSONObject = {"type": "object", "properties": {}}

#: The limit of inputs of one embeddings request.
MAX_EMBEDDING_INPUTS = 2048

_KNOWN_FIELDS = frozenset(wire.ChatBody.__struct_fields__)
precompile_decoders(wire.ChatBody, wire.EmbeddingBody)

#: The tier of each `service_tier`, except "auto".
SERVICE_TIERS = {"default": Tier.STANDARD, "flex": Tier.FLEX, "priority": Tier.PRIORITY, "fast": Tier.PRIORITY}
_SERVICE_TIER_NAMES = {Tier.FLEX: "flex", Tier.PRIORITY: "priority"}

IMAGE_MEDIA_TYPES = ("image/png", "image/jpeg", "image/gif", "image/webp")

# Requests


def decode_chat(data: bytes | Mapping[str, Any]) -> ChatRequest:
    """Return the chat request of a body, or raise InvalidRequest."""
    return to_chat_request(parse_chat(data))


def decode_embedding(data: bytes | Mapping[str, Any]) -> EmbeddingRequest:
    """Return the embedding request of a body, or raise InvalidRequest."""
    return to_embedding_request(parse_embedding(data))


def parse_chat(data: bytes | Mapping[str, Any]) -> DecodedBody[wire.ChatBody]:
    """Return the body as a struct, for callers that also need fields outside the request (`stream`)."""
    return parse_chat_as(data, wire.ChatBody)


def parse_chat_as(data: bytes | Mapping[str, Any], shape: type[Body]) -> DecodedBody[Body]:
    """Return the body as a subclass of `ChatBody` with further fields."""
    decoded = decode_body(data, shape, _to_invalid_request, wire.PART_TYPES)
    if decoded.body.stream_options is not None and not decoded.body.stream:
        raise InvalidRequest(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options"
        )
    return decoded


def parse_embedding(data: bytes | Mapping[str, Any]) -> DecodedBody[wire.EmbeddingBody]:
    """Return the body as a struct, for callers that also need `encoding_format`."""
    return decode_body(data, wire.EmbeddingBody, _to_invalid_request)


def to_chat_request(decoded: DecodedBody[wire.ChatBody], gateway_fields: Collection[str] = ()) -> ChatRequest:
    """Return the request, without the fields named `gateway_fields`, which are not sent to a provider."""
    body = decoded.body
    fields = decoded.fields
    if gateway_fields:
        fields = {name: value for name, value in fields.items() if name not in gateway_fields}
    untranslatable = [*_unknown_fields(fields), *_untranslatable_fields(body)]
    messages = tuple(_message(message, f"messages.{i}", untranslatable) for i, message in enumerate(body.messages))
    _check_tool_results(messages)
    tools = tuple(_tool(tool, f"tools.{index}", untranslatable) for index, tool in enumerate(body.tools or ()))
    tool_choice = _tool_choice(body.tool_choice, tools, untranslatable)
    return ChatRequest(
        model=body.model,
        messages=messages,
        max_tokens=_max_tokens(body),
        choice_count=body.n or 1,
        temperature=body.temperature,
        top_p=body.top_p,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        stop=_stop(body.stop),
        tools=tools,
        tool_choice=tool_choice,
        parallel_tool_calls=body.parallel_tool_calls,
        output_format=_output_format(body.response_format),
        reasoning_effort=body.reasoning_effort,
        verbosity=body.verbosity,
        seed=body.seed,
        user=body.safety_identifier or body.user,
        tier=_tier(body.service_tier),
        original=OriginalRequest(Dialect.OPENAI, fields, untranslatable=untranslatable[0] if untranslatable else None),
    )


def to_embedding_request(decoded: DecodedBody[wire.EmbeddingBody]) -> EmbeddingRequest:
    body = decoded.body
    return EmbeddingRequest(
        model=body.model,
        inputs=_embedding_inputs(body.input),
        dimensions=body.dimensions,
        user=body.user,
        extra_fields={
            name: msgspec.json.decode(value)
            for name, value in decoded.fields.items()
            if name not in body.__struct_fields__
        },
    )


# What no other dialect can express is added to `untranslatable`; the neutral form holds a placeholder of its tokens.


def _unknown_fields(fields: Collection[str]) -> Iterator[InvalidRequest]:
    for name in fields:
        if name not in _KNOWN_FIELDS:
            yield _to_invalid_request(ValidationIssue("unknown", name, name))


def _untranslatable_fields(body: wire.ChatBody) -> Iterator[InvalidRequest]:
    is_used = {
        "n": (body.n or 1) > 1,
        "logit_bias": bool(body.logit_bias),
        "logprobs": bool(body.logprobs),
        "top_logprobs": bool(body.top_logprobs),
        "modalities": body.modalities not in (None, [], ["text"]),
        "audio": body.audio is not None,
        "web_search_options": body.web_search_options is not None,
        "moderation": body.moderation is not None,
        "functions": body.functions is not None,
        "function_call": body.function_call is not None,
    }
    for name, used in is_used.items():
        if used:
            yield _unsupported(name, f"'{name}' is not supported by any provider of this model.")


def _message(message: wire.OpenAIMessage, path: str, untranslatable: list[InvalidRequest]) -> ChatMessage:
    match message:
        case wire.OpenAISystemMessage(content) | wire.OpenAIDeveloperMessage(content):
            return ChatMessage(Role.SYSTEM, _text_parts(content, f"{path}.content", untranslatable))
        case wire.OpenAIUserMessage(content):
            return ChatMessage(Role.USER, _user_parts(content, f"{path}.content", untranslatable))
        case wire.OpenAIAssistantMessage():
            return _assistant_message(message, path, untranslatable)
        case wire.OpenAIToolMessage(tool_call_id, content):
            return ChatMessage(
                Role.TOOL, _text_parts(content, f"{path}.content", untranslatable), tool_call_id=tool_call_id
            )
        case wire.OpenAIFunctionMessage(content):
            check_nesting(content, f"{path}.content", _to_invalid_request)
            untranslatable.append(
                _unsupported(f"{path}.role", "Messages with role 'function' are not supported. Use role 'tool'.")
            )
            return ChatMessage(Role.USER, (OpaquePart(estimate_opaque_tokens(content)),))


def _assistant_message(
    message: wire.OpenAIAssistantMessage, path: str, untranslatable: list[InvalidRequest]
) -> ChatMessage:
    parts = _assistant_parts(message, path, untranslatable)
    if message.audio is not None:
        parts += (_opaque(message.audio, f"{path}.audio", "Audio", untranslatable),)
    if message.function_call is not None:
        parts += (_opaque(message.function_call, f"{path}.function_call", "'function_call'", untranslatable),)
    calls = tuple(
        _tool_call(call, f"{path}.tool_calls.{i}", untranslatable) for i, call in enumerate(message.tool_calls or ())
    )
    if not parts and not calls:
        raise InvalidRequest(
            f"Invalid value for '{path}.content': an assistant message needs content or tool calls.",
            f"{path}.content",
            "invalid_value",
        )
    return ChatMessage(Role.ASSISTANT, parts, tool_calls=calls)


def _assistant_parts(
    message: wire.OpenAIAssistantMessage, path: str, untranslatable: list[InvalidRequest]
) -> tuple[ContentPart, ...]:
    # A refusal is the text of the message.
    match message.content:
        case None:
            return (TextPart(message.refusal),) if message.refusal else ()
        case str(text):
            return (TextPart(text),)
        case parts:
            return tuple(_part(part, f"{path}.content.{index}", untranslatable) for index, part in enumerate(parts))


def _text_parts(content: wire.TextContent, path: str, untranslatable: list[InvalidRequest]) -> tuple[ContentPart, ...]:
    if isinstance(content, str):
        return (TextPart(content),)
    return tuple(_part(part, f"{path}.{index}", untranslatable) for index, part in enumerate(content))


def _user_parts(content: wire.UserContent, path: str, untranslatable: list[InvalidRequest]) -> tuple[ContentPart, ...]:
    if isinstance(content, str):
        return (TextPart(content),)
    return tuple(_part(part, f"{path}.{index}", untranslatable) for index, part in enumerate(content))


def _part(part: wire.OpenAIContentPart, path: str, untranslatable: list[InvalidRequest]) -> ContentPart:
    match part:
        case wire.TextContentPart(text) | wire.RefusalContentPart(text):
            return TextPart(text)
        case wire.ImageContentPart(image):
            return _image(image, f"{path}.image_url.url")
        case wire.AudioContentPart(audio):
            return _opaque(audio, path, "Audio input", untranslatable)
        case wire.FileContentPart(file):
            return _opaque(file, path, "A file", untranslatable)
        case UnknownContentPart(unknown):
            return _opaque(unknown, path, "This type of content", untranslatable)


def _opaque(value: Any, path: str, what: str, untranslatable: list[InvalidRequest]) -> OpaquePart:
    check_nesting(value, path, _to_invalid_request)
    untranslatable.append(_unsupported(path, f"{what} is not supported by any provider of this model."))
    return OpaquePart(estimate_opaque_tokens(value))


def _image(image: wire.ImageURL, path: str) -> ImagePart:
    if image.url.startswith(("https://", "http://")):
        return ImagePart(url=image.url, detail=image.detail)
    data = parse_data_url(image.url)
    if data is None or data[0] not in IMAGE_MEDIA_TYPES:
        raise InvalidRequest(
            f"Invalid value for '{path}': expected an http(s) URL, or a base64 data URL of "
            f"{', '.join(IMAGE_MEDIA_TYPES)}.",
            path,
            "invalid_value",
        )
    return ImagePart(media_type=data[0], data=data[1], detail=image.detail)


def _tool_call(
    call: wire.FunctionToolCall | wire.CustomToolCall, path: str, untranslatable: list[InvalidRequest]
) -> ToolCall:
    if isinstance(call, wire.CustomToolCall):
        untranslatable.append(_unsupported(path, "Custom tools are not supported. Use function tools."))
        return ToolCall(call.id, "custom", _to_json_text(call.custom, path))
    return ToolCall(call.id, call.function.name, call.function.arguments)


def _check_tool_results(messages: Sequence[ChatMessage]) -> None:
    """Require that every tool call has a result before the next turn, and that every result has a call."""
    open_calls: set[str] = set()
    for index, message in enumerate(messages):
        if message.role is Role.TOOL:
            if message.tool_call_id not in open_calls:
                raise InvalidRequest(
                    "Invalid parameter: messages with role 'tool' must be a response to a preceding message with "
                    "'tool_calls'.",
                    f"messages.{index}.tool_call_id",
                )
            open_calls.remove(message.tool_call_id)
            continue
        _reject_unanswered_calls(open_calls, index)
        open_calls = {call.id for call in message.tool_calls}
    _reject_unanswered_calls(open_calls, len(messages))


def _reject_unanswered_calls(open_calls: set[str], index: int) -> None:
    if open_calls:
        raise InvalidRequest(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            "'tool_call_id'. The following tool_call_ids did not have response messages: "
            f"{', '.join(sorted(open_calls))}",
            f"messages.{index}",
        )


def _max_tokens(body: wire.ChatBody) -> int | None:
    if body.max_tokens is not None and body.max_completion_tokens is not None:
        raise InvalidRequest(
            "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.",
            "max_tokens",
            "invalid_parameter_combination",
        )
    return body.max_completion_tokens or body.max_tokens


def _stop(stop: str | list[str] | None) -> tuple[str, ...]:
    if isinstance(stop, str):
        return (stop,) if stop else ()
    return tuple(stop or ())


def _tool(tool: wire.FunctionTool | wire.CustomTool, path: str, untranslatable: list[InvalidRequest]) -> Tool:
    if isinstance(tool, wire.CustomTool):
        untranslatable.append(_unsupported(path, "Custom tools are not supported. Use function tools."))
        return Tool("custom", _to_json_text(tool.custom, path), NO_PARAMETERS)
    function = tool.function
    check_nesting(function.parameters, f"{path}.function.parameters", _to_invalid_request)
    return Tool(function.name, function.description, function.parameters or NO_PARAMETERS, function.strict)


def _tool_choice(
    choice: str | wire.NamedToolChoice | wire.AllowedToolsChoice | wire.CustomToolChoice | None,
    tools: Sequence[Tool],
    untranslatable: list[InvalidRequest],
) -> ToolChoice | None:
    match choice:
        case None:
            return None
        case "none":
            return ToolChoice("none")
        case "auto":
            return ToolChoice("auto")
        case "required" if tools:
            return ToolChoice("required")
        case wire.NamedToolChoice(function) if function.name in {tool.name for tool in tools}:
            return ToolChoice("named", function.name)
        case wire.NamedToolChoice() | "required":
            raise InvalidRequest(
                "Invalid value for 'tool_choice': it names no tool of 'tools'.", "tool_choice", "invalid_value"
            )
        case _:
            untranslatable.append(
                _unsupported("tool_choice", "Only 'none', 'auto', 'required' and a function are supported.")
            )
            return None


def _output_format(
    chosen: wire.TextFormat | wire.JSONObjectFormat | wire.JSONSchemaFormat | None,
) -> OutputFormat | None:
    match chosen:
        case None:
            return None
        case wire.TextFormat():
            return OutputFormat("text")
        case wire.JSONObjectFormat():
            return OutputFormat("json_object")
        case wire.JSONSchemaFormat(schema):
            check_nesting(schema.schema, "response_format.json_schema.schema", _to_invalid_request)
            return OutputFormat("json_schema", schema.name, schema.description, schema.schema, schema.strict)


def _tier(service_tier: str | None) -> Tier:
    if service_tier is None or service_tier == "auto":
        return Tier.STANDARD
    return SERVICE_TIERS.get(service_tier, Tier.OTHER)


def _embedding_inputs(value: str | list[str | int | list[int]]) -> tuple[str, ...] | tuple[tuple[int, ...], ...]:
    if isinstance(value, str):
        value = [value]
    texts = tuple(item for item in value if isinstance(item, str))
    tokens = tuple(item for item in value if isinstance(item, int))
    lists = tuple(tuple(item) for item in value if isinstance(item, list))
    # Exactly one kind: texts, one list of tokens, or several such lists; none of them empty.
    if len(texts) == len(value) <= MAX_EMBEDDING_INPUTS and all(texts):
        return texts
    if len(tokens) == len(value) and min(tokens) >= 0:
        return (tokens,)
    if len(lists) == len(value) <= MAX_EMBEDDING_INPUTS and all(item and min(item) >= 0 for item in lists):
        return lists
    raise InvalidRequest(
        f"Invalid value for 'input': expected a text, texts, tokens or lists of tokens, none empty, at most "
        f"{MAX_EMBEDDING_INPUTS}.",
        "input",
        "invalid_value",
    )


def _to_json_text(value: Any, path: str) -> str:
    check_nesting(value, path, _to_invalid_request)
    return msgspec.json.encode(value).decode()


def _unsupported(param: str, message: str) -> InvalidRequest:
    return InvalidRequest(message, param, "unsupported_parameter")


def _to_invalid_request(issue: ValidationIssue) -> InvalidRequest:
    match issue.kind:
        case "missing":
            return InvalidRequest(
                f"Missing required parameter: '{issue.path}'.", issue.path, "missing_required_parameter"
            )
        case "unknown":
            return InvalidRequest(
                f"Unrecognized request argument supplied: {issue.path}", issue.path, "unknown_parameter"
            )
        case "value":
            where = f"'{issue.path}'" if issue.path else "the body"
            return InvalidRequest(f"Invalid value for {where}: {issue.detail}.", issue.path, "invalid_value")
        case "malformed":
            return InvalidRequest(f"We could not parse the JSON body of your request: {issue.detail}.")


# Answers


def encode_completion(completion: Completion, *, created: int) -> JSONObject:
    """Return the body of a `chat.completion`; `created` is in Unix seconds. Without usage the field is omitted."""
    body: JSONObject = {
        "id": completion.id,
        "object": "chat.completion",
        "created": created,
        "model": completion.model,
        "choices": [
            {
                "index": 0,
                "message": _encode_message(completion),
                "logprobs": None,
                "finish_reason": completion.finish_reason.value,
            }
        ],
    }
    if completion.usage is not None:
        body["usage"] = encode_usage(completion.usage)
    service_tier = _SERVICE_TIER_NAMES.get(completion.tier, "default") if completion.tier else "default"
    return {**body, "service_tier": service_tier, "system_fingerprint": None}


def encode_usage(usage: Usage) -> JSONObject:
    prompt_details = {"cached_tokens": usage.cached_input_tokens, "audio_tokens": 0}
    if usage.cache_write_tokens:
        prompt_details["cache_write_tokens"] = usage.cache_write_tokens
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": prompt_details,
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def encode_embeddings(embeddings: Embeddings, encoding_format: EncodingFormat | None = None) -> JSONObject:
    """Return the body of an embeddings list, each vector as numbers or as base64 of little-endian float32."""
    pack = _base64_vector if encoding_format == "base64" else list
    body: JSONObject = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": pack(vector)}
            for index, vector in enumerate(embeddings.vectors)
        ],
        "model": embeddings.model,
    }
    if embeddings.usage is not None:
        tokens = embeddings.usage.input_tokens
        body["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
    return body


def _encode_message(completion: Completion) -> JSONObject:
    message: JSONObject = {
        "role": "assistant",
        "content": completion.text or None if completion.tool_calls or completion.refusal else completion.text,
        "refusal": completion.refusal,
        "annotations": [],
    }
    if completion.reasoning:
        # Not in OpenAI's API, but common among compatible servers.
        message["reasoning_content"] = completion.reasoning
    if completion.tool_calls:
        message["tool_calls"] = [encode_tool_call(call) for call in completion.tool_calls]
    return message


def encode_tool_call(call: ToolCall) -> JSONObject:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _base64_vector(vector: Sequence[float]) -> str:
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()
