"""`POST /api/v1/chat`: the envelope and the request in it."""

import json
from typing import Any

import pytest
from msgspec import Raw

from providers.dialects.envelope import Envelope, decode_envelope, encode_envelope
from providers.invalid_request import InvalidRequest
from providers.types import ChatMessage, ChatRequest, Role, TextPart

SAYS = [{"role": "user", "content": "Hello"}]
REQUEST = ChatRequest("gpt-4o", (ChatMessage(Role.USER, (TextPart("Hello"),)),))


@pytest.mark.parametrize(
    ("fields", "envelope"),
    [
        ({}, Envelope(REQUEST, None, None, False)),
        ({"provider": "openai", "request_id": "r-1", "stream": True}, Envelope(REQUEST, "openai", "r-1", True)),
        ({"provider": None, "request_id": None, "stream": None}, Envelope(REQUEST, None, None, False)),
    ],
)
def test_an_envelope_is_decoded(fields: dict[str, Any], envelope: Envelope) -> None:
    assert decode_envelope({"model": "gpt-4o", "messages": SAYS, **fields}) == envelope


def test_every_openai_field_is_accepted_in_an_envelope() -> None:
    envelope = decode_envelope({"model": "m", "messages": SAYS, "max_tokens": 5, "stop": "x"})

    assert (envelope.request.max_tokens, envelope.request.stop) == (5, ("x",))


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"messages": SAYS}, "model", "missing_required_parameter"),
        ({"model": "m"}, "messages", "missing_required_parameter"),
        ({"model": "m", "messages": SAYS, "provider": ""}, "provider", "invalid_value"),
        ({"model": "m", "messages": SAYS, "request_id": "x" * 256}, "request_id", "invalid_value"),
    ],
)
def test_an_invalid_field_is_rejected_by_name(body: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode_envelope(body)

    assert (caught.value.param, caught.value.code) == (param, code)


def test_envelope_fields_are_not_sent_to_the_provider() -> None:
    sent = decode_envelope({"model": "m", "messages": SAYS, "provider": "openai", "request_id": "r-1"}).request.original

    assert sent is not None
    assert set(sent.fields) == {"model", "messages"}
    assert sent.untranslatable is None


@pytest.mark.parametrize("data", [{"object": "chat.completion"}, Raw(b'{"object": "chat.completion"}')])
def test_a_response_is_wrapped_in_an_envelope(data: Any) -> None:
    assert json.loads(encode_envelope("req_1", "openai", "m", data)) == {
        "id": "req_1",
        "provider": "openai",
        "model": "m",
        "data": {"object": "chat.completion"},
    }
