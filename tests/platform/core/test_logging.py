"""Logs contain ids, and neither secrets nor prompts."""

import io
import json
import logging
import logging.config
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from core.logging import REDACTED, configure, redact_secrets


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What is logged, as JSON lines."""
    written = io.StringIO()
    before = structlog.get_config()
    handlers, level = logging.root.handlers[:], logging.root.level
    settings = configure(console=False, level="INFO")
    settings["handlers"]["stderr"]["stream"] = written
    logging.config.dictConfig(settings)
    yield written
    structlog.configure(**before)
    logging.root.handlers[:], logging.root.level = handlers, level


def test_a_line_is_one_json_object_with_the_bound_context(lines: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(request_id="req_1", job="job_1", attempt=2):
        structlog.get_logger("jobs").info("call_failed", provider="openai", status=503)

    line = json.loads(lines.getvalue())
    assert (line["event"], line["request_id"], line["job"], line["attempt"]) == ("call_failed", "req_1", "job_1", 2)
    assert (line["provider"], line["status"], line["level"]) == ("openai", 503, "info")


def test_an_event_below_the_level_is_not_processed(lines: io.StringIO) -> None:
    class Untouchable(dict[str, str]):
        def items(self) -> Any:
            raise AssertionError("It was looked at.")

    structlog.get_logger("jobs").debug("call_made", headers=Untouchable(a="b"))

    assert lines.getvalue() == ""


def test_logs_of_the_standard_library_are_redacted_too(lines: io.StringIO) -> None:
    logging.getLogger("some.library").warning("calling with %s", "Bearer abc.def")

    assert "abc.def" not in lines.getvalue()
    assert json.loads(lines.getvalue())["event"] == f"calling with {REDACTED}"


@pytest.mark.parametrize(
    "field",
    ["authorization", "api_key", "x-api-key", "prompt", "messages", "content", "body", "site_secret", "password",
     "access_token", "Payload", "result", "cookie", "X-Signature"],
)  # fmt: skip
def test_fields_with_secrets_or_prompts_are_redacted(field: str) -> None:
    assert redact_secrets(None, "", {field: "rosebud"})[field] == REDACTED
    assert redact_secrets(None, "", {"request": {field: "rosebud"}}) == {"request": {field: REDACTED}}


@pytest.mark.parametrize(
    "text",
    [
        "key nd_Ab12Cd34Ef_0123456789 was used",
        "whsec_AAECAwQFBgcICQoLDA0ODw==",
        "sk-ant-api03-abcdefgh",
        "Authorization: bearer abcdef",
        "postgresql://nightdesk:rosebud@db:5432/x",
        "redis://:rosebud@127.0.0.1:6379/0",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln",
    ],
)
def test_secrets_are_redacted_by_their_shape(text: str) -> None:
    cleaned = redact_secrets(None, "", {"error": text, "list": [text], "nested": {"a": text}})

    assert REDACTED in cleaned["error"]
    for secret in ("Ab12Cd34Ef", "AAECAwQ", "api03", "abcdef", "rosebud", "eyJ"):
        assert secret not in str(cleaned)


def test_token_counts_are_not_redacted() -> None:
    assert redact_secrets(None, "", {"input_tokens": 12, "model": "gpt-4o"}) == {"input_tokens": 12, "model": "gpt-4o"}


def test_an_exception_is_logged_with_its_trace_and_without_secrets(lines: io.StringIO) -> None:
    try:
        raise ValueError("sk-live-0123456789")
    except ValueError:
        structlog.get_logger("jobs").exception("job_crashed")

    line = json.loads(lines.getvalue())
    assert "ValueError" in line["exception"]
    assert "sk-live" not in lines.getvalue()
