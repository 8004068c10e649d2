"""JSON about which readers differ is not taken."""

import pytest

from core.strict_json import AmbiguousJson, check_unambiguous


@pytest.mark.parametrize(
    "text",
    ['{"a": {"b": 1, "b": 1}}', '[{"a": 1, "\\u0061": 2}]', "18446744073709551616", "-9223372036854775809", "1" * 5000],
)
def test_what_readers_would_take_differently_is_refused(text: str) -> None:
    with pytest.raises(AmbiguousJson):
        check_unambiguous(text)


@pytest.mark.parametrize("text", ['{"a": [{"b": 1}, {"b": 1}]}', "18446744073709551615", "-9223372036854775808", "1.5"])
def test_what_says_one_thing_is_taken(text: str) -> None:
    check_unambiguous(text)
