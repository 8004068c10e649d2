"""OpenAI's Chat Completions API: parses the request and rejects what OpenAI rejects."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from simulator.catalogue import ALWAYS_REASONING, EFFORT_BOUND_PREFIXES, REASONING_PREFIXES
from simulator.decode import decoder_for, to_openai_error
from simulator.errors import ApiError
from simulator.neutral_request import NeutralRequest, OfferedTools, Tool, ToolMode, seed_for, to_compact_json
from simulator.tokens import FILE_TOKENS, IMAGE_TOKENS, MESSAGE_TOKENS, PROMPT_TOKENS, tokens_of

FunctionName = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
Ignored = Any


class ContentPart(Struct):
    type: Literal["text", "image_url", "input_audio", "file", "refusal"]
    text: str = ""
    refusal: str = ""
    image_url: dict[str, Any] | None = None


class AssistantFunctionCall(Struct):
    name: str
    arguments: str


class AssistantCustomCall(Struct):
    name: str
    input: str


class AssistantToolCall(Struct):
    id: str
    type: Literal["function", "custom"]
    function: AssistantFunctionCall | None = None
    custom: AssistantCustomCall | None = None


class ChatMessage(Struct):
    role: Literal["developer", "system", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None
    tool_calls: list[AssistantToolCall] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None


class FunctionTool(Struct):
    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class CustomTool(Struct):
    name: FunctionName
    description: str | None = None
    format: Any = None


class OfferedTool(Struct):
    type: Literal["function", "custom"]
    function: FunctionTool | None = None
    custom: CustomTool | None = None


class NamedTool(Struct):
    name: str


class AllowedTools(Struct):
    mode: Literal["auto", "required"]
    tools: list[OfferedTool]


class ToolChoice(Struct):
    type: Literal["function", "custom", "allowed_tools"]
    function: NamedTool | None = None
    custom: NamedTool | None = None
    allowed_tools: AllowedTools | None = None


class JsonSchema(Struct):
    name: FunctionName
    description: str | None = None
    # Not `schema`, which might clash with a future attribute of msgspec.
    definition: dict[str, Any] = msgspec.field(name="schema", default_factory=dict)
    strict: bool | None = None


class ResponseFormat(Struct):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StreamOptions(Struct):
    include_usage: bool = False
    include_obfuscation: bool = False


class ChatRequest(Struct, forbid_unknown_fields=True):
    """The body. Fields of type `Ignored` are accepted, and have no effect."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    # Azure's dated surface names it in the path instead.
    model: str = ""
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stop: str | Annotated[list[str], Meta(max_length=4)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: Annotated[list[OfferedTool], Meta(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    metadata: Annotated[dict[str, str], Meta(max_length=16)] | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast"] | None = None
    audio: Ignored = None
    function_call: Ignored = None
    functions: Ignored = None
    logit_bias: Ignored = None
    modalities: Ignored = None
    moderation: Ignored = None
    prediction: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_options: Ignored = None
    prompt_cache_retention: Ignored = None
    safety_identifier: Ignored = None
    seed: Ignored = None
    store: Ignored = None
    user: Ignored = None
    verbosity: Ignored = None
    web_search_options: Ignored = None


decode = decoder_for(ChatRequest, to_openai_error)


def read_chat(body: bytes, model: str) -> NeutralRequest:
    """Return the request in neutral form; `model` has no controls. Raises `ApiError` if OpenAI would reject it."""
    request = decode(body)
    if not model:
        raise ApiError(400, "you must provide a model parameter")
    check_parameters(request, model)
    check_tool_turns(request.messages)
    texts = [text for message in request.messages for text in texts_of(message)]
    stream_options = request.stream_options or StreamOptions()
    return NeutralRequest(
        model=model,
        seed=seed_for(model, texts),
        topic=topic_of(request.messages),
        input_tokens=input_tokens_of(request),
        stream=request.stream is True,
        max_tokens=request.max_completion_tokens or request.max_tokens,
        stop=to_stop(request.stop),
        choices=request.n or 1,
        logprobs=(request.top_logprobs or 0) if request.logprobs else None,
        tools=to_tools(request),
        schema=to_schema(request.response_format),
        include_usage=stream_options.include_usage,
        obfuscated=stream_options.include_obfuscation,
        service_tier={"fast": "priority", "flex": "flex", "priority": "priority"}.get(
            request.service_tier or "", "default"
        ),
    )


def check_parameters(request: ChatRequest, model: str) -> None:
    if request.stream_options is not None and not request.stream:
        raise ApiError(
            400, "The 'stream_options' parameter is only allowed when 'stream' is enabled.", param="stream_options"
        )
    if request.top_logprobs is not None and not request.logprobs:
        raise ApiError(400, "'top_logprobs' is only allowed when 'logprobs' is enabled.", param="top_logprobs")
    if request.max_tokens is not None and model.startswith(REASONING_PREFIXES):
        raise _unsupported_parameter(
            "max_tokens", "is not supported with this model. Use 'max_completion_tokens' instead."
        )
    if request.tool_choice is not None and not request.tools:
        raise ApiError(400, "'tool_choice' is only allowed when 'tools' are specified.", param="tool_choice")
    if request.parallel_tool_calls is not None and not request.tools:
        raise ApiError(
            400, "'parallel_tool_calls' is only allowed when 'tools' are specified.", param="parallel_tool_calls"
        )
    if (
        request.response_format
        and request.response_format.type == "json_schema"
        and not request.response_format.json_schema
    ):
        raise _missing_parameter("response_format.json_schema")
    if model.startswith(EFFORT_BOUND_PREFIXES):
        _check_reasoning_effort(request, model)


def _check_reasoning_effort(request: ChatRequest, model: str) -> None:
    always = model.startswith(ALWAYS_REASONING)
    effort = request.reasoning_effort or ("medium" if always else "none")
    if effort == "max" or (always and effort == "none"):
        raise ApiError(
            400,
            f"Unsupported value: 'reasoning_effort' does not support '{effort}' with this model.",
            code="unsupported_value",
            param="reasoning_effort",
        )
    if effort == "none":
        return
    if request.tools:
        raise ApiError(
            400,
            f"Function tools with reasoning_effort are not supported for {model} in /v1/chat/completions. "
            "Please use /v1/responses instead or set reasoning_effort to 'none'.",
            param="reasoning_effort",
        )
    for name in ("temperature", "top_p", "logprobs", "top_logprobs"):
        if getattr(request, name) is not None:
            raise ApiError(
                400,
                f"Unsupported value: '{name}' is not supported with this model unless 'reasoning_effort' is 'none'.",
                code="unsupported_value",
                param=name,
            )


def check_tool_turns(messages: list[ChatMessage]) -> None:
    """Check that the message after tool calls is the result of each, and that there is no result without a call."""
    open_calls: set[str] = set()
    for index, message in enumerate(messages):
        if message.role == "tool":
            if message.tool_call_id not in open_calls:
                raise _invalid_turn(
                    index, "messages with role 'tool' must be a response to a preceding message with 'tool_calls'."
                )
            open_calls.discard(message.tool_call_id)
            continue
        if open_calls:
            raise _missing_tool_results(index, open_calls)
        open_calls = {call.id for call in message.tool_calls or ()}
    if open_calls:
        raise _missing_tool_results(len(messages), open_calls)


def texts_of(message: ChatMessage) -> list[str]:
    """Everything in a message that is counted as text, in order."""
    match message.content:
        case str():
            texts = [message.content]
        case None:
            texts = []
        case parts:
            texts = [
                part.refusal if part.type == "refusal" else part.text
                for part in parts
                if part.type in ("text", "refusal")
            ]
    if message.refusal:
        texts.append(message.refusal)
    for call in message.tool_calls or ():
        if call.function:
            texts += [call.function.name, call.function.arguments]
        if call.custom:
            texts += [call.custom.name, call.custom.input]
    return texts


def input_tokens_of(request: ChatRequest) -> int:
    tokens = PROMPT_TOKENS
    for message in request.messages:
        tokens += MESSAGE_TOKENS + sum(map(tokens_of, texts_of(message)))
        if isinstance(message.content, list):
            tokens += sum(_tokens_of_media(part) for part in message.content)
    tokens += sum(tool.tokens for tool in map(to_tool, request.tools or ()))
    if request.response_format and request.response_format.json_schema:
        tokens += tokens_of(to_compact_json(request.response_format.json_schema.definition))
    return tokens


def topic_of(messages: list[ChatMessage]) -> str:
    said = (message for message in reversed(messages) if message.role == "user")
    return next((" ".join(texts_of(message)) for message in said), "")


def to_stop(stop: str | list[str] | None) -> tuple[str, ...]:
    words = [stop] if isinstance(stop, str) else stop or []
    return tuple(word for word in words if word)


def to_tool(offered: OfferedTool) -> Tool:
    if offered.type == "custom" and offered.custom:
        return Tool(offered.custom.name, offered.custom.description or "", None, is_custom=True)
    if offered.function:
        return Tool(offered.function.name, offered.function.description or "", offered.function.parameters)
    raise _missing_parameter(f"tools[0].{offered.type}")


def to_tools(request: ChatRequest) -> OfferedTools:
    offered = tuple(map(to_tool, request.tools or ()))
    mode, allowed = _to_choice(request.tool_choice)
    unknown = set(allowed) - {tool.name for tool in offered}
    if unknown:
        raise ApiError(
            400, f"Invalid value for 'tool_choice': tool '{min(unknown)}' not found in 'tools'.", param="tool_choice"
        )
    return OfferedTools(offered, mode, allowed, parallel=request.parallel_tool_calls is not False and len(allowed) != 1)


def _to_choice(choice: str | ToolChoice | None) -> tuple[ToolMode, tuple[str, ...]]:
    match choice:
        case None:
            return ToolMode.AUTO, ()
        case str():
            return ToolMode(choice), ()
        case ToolChoice(allowed_tools=AllowedTools(mode=mode, tools=tools)):
            return ToolMode(mode), tuple(to_tool(tool).name for tool in tools)
        case ToolChoice():
            named = choice.function or choice.custom
            if named is None:
                raise _missing_parameter(f"tool_choice.{choice.type}")
            return ToolMode.REQUIRED, (named.name,)


def to_schema(response_format: ResponseFormat | None) -> Any:
    match response_format:
        case ResponseFormat(type="json_schema", json_schema=JsonSchema(definition=schema)):
            return schema
        case ResponseFormat(type="json_object"):
            return {"type": "object", "properties": {"title": {"type": "string"}, "summary": {"type": "string"}}}
        case _:
            return None


def _tokens_of_media(part: ContentPart) -> int:
    match part.type:
        case "image_url":
            return IMAGE_TOKENS
        case "input_audio" | "file":
            return FILE_TOKENS
        case _:
            return 0


def _missing_parameter(param: str) -> ApiError:
    return ApiError(400, f"Missing required parameter: '{param}'.", code="missing_required_parameter", param=param)


def _unsupported_parameter(param: str, why: str) -> ApiError:
    return ApiError(400, f"Unsupported parameter: '{param}' {why}", code="unsupported_parameter", param=param)


def _invalid_turn(index: int, why: str) -> ApiError:
    return ApiError(400, f"Invalid parameter: {why}", param=f"messages[{index}].role")


def _missing_tool_results(index: int, call_ids: set[str]) -> ApiError:
    return ApiError(
        400,
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. "
        f"The following tool_call_ids did not have response messages: {', '.join(sorted(call_ids))}",
        param=f"messages[{index}].role",
    )
