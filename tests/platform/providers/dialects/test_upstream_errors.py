"""What both dialects share in reading an error."""

from datetime import UTC, datetime

import pytest

from core import clock
from providers.dialects.upstream_errors import MAX_MESSAGE_CHARACTERS, message_or_default, redact, retry_after_seconds

NOON = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "0"}, 0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2),
        ({"retry-after": "3600"}, 3600),
        ({"retry-after-ms": "99999999"}, 86_400),
        ({"retry-after": "Sat, 21 Nov 2026 12:00:30 GMT"}, 30),
        ({"retry-after": "Sat, 21 Nov 2026 12:00:30"}, 30),
        ({"retry-after": "Sat, 21 Nov 2026 11:00:00 GMT"}, 0),
        ({"retry-after": "Sat, 21 Nov 2099 11:00:00 GMT"}, 86_400),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "Sat, 99 Nov 2026 99:00:00 GMT"}, None),
    ],
)
def test_the_time_to_wait_is_read_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    with clock.frozen(NOON):
        assert retry_after_seconds(headers) == seconds


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (
            "Incorrect API key provided: sk-ab***yz. You can find",
            "Incorrect API key provided: [redacted]. You can find",
        ),
        ("key sk-proj-Abc_123-def is bad", "key [redacted] is bad"),
        ("key gsk_abcdef123456 is bad", "key [redacted] is bad"),
        ("Authorization: Bearer abc.def/ghi", "Authorization: [redacted]"),
        ("token eyJhbGciOi.eyJzdWIi.c2ln", "token [redacted]"),
        ("key 0123456789abcdef0123456789abcdef is bad", "key [redacted] is bad"),
        # Words that only begin like a key.
        ("The sketching skeleton of pkzip", "The sketching skeleton of pkzip"),
        ("See https://platform.openai.com/account/api-keys.", "See https://platform.openai.com/account/api-keys."),
        ("request req_011CSHoEeqs5C35K2UUqR7Fy", "request req_011CSHoEeqs5C35K2UUqR7Fy"),
        (" two\nlines\t\x00", "two lines"),
    ],
)
def test_a_message_is_shown_on_one_line_without_keys(message: str, shown: str) -> None:
    assert redact(message) == shown


def test_a_long_message_is_cut() -> None:
    shown = redact("word " * 10_000)

    assert len(shown) == MAX_MESSAGE_CHARACTERS
    assert shown.endswith("…")


@pytest.mark.parametrize("message", [None, "", "  ", 3, {"a": 1}])
def test_where_the_provider_has_no_words_we_have(message: object) -> None:
    assert message_or_default(message, 500) == "The provider responded with status 500."
    assert message_or_default(message, None) == "The provider reported an error without a message."
