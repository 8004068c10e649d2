"""JSON about which readers differ is not taken."""

import pytest

from core.strict_json import AmbiguousJson, check_unambiguous


@pytest.mark.parametrize(
    "text",
    ['{"a": {"b": 1, "b": 1}}', '[{"a": 1, "\\u0061": 2}]', "18446744073709551616", "-9223372036854775809", "1" * 5000],
)
def test_ambiguous_json_is_rejected(text: str) -> None:
    with pytest.raises(AmbiguousJson):
        check_unambiguous(text)


@pytest.mark.parametrize("text", ['{"a": [{"b": 1}, {"b": 1}]}', "18446744073709551615", "-9223372036854775808", "1.5"])
def test_unambiguous_json_is_accepted(text: str) -> None:
    check_unambiguous(text)
