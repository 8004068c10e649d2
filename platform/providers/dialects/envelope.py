"""`POST /api/v1/chat`: OpenAI's body with a provider's name and a request id; the response wraps the completion."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw

from providers.dialects import openai
from providers.dialects import openai_wire as wire
from providers.dialects.validation import precompile_decoders
from providers.types import ChatRequest, JSONObject

ProviderName = Annotated[str, Meta(min_length=1, max_length=100)]
RequestID = Annotated[str, Meta(min_length=1, max_length=255)]


class EnvelopeBody(wire.ChatBody):
    """OpenAI's complete body and two fields of ours, so that a caller may use any of OpenAI's settings."""

    #: Only this provider may answer. None: any target of the route.
    provider: ProviderName | None = None
    #: The caller's idempotency key: a repeated request with the same id is answered once.
    request_id: RequestID | None = None


precompile_decoders(EnvelopeBody)


@dataclass(frozen=True, slots=True)
class Envelope:
    """The fields of the envelope, and the request itself."""

    request: ChatRequest
    provider: str | None
    request_id: str | None
    stream: bool


def decode_envelope(data: bytes | Mapping[str, Any]) -> Envelope:
    """Return the envelope of a body, or raise InvalidRequest, worded as in OpenAI's dialect."""
    decoded = openai.parse_chat_as(data, EnvelopeBody)
    body = decoded.body
    request = openai.to_chat_request(decoded, gateway_fields=("provider", "request_id"))
    return Envelope(request, body.provider, body.request_id, bool(body.stream))


def encode_envelope(answer_id: str, provider: str, model: str, data: JSONObject | Raw) -> bytes:
    """Return the response body; `data` is the body of a chat completion, ours or the provider's own."""
    return msgspec.json.encode({"id": answer_id, "provider": provider, "model": model, "data": data})
