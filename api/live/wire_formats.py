"""The wire formats of callers: parse their bodies, encode answers, streams and errors.

A wire format is what a caller speaks, a dialect what a provider speaks. Each wire format is a vendor's dialect, or a
variation of it (`DIALECTS`); see docs/reference/wire-formats.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import msgspec
from msgspec import Raw

from api.errors import ApiProblem
from providers.dialects import anthropic, openai
from providers.dialects.anthropic_stream_encoder import AnthropicPassthroughEncoder, AnthropicStreamEncoder
from providers.dialects.envelope import decode_envelope, encode_envelope
from providers.dialects.error_payloads import ErrorPayload, encode_anthropic_error, encode_openai_error
from providers.dialects.openai import EncodingFormat
from providers.dialects.openai_stream_encoder import OpenAIPassthroughEncoder, OpenAIStreamEncoder
from providers.dialects.stream_encoder import StreamEncoder
from providers.dialects.wordpress_stream_encoder import WordPressStreamEncoder
from providers.types import Completion, Dialect, Embeddings, InferenceRequest, InferenceResponse


class WireFormat(StrEnum):
    """The format of a caller's bodies, answers and streams."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    #: OpenAI's bodies; its streams end with an event of their own, for a browser's `EventSource`.
    WORDPRESS = "wordpress"
    #: `{provider, model, messages}` in, `{id, provider, model, data}` out.
    ENVELOPE = "envelope"


#: The dialect of a wire format's answers. If the provider's is the same, its bytes pass through unchanged.
DIALECTS = {
    WireFormat.OPENAI: Dialect.OPENAI,
    WireFormat.ANTHROPIC: Dialect.ANTHROPIC,
    WireFormat.WORDPRESS: Dialect.OPENAI,
    WireFormat.ENVELOPE: Dialect.OPENAI,
}


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """A parsed body: the request in neutral form, and how the caller wants the answer."""

    wire: WireFormat
    request: InferenceRequest
    streams: bool = False
    include_usage: bool = False
    encoding_format: EncodingFormat | None = None
    #: The caller's own id of the request, and the provider that it insists on, in wire formats that have these fields.
    request_id: str | None = None
    provider: str | None = None


@dataclass(frozen=True, slots=True)
class AnswerMetadata:
    """The ids and other fields of an answer that its content does not determine."""

    answer_id: str
    #: In Unix seconds.
    created: int
    request_id: str
    provider: str = ""
    #: The provider's. None: the answer is encoded from neutral events.
    dialect: Dialect | None = None
    #: An estimate, for the wire format that sends it before the provider has counted.
    input_tokens: int = 0


class BodyParser(Protocol):
    """Parses a body, and the headers that are a part of the request in its wire format. Raises `InvalidRequest`."""

    def __call__(self, body: bytes, headers: Mapping[str, str]) -> ParsedRequest: ...


def parse_chat(body: bytes, headers: Mapping[str, str]) -> ParsedRequest:
    read = openai.parse_chat(body)
    options = read.body.stream_options
    include_usage = bool(options and options.include_usage)
    return ParsedRequest(WireFormat.OPENAI, openai.to_chat_request(read), bool(read.body.stream), include_usage)


def parse_embeddings(body: bytes, headers: Mapping[str, str]) -> ParsedRequest:
    read = openai.parse_embedding(body)
    return ParsedRequest(
        WireFormat.OPENAI, openai.to_embedding_request(read), encoding_format=read.body.encoding_format
    )


def parse_messages(body: bytes, headers: Mapping[str, str]) -> ParsedRequest:
    version = headers.get("anthropic-version")
    # A client that sends no version is older than the newer version.
    read = anthropic.parse_chat(
        body, anthropic.CLASSIC_VERSION if version is None else anthropic.check_version(version)
    )
    request = anthropic.to_chat_request(read, anthropic.select_forwarded_headers(headers))
    return ParsedRequest(WireFormat.ANTHROPIC, request, bool(read.body.stream))


def parse_wordpress(body: bytes, headers: Mapping[str, str]) -> ParsedRequest:
    read = openai.parse_chat(body)
    return ParsedRequest(WireFormat.WORDPRESS, openai.to_chat_request(read), bool(read.body.stream))


