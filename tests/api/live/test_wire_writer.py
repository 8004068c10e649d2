"""The writer of answers in the caller's wire format, without a provider."""

from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

from structlog.testing import capture_logs

from api.live.wire_formats import WireFormat
from api.live.wire_writer import WireResponseWriter


def test_an_unexpected_error_is_logged_with_its_stream_and_its_traceback() -> None:
    parsed: Any = SimpleNamespace(wire=WireFormat.OPENAI)
    event_log, error = Mock(), KeyError("a bug")
    event_log.stream.id = "stm_1"

    with capture_logs() as logs:
        WireResponseWriter(parsed, Mock(), event_log).error(error)

    assert logs == [{"event": "stream_failed", "log_level": "error", "stream": "stm_1", "exc_info": error}]
