"""Only an equal request is a cache hit."""

from dataclasses import replace
from typing import Any

import pytest

from inference.cache import EmbeddingCacheResult, answer_key, embedding_keys, to_embedding_cache_result
from providers.dialects import anthropic, openai
from providers.errors import BadResponse
from providers.types import (
    ChatMessage,
    ChatRequest,
    EmbeddingRequest,
    Embeddings,
    ImagePart,
    Role,
    TextPart,
    Tool,
    Usage,
)

HELLO = (ChatMessage(Role.USER, (TextPart("Hello"),)),)
CHAT = ChatRequest("desk", HELLO, tools=(Tool("look", None, {"a": 1, "b": {"c": 2, "d": 3}}),))
TEXTS = EmbeddingRequest("vectors", ("one", "two", "three", "two"))


def test_equal_requests_have_the_same_key_whatever_the_order_of_names() -> None:
    turned = replace(CHAT, tools=(Tool("look", None, {"b": {"d": 3, "c": 2}, "a": 1}),))

    assert answer_key("site", CHAT) == answer_key("site", turned)
    assert len(answer_key("site", CHAT) or b"") == 32


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "other"},
        {"temperature": 0.5},
        {"max_tokens": 5},
        {"seed": 1},
        {"user": "ann"},
        {"messages": (ChatMessage(Role.ASSISTANT, (TextPart("Hello"),)),)},
        {"messages": (ChatMessage(Role.USER, (TextPart("Hel"), TextPart("lo"))),)},
        {"messages": (ChatMessage(Role.USER, (ImagePart(url="Hello"),)),)},
        {"tools": ()},
    ],
)
def test_any_changed_field_changes_the_key(changes: dict[str, Any]) -> None:
    assert answer_key("site", CHAT) != answer_key("site", replace(CHAT, **changes))


SENT: dict[str, Any] = {
    "model": "desk",
    "messages": [{"role": "user", "content": "Hello", "x": {"a": 1, "b": 2}}],
    "y": 1,
}


def sent(body: dict[str, Any] | bytes = SENT, **changes: Any) -> bytes | None:
    return answer_key("site", replace(openai.decode_chat(body), **changes))


@pytest.mark.parametrize(
    "other",
    [
        {**SENT, "y": 2},
        {**SENT, "n": 2},
        {**SENT, "service_tier": "flex"},
        {**SENT, "messages": [{"role": "user", "content": "Hello", "x": {"a": 1, "b": 3}}]},
    ],
)
def test_any_other_field_of_the_body_changes_the_key(other: dict[str, Any]) -> None:
    assert sent(other) != sent()


def test_an_output_limit_set_by_the_desk_changes_the_key() -> None:
    assert sent(max_tokens=5) != sent()


def test_version_and_beta_headers_change_the_key() -> None:
    read = anthropic.parse_chat({**SENT, "max_tokens": 5})
    headers = [{}, {"anthropic-beta": "a"}, {"anthropic-beta": "b"}, {"anthropic-version": "2023-06-01"}]

    assert len({answer_key("site", anthropic.to_chat_request(read, each)) for each in headers}) == 4


def test_formatting_and_delivery_fields_do_not_change_the_key() -> None:
    turned = b"""{"y" : 1, "stream": false,
        "messages": [{"x": {"b": 2, "a": 1}, "content": "Hell\\u006f", "role": "user"}], "model": "desk"}"""

    assert sent(turned) == sent()


def test_keys_differ_by_site_and_wire_format() -> None:
    keys = {
        answer_key("site", CHAT),
        answer_key("site2", CHAT),
        answer_key("site", CHAT, "openai"),
        answer_key("siteo", CHAT, "penai"),
    }

    assert len(keys) == 4


def test_a_request_that_cannot_be_encoded_has_no_key() -> None:
    broken = EmbeddingRequest("m", ("\ud800",))

    assert answer_key("site", broken) is None
    assert embedding_keys("site", replace(broken, inputs=("fine", "\ud800"))) is None


# Vectors


def look_up(stored: dict[bytes, bytes], request: EmbeddingRequest = TEXTS) -> EmbeddingCacheResult:
    keys = embedding_keys("site", request)
    assert keys is not None
    return to_embedding_cache_result(request, keys, [stored.get(key) for key in keys])


def vectors_of(request: EmbeddingRequest | None) -> Embeddings:
    assert request is not None
    vectors = {"one": (1.0, 0.1), "two": (2.0, 0.2), "three": (3.0, 0.3)}
    return Embeddings("vectors-01", tuple(vectors[str(text)] for text in request.inputs), Usage(7))


def test_only_misses_are_requested_and_the_answer_is_complete() -> None:
    first = look_up({}, EmbeddingRequest("vectors", ("two",)))
    stored = dict(first.entries_to_store(vectors_of(first.misses)))
    second = look_up(stored)

    assert second.misses == replace(TEXTS, inputs=("one", "three"))
    answer = second.answer(vectors_of(second.misses))
    assert answer == Embeddings("vectors-01", ((1.0, 0.1), (2.0, 0.2), (3.0, 0.3), (2.0, 0.2)), Usage(7))
    stored.update(second.entries_to_store(vectors_of(second.misses)))
    third = look_up(stored)
    assert third.misses is None
    assert third.answer(None) == replace(answer, usage=Usage())


def test_without_hits_the_provider_s_answer_is_returned_unchanged() -> None:
    request = EmbeddingRequest("vectors", ("one", "two"))
    answer = replace(vectors_of(request), body=b"{}")

    assert look_up({}, request).answer(answer) is answer


def test_a_repeated_input_is_requested_once() -> None:
    first = look_up({})

    assert first.misses is not None
    assert first.misses.inputs == ("one", "two", "three")
    assert first.answer(vectors_of(first.misses)).vectors[3] == (2.0, 0.2)


@pytest.mark.parametrize("changes", [{"model": "m"}, {"dimensions": 2}, {"user": "ann"}])
def test_vectors_of_other_parameters_are_misses(changes: dict[str, Any]) -> None:
    first = look_up({})
    stored = dict(first.entries_to_store(vectors_of(first.misses)))

    assert look_up(stored, replace(TEXTS, **changes)).misses is not None


@pytest.mark.parametrize("garbage", [b"", b"\x92\xa1m\xc4\x01x", b"\xff", b'{"a": 1}'])
def test_an_invalid_cached_value_is_a_miss(garbage: bytes) -> None:
    request = EmbeddingRequest("vectors", ("one",))
    [key] = embedding_keys("site", request) or ()

    assert look_up({key: garbage}, request).misses == request


def test_token_lists_are_cached_too() -> None:
    request = EmbeddingRequest("vectors", ((1, 2), (3,)))
    first = look_up({}, request)
    stored = dict(first.entries_to_store(Embeddings("m", ((1.0,), (2.0,)), None)))

    assert look_up(stored, request).answer(None).vectors == ((1.0,), (2.0,))
    assert look_up(stored, EmbeddingRequest("vectors", ("[1, 2]",))).misses is not None


def test_an_answer_with_too_few_vectors_is_a_bad_response() -> None:
    with pytest.raises(BadResponse):
        look_up({}).answer(Embeddings("m", ((1.0,),), None))
