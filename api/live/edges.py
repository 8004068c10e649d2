"""The callers' wires: bodies in, answers, streams and errors out, each in the words of its dialect."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import msgspec
from msgspec import Raw

from api.errors import Problem
from providers.dialects import anthropic, openai
from providers.dialects.anthropic_stream import AnthropicStream, AnthropicThrough
from providers.dialects.encoding import StreamEncoder
from providers.dialects.envelope import decode_envelope, encode_envelope
from providers.dialects.error_bodies import Fault, anthropic_error, openai_error
from providers.dialects.openai import EncodingFormat
from providers.dialects.openai_stream import OpenAIStream, OpenAIThrough
from providers.dialects.wordpress_stream import WordPressStream
from providers.types import Answer, Completion, Dialect, Embeddings, InferenceRequest


class Wire(StrEnum):
    """What a caller speaks."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    #: OpenAI's bodies; its streams end with an event of their own, for a browser's `EventSource`.
    WORDPRESS = "wordpress"
    #: `{provider, model, messages}` in, `{id, provider, model, data}` out.
    ENVELOPE = "envelope"


#: In whose dialect a wire's answers are. The provider's bytes need no translation where it is the same.
DIALECTS = {
    Wire.OPENAI: Dialect.OPENAI,
    Wire.ANTHROPIC: Dialect.ANTHROPIC,
    Wire.WORDPRESS: Dialect.OPENAI,
    Wire.ENVELOPE: Dialect.OPENAI,
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a body asks for, in neutral form, and how its caller wants the answer."""

    wire: Wire
    request: InferenceRequest
    streams: bool = False
    include_usage: bool = False
    encoding_format: EncodingFormat | None = None
    #: The caller's own name of the request, and the provider it insists on, where the wire has a place for them.
    request_id: str | None = None
    provider: str | None = None


@dataclass(frozen=True, slots=True)
class Answering:
    """How one answer is called."""

    answer_id: str
    #: In Unix seconds.
    created: int
    request_id: str
    provider: str = ""
    dialect: Dialect | None = None
    #: An estimate of the prompt, for the dialect that says it before the provider does.
    input_tokens: int = 0


class Reader(Protocol):
    """Reads a body, and the headers that are a part of the request in its dialect. Raises InvalidRequest."""

    def __call__(self, body: bytes, headers: Mapping[str, str]) -> Wanted: ...


def read_chat(body: bytes, headers: Mapping[str, str]) -> Wanted:
    read = openai.parse_chat(body)
    options = read.body.stream_options
    include_usage = bool(options and options.include_usage)
    return Wanted(Wire.OPENAI, openai.to_chat_request(read), bool(read.body.stream), include_usage)


def read_embeddings(body: bytes, headers: Mapping[str, str]) -> Wanted:
    read = openai.parse_embedding(body)
    return Wanted(Wire.OPENAI, openai.to_embedding_request(read), encoding_format=read.body.encoding_format)


def read_messages(body: bytes, headers: Mapping[str, str]) -> Wanted:
    version = headers.get("anthropic-version")
    # Who names no version wants none of what the newer one changed.
    read = anthropic.parse_chat(body, anthropic.CLASSIC if version is None else anthropic.check_version(version))
    request = anthropic.to_chat_request(read, anthropic.own_headers(headers))
    return Wanted(Wire.ANTHROPIC, request, bool(read.body.stream))


def read_wordpress(body: bytes, headers: Mapping[str, str]) -> Wanted:
    read = openai.parse_chat(body)
    return Wanted(Wire.WORDPRESS, openai.to_chat_request(read), bool(read.body.stream))


def read_envelope(body: bytes, headers: Mapping[str, str]) -> Wanted:
    envelope = decode_envelope(body)
    return Wanted(
        Wire.ENVELOPE,
        envelope.request,
        envelope.stream,
        request_id=envelope.request_id,
        provider=envelope.provider,
    )


#: The bodies that `POST /v1/streams` takes, by the name of their wire.
STREAM_READERS: Mapping[str, Reader] = {
    "openai": read_chat,
    "anthropic": read_messages,
    "wordpress": read_wordpress,
    "envelope": read_envelope,
}


def encoder_for(wanted: Wanted, answering: Answering) -> StreamEncoder:
    """Return what makes the caller's stream of the provider's; where both speak one dialect, bytes pass through."""
    model = wanted.request.model
    match wanted.wire:
        case Wire.OPENAI if _is_same(wanted, answering):
            return OpenAIThrough(wanted.include_usage)
        case Wire.OPENAI:
            return OpenAIStream(answering.answer_id, answering.created, model, wanted.include_usage)
        case Wire.ANTHROPIC if _is_same(wanted, answering):
            return AnthropicThrough(request_id=answering.request_id)
        case Wire.ANTHROPIC:
            return AnthropicStream(answering.answer_id, model, answering.input_tokens, request_id=answering.request_id)
        case Wire.WORDPRESS | Wire.ENVELOPE if _is_same(wanted, answering):
            return WordPressStream(answering.answer_id, OpenAIThrough())
        case Wire.WORDPRESS | Wire.ENVELOPE:
            return WordPressStream(answering.answer_id, OpenAIStream(answering.answer_id, answering.created, model))


def encode_answer(wanted: Wanted, answer: Answer, answering: Answering) -> bytes:
    """Return the body of a whole answer; where both speak one dialect, the provider's own bytes."""
    body = answer.body if _is_same(wanted, answering) and _is_asked_as_given(wanted) else b""
    match answer:
        case Completion() if wanted.wire is Wire.ENVELOPE:
            data = Raw(body) if body else openai.encode_completion(answer, created=answering.created)
            return encode_envelope(answering.answer_id, answering.provider, wanted.request.model, data)
        case _ if body:
            return body
        case Embeddings():
            return msgspec.json.encode(openai.encode_embeddings(answer, wanted.encoding_format))
        case Completion() if wanted.wire is Wire.ANTHROPIC:
            return msgspec.json.encode(anthropic.encode_completion(answer))
        case Completion():
            return msgspec.json.encode(openai.encode_completion(answer, created=answering.created))


def _is_same(wanted: Wanted, answering: Answering) -> bool:
    return answering.dialect is not None and answering.dialect.body is DIALECTS[wanted.wire]


def encode_error(wire: Wire, problem: Problem, request_id: str) -> bytes:
    """Return the body of an error."""
    fault = to_fault(problem)
    return anthropic_error(fault, request_id) if wire is Wire.ANTHROPIC else openai_error(fault)


def status_for(wire: Wire, problem: Problem) -> int:
    """Return the status that says so in the dialect."""
    # Anthropic has one of its own for overload, and its SDK an error for it.
    return 529 if wire is Wire.ANTHROPIC and problem.code == "server_is_overloaded" else problem.status


def to_fault(problem: Problem) -> Fault:
    return Fault(problem.status, problem.type, problem.code, problem.message, problem.param)


def _is_asked_as_given(wanted: Wanted) -> bool:
    """Vectors come as numbers from upstream, for we never ask for base64 there."""
    return wanted.encoding_format in (None, "float")