def parse_envelope(body: bytes, headers: Mapping[str, str]) -> ParsedRequest:
    envelope = decode_envelope(body)
    return ParsedRequest(
        WireFormat.ENVELOPE,
        envelope.request,
        envelope.stream,
        request_id=envelope.request_id,
        provider=envelope.provider,
    )


#: The bodies that `POST /v1/streams` takes, by the name of their wire format.
STREAM_PARSERS: Mapping[str, BodyParser] = {
    "openai": parse_chat,
    "anthropic": parse_messages,
    "wordpress": parse_wordpress,
    "envelope": parse_envelope,
}


def encoder_for(parsed: ParsedRequest, metadata: AnswerMetadata) -> StreamEncoder:
    """Return the encoder of the caller's stream. Frames of a provider with its dialect pass through unchanged."""
    model = parsed.request.model
    match parsed.wire:
        case WireFormat.OPENAI if _is_same_dialect(parsed, metadata):
            return OpenAIPassthroughEncoder(parsed.include_usage)
        case WireFormat.OPENAI:
            return OpenAIStreamEncoder(metadata.answer_id, metadata.created, model, parsed.include_usage)
        case WireFormat.ANTHROPIC if _is_same_dialect(parsed, metadata):
            return AnthropicPassthroughEncoder(request_id=metadata.request_id)
        case WireFormat.ANTHROPIC:
            return AnthropicStreamEncoder(
                metadata.answer_id, model, metadata.input_tokens, request_id=metadata.request_id
            )
        case WireFormat.WORDPRESS | WireFormat.ENVELOPE if _is_same_dialect(parsed, metadata):
            return WordPressStreamEncoder(metadata.answer_id, OpenAIPassthroughEncoder())
        case WireFormat.WORDPRESS | WireFormat.ENVELOPE:
            return WordPressStreamEncoder(
                metadata.answer_id, OpenAIStreamEncoder(metadata.answer_id, metadata.created, model)
            )


def encode_answer(parsed: ParsedRequest, answer: InferenceResponse, metadata: AnswerMetadata) -> bytes:
    """Return the body of a complete answer: the provider's own bytes, if its dialect is that of the wire format."""
    body = answer.body if _is_same_dialect(parsed, metadata) and _wants_float_vectors(parsed) else b""
    match answer:
        case Completion() if parsed.wire is WireFormat.ENVELOPE:
            data = Raw(body) if body else openai.encode_completion(answer, created=metadata.created)
            return encode_envelope(metadata.answer_id, metadata.provider, parsed.request.model, data)
        case _ if body:
            return body
        case Embeddings():
            return msgspec.json.encode(openai.encode_embeddings(answer, parsed.encoding_format))
        case Completion() if parsed.wire is WireFormat.ANTHROPIC:
            return msgspec.json.encode(anthropic.encode_completion(answer))
        case Completion():
            return msgspec.json.encode(openai.encode_completion(answer, created=metadata.created))


def _is_same_dialect(parsed: ParsedRequest, metadata: AnswerMetadata) -> bool:
    return metadata.dialect is not None and metadata.dialect.body_dialect is DIALECTS[parsed.wire]


def encode_error(wire: WireFormat, problem: ApiProblem, request_id: str) -> bytes:
    """Return the body of an error."""
    fault = to_error_payload(problem)
    return encode_anthropic_error(fault, request_id) if wire is WireFormat.ANTHROPIC else encode_openai_error(fault)


def status_for(wire: WireFormat, problem: ApiProblem) -> int:
    """Return the HTTP status of an error in the wire format."""
    # Anthropic has its own status for overload, which its SDK maps to an error class.
    return 529 if wire is WireFormat.ANTHROPIC and problem.code == "server_is_overloaded" else problem.status


def to_error_payload(problem: ApiProblem) -> ErrorPayload:
    return ErrorPayload(problem.status, problem.type, problem.code, problem.message, problem.param)


def _wants_float_vectors(parsed: ParsedRequest) -> bool:
    """Upstream vectors are numbers, because we never request base64 there."""
    return parsed.encoding_format in (None, "float")
