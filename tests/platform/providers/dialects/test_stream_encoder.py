"""Text as a JSON string on one line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.dialects.stream_encoder import encode_json_string


@given(st.text(st.characters(codec="utf-8")))
def test_encoded_text_is_one_line_for_every_line_splitter(text: str) -> None:
    written = encode_json_string(text).decode()

    assert json.loads(written) == text
    assert len(written.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "written"), [("ü\u2028", '"ü\\u2028"'), ("a\u0085b", '"a\\u0085b"'), ("\u2029", '"\\u2029"')]
)
def test_only_necessary_characters_are_escaped(text: str, written: str) -> None:
    assert encode_json_string(text).decode() == written
