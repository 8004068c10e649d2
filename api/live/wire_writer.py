"""Writes answers in the caller's wire format: implements `live.response_writer` over `api.live.wire_formats`."""

import structlog

from api.errors import to_problem
from api.live.respond import EVENT_STREAM, JSON
from api.live.wire_formats import (
    AnswerMetadata,
    ParsedRequest,
    WireFormat,
    encode_answer,
    encode_error,
    encoder_for,
    status_for,
    to_error_payload,
)
from core import clock, metrics
from inference.routing import Target
from live.admit import AdmittedRequest
from live.writer_task import ResponseWriterFactory
from providers.dialects.stream_encoder import StreamEncoder
from providers.types import Burst, InferenceResponse
from streams.writer import EventLogWriter

log = structlog.get_logger(__name__)


class WireAnswerEncoder:
    """Encodes the complete answer to one admitted request."""

    def __init__(self, parsed: ParsedRequest, admitted: AdmittedRequest) -> None:
        self._parsed = parsed
        self._admitted = admitted
        self._created = clock.unix_seconds()

    def encode_answer(self, answer: InferenceResponse, target: Target) -> bytes:
        return encode_answer(self._parsed, answer, self._metadata(target))

    def _metadata(self, target: Target) -> AnswerMetadata:
        return AnswerMetadata(
            answer_id=_answer_id(self._parsed.wire, self._admitted.admission.stream_id),
            created=self._created,
            request_id=self._admitted.admission.request_id,
            provider=target.provider.name,
            # An answer that two providers may write is encoded from neutral events, whatever their dialects.
            dialect=None if self._admitted.is_continuable else target.provider.dialect,
            input_tokens=self._admitted.input_tokens,
        )


class WireResponseWriter(WireAnswerEncoder):
    """Encodes the answer to one admitted request into its event log."""

    def __init__(self, parsed: ParsedRequest, admitted: AdmittedRequest, event_log: EventLogWriter) -> None:
        super().__init__(parsed, admitted)
        self._event_log = event_log
        self._encoder: StreamEncoder | None = None

    def start(self, target: Target) -> None:
        self._encoder = encoder_for(self._parsed, self._metadata(target))
        self._event_log.describe(status=200, content_type=EVENT_STREAM)

    def events(self, burst: Burst) -> None:
        assert self._encoder is not None
        if frames := self._encoder.encode(burst):
            metrics.stream_events.inc(len(frames))
            self._event_log.append(frames)

    def continued(self, target: Target) -> None:
        assert self._encoder is not None
        self._encoder, frames = self._encoder.continue_with(target.provider.name)
        self._event_log.append(frames)

    def answer(self, body: bytes) -> None:
        self._event_log.describe(status=200, content_type=JSON)
        self._event_log.append([("", body)])

    def error(self, error: BaseException) -> None:
        problem, wire = to_problem(error), self._parsed.wire
        if problem.is_unexpected:
            log.error("stream_failed", stream=self._event_log.stream.id, exc_info=error)
        if self._encoder is not None:
            if frames := self._encoder.encode_interruption(to_error_payload(problem)):
                self._event_log.append(frames)
            return
        self._event_log.describe(
            status=status_for(wire, problem), content_type=JSON, retry_after_seconds=problem.retry_after_seconds
        )
        self._event_log.append([("", encode_error(wire, problem, self._admitted.admission.request_id))])


def response_writer_factory(parsed: ParsedRequest, admitted: AdmittedRequest) -> ResponseWriterFactory:
    """Return what makes the writer once the event log is open."""
    return lambda event_log: WireResponseWriter(parsed, admitted, event_log)


def _answer_id(wire: WireFormat, stream_id: str) -> str:
    """Return the answer's id in its wire format, derived from the stream that it can be read from."""
    prefix = "msg" if wire is WireFormat.ANTHROPIC else "chatcmpl"
    return f"{prefix}-{stream_id.partition('_')[2]}"
