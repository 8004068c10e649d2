"""Strict JSON bodies."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.errors import MalformedBody
from api.request_body.json_parser import MAX_DEPTH, parse_batch, parse_object
from tests.api.calling import Caller, error_of, job_body


def nested(levels: int, opening: bytes = b'{"a":', closing: bytes = b"}") -> bytes:
    return opening * levels + b"1" + closing * levels


def test_an_object_is_parsed() -> None:
    assert parse_object('{"a": [1, -2.5e3, "ü😀", true, null], "b": {"c": "\\ud83d\\ude00"}}'.encode()) == {
        "a": [1, -2500.0, "ü😀", True, None],
        "b": {"c": "😀"},
    }


def test_integers_of_64_bits_are_accepted() -> None:
    assert parse_object(b'{"a": [-9223372036854775808, 18446744073709551615]}')["a"] == [-(2**63), 2**64 - 1]


def test_nesting_is_accepted_up_to_the_limit() -> None:
    parse_object(nested(MAX_DEPTH))
    with pytest.raises(MalformedBody, match="nested deeper"):
        parse_object(nested(MAX_DEPTH + 1))


@pytest.mark.parametrize(
    ("data", "words", "param"),
    [
        (b"", "not JSON", None),
        (b"{", "line 1 column 2", None),
        (b"{'a': 1}", "not JSON", None),
        (b'{"a": 1} x', "Extra data", None),
        (b'{"a": "\n"}', "control character", None),
        (b'\xef\xbb\xbf{"a": 1}', "not JSON", None),
        (b'{"a": "\xff"}', "not UTF-8", None),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8", None),
        (b"[]", "must be a JSON object", None),
        (b'"text"', "must be a JSON object", None),
        (b"null", "must be a JSON object", None),
        (b'{"a": NaN}', "NaN", None),
        (b'{"a": -Infinity}', "-Infinity", None),
        (b'{"a": 1e999}', "too large", None),
        (b'{"a": 18446744073709551616}', "64 bits", None),
        (b'{"a": -9223372036854775809}', "64 bits", None),
        (b'{"a": ' + b"9" * 5000 + b"}", "64 bits", None),
        (b'{"a": 1, "a": 2}', "Duplicate key", "a"),
        (b'{"x": [{"a": 1, "b": 2, "a": 1}]}', "Duplicate key", "a"),
        (b'{"a": {"b": ["x", "y\\u0000z"]}}', "NUL", "a.b.1"),
        (b'{"a": {"b\\u0000": 1}}', "NUL", "a.b\\u0000"),
        (b'{"a": "\\ud800"}', "unpaired surrogate", "a"),
        (b'{"\\udfff": 1}', "unpaired surrogate", "\\udfff"),
        (nested(10_000), "nested deeper", None),
        (nested(10_000, b"[", b"]"), "nested deeper", None),
        (nested(500), "nested deeper", ".".join(["a"] * 100)),
    ],
)
def test_malformed_bodies_are_rejected_with_message_and_param(data: bytes, words: str, param: str | None) -> None:
    with pytest.raises(MalformedBody, match=words) as caught:
        parse_object(data)

    assert caught.value.param == param


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_only_malformed_body(data: bytes) -> None:
    with suppress(MalformedBody):
        parse_object(data)


@given(
    st.dictionaries(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
        st.integers(-(2**63), 2**64 - 1) | st.booleans() | st.none() | st.floats(allow_nan=False, allow_infinity=False),
    )
)
def test_json_round_trips_through_the_parser(wanted: dict[str, object]) -> None:
    assert parse_object(json.dumps(wanted).encode()) == wanted


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON; charset=UTF-8", 'application/json;charset="utf-8"']
)
def test_variants_of_the_json_content_type_are_accepted(desk: Caller, kind: str) -> None:
    assert desk.post("/v1/jobs", job_body(), content_type=kind).status_code == 202


@pytest.mark.parametrize(
    "kind",
    [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json; charset=utf-16",
        "application/json; charset=latin-1",
        "application/jsonp",
        "nonsense",
    ],
)
def test_other_content_types_are_rejected(desk: Caller, kind: str) -> None:
    response = desk.post("/v1/jobs", job_body(), content_type=kind)

    assert (response.status_code, error_of(response)["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    "body",
    [
        b'{"requests":[],"requests":[{}]}',
        b'{"requests":[{}],"metadata":{"a":"1","a":"2"}}',
        b'{"a":1,"requests":[],"a":1}',
    ],
)
def test_a_batch_with_a_duplicate_key_is_rejected(body: bytes) -> None:
    with pytest.raises(MalformedBody, match="Duplicate key"):
        parse_batch(body)


def test_the_requests_of_a_batch_stay_raw_json() -> None:
    found = parse_batch(b'{"metadata": {"a": "[]"}, "requests": []}')

    assert found == {"metadata": {"a": "[]"}, "requests": []}
    assert bytes(parse_batch(b'{"requests": [ {"a" :1}]}')["requests"][0]) == b'{"a" :1}'


def test_malformed_json_gets_400_with_its_position(desk: Caller) -> None:
    response = desk.post("/v1/jobs", b'{"kind": "chat", "body": {"model": "a\\u0000b"}}')

    error = error_of(response)
    assert (response.status_code, error["code"], error["param"]) == (400, "malformed_body", "body.model")


def test_deep_nesting_gets_400(desk: Caller) -> None:
    assert desk.post("/v1/jobs", nested(10_000)).status_code == 400
    assert desk.post("/v1/jobs", b'{"kind":"chat","body":' + nested(99) + b"}").status_code == 400


def test_a_body_of_two_megabytes_is_rejected(desk: Caller) -> None:
    response = desk.post("/v1/jobs", b'{"a": "' + b"x" * 2_000_000 + b'"}')

    assert (response.status_code, error_of(response)["code"]) == (413, "body_too_large")
    assert response["Connection"] == "close"
