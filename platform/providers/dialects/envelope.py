"""`POST /api/v1/chat`: OpenAI's body with a provider's name and a request id, and an answer in an envelope."""

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
    """OpenAI's whole body: a caller who knows more than the least may say more."""

    #: Only this provider may answer. None: as the routes say.
    provider: ProviderName | None = None
    #: The caller's own name for this request. The same again is answered once.
    request_id: RequestID | None = None


precompile_decoders(EnvelopeBody)


@dataclass(frozen=True, slots=True)
class Envelope:
    """What stands in the envelope, and the request itself."""

    request: ChatRequest
    provider: str | None
    request_id: str | None
    stream: bool


def decode_envelope(data: bytes | Mapping[str, Any]) -> Envelope:
    """Return what a body asks for, or raise InvalidRequest in OpenAI's words."""
    decoded = openai.parse_chat_as(data, EnvelopeBody)
    body = decoded.body
    request = openai.to_chat_request(decoded, gateway_fields=("provider", "request_id"))
    return Envelope(request, body.provider, body.request_id, bool(body.stream))


def encode_envelope(answer_id: str, provider: str, model: str, data: JSONObject | Raw) -> bytes:
    """Return the answer; `data` is the body of a chat completion, whoever gave it."""
    return msgspec.json.encode({"id": answer_id, "provider": provider, "model": model, "data": data})
