"""Token estimates, rather too high than too low: for reservations, and for usage that a provider did not report.

No tokenizer: each vendor has its own, most are not public, and the public one needs a download. English prose has
about four characters a token and code about three; other scripts take about two bytes of UTF-8, or fewer tokens.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from providers.types import (
    ChatMessage,
    Completion,
    ContentPart,
    EmbeddingRequest,
    InferenceRequest,
    OpaquePart,
    TextPart,
    Tool,
)

#: No text has fewer tokens than its estimate divided by this: a token is rarely longer than six characters.
MAX_OVERESTIMATE = 2

ASCII_CHARACTERS_PER_TOKEN = 3
OTHER_BYTES_PER_TOKEN = 2

#: Role and delimiters of a message; start of the answer.
TOKENS_PER_MESSAGE = 4
TOKENS_PER_REQUEST = 3

#: A large image at both vendors; an image at low detail.
TOKENS_PER_IMAGE = 1600
TOKENS_PER_SMALL_IMAGE = 85


def estimate_text_tokens(text: str) -> int:
    """Return the estimated tokens of a text; 0 for an empty one."""
    ascii_count = len(text.encode("ascii", "ignore"))
    other_bytes = len(text.encode("utf-8", "replace")) - ascii_count
    return -(-ascii_count // ASCII_CHARACTERS_PER_TOKEN) + -(-other_bytes // OTHER_BYTES_PER_TOKEN)


def estimate_input_tokens(request: InferenceRequest) -> int:
    """Return about how many input tokens a request is."""
    if isinstance(request, EmbeddingRequest):
        return sum(estimate_text_tokens(item) if isinstance(item, str) else len(item) for item in request.inputs)
    schema = request.output_format.schema if request.output_format else None
    return (
        TOKENS_PER_REQUEST
        + sum(_message_tokens(message) for message in request.messages)
        + sum(_tool_tokens(tool) for tool in request.tools)
        + (_json_tokens(schema) if schema else 0)
    )


def estimate_output_tokens(completion: Completion) -> int:
    """Return the estimated output tokens of an answer."""
    calls = (estimate_text_tokens(call.name + call.arguments) + TOKENS_PER_MESSAGE for call in completion.tool_calls)
    texts = (completion.text, completion.reasoning, completion.refusal or "", *completion.other_choices)
    return sum(estimate_text_tokens(text) for text in texts) + sum(calls)


def estimate_opaque_tokens(value: Any) -> int:
    """Return the estimated tokens of content that we do not interpret. Limited: a file's bytes are not its tokens."""
    return min(_json_tokens(value), TOKENS_PER_IMAGE)


def _message_tokens(message: ChatMessage) -> int:
    calls = (estimate_text_tokens(call.name + call.arguments) + TOKENS_PER_MESSAGE for call in message.tool_calls)
    return TOKENS_PER_MESSAGE + _parts_tokens(message.parts) + sum(calls)


def _parts_tokens(parts: Iterable[ContentPart]) -> int:
    return sum(map(_tokens_of_part, parts))


def _tokens_of_part(part: ContentPart) -> int:
    match part:
        case TextPart(text):
            return estimate_text_tokens(text)
        case OpaquePart(tokens):
            return tokens
        case _:
            return TOKENS_PER_SMALL_IMAGE if part.detail == "low" else TOKENS_PER_IMAGE


def _tool_tokens(tool: Tool) -> int:
    return (
        TOKENS_PER_MESSAGE + estimate_text_tokens(tool.name + (tool.description or "")) + _json_tokens(tool.parameters)
    )


def _json_tokens(value: object) -> int:
    return estimate_text_tokens(msgspec.json.encode(value).decode())
