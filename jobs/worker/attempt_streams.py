"""Streams of attempts in progress: an attempt is written as a stream from the moment its job is watched.

The stream then begins with all that the attempt has received so far.
"""

from collections.abc import Iterable

from django.conf import settings

from core import clock, redis
from core.ids import to_public
from inference.call_recorder import CallRecorder
from jobs.models import JobKind
from jobs.watchers import attempt_stream_id, find_watched
from jobs.worker.claim import ClaimedJob
from jobs.worker.outcomes import AttemptCanceled, AttemptSucceeded, ExecutionOutcome
from providers.dialects.anthropic_stream_encoder import AnthropicStreamEncoder
from providers.dialects.openai_stream_encoder import OpenAIStreamEncoder
from providers.dialects.stream_encoder import StreamEncoder
from providers.types import Burst
from streams.entries import StreamEnd, StreamInfo
from streams.process import ProcessHeartbeat
from streams.registry import ProcessStreams
from streams.writer import EventLogWriter
from tenants.models import Site

SSE_CONTENT_TYPE = "text/event-stream; charset=utf-8"
#: The event that tells readers to discard the text so far: it was of an earlier call.
RESTART = ("restart", b"{}")


class AttemptStream:
    """The stream of one attempt; it writes nothing before `start_streaming`."""

    def __init__(self, job: ClaimedJob) -> None:
        self.job = job
        self._recorder: CallRecorder | None = None
        self._writer: EventLogWriter | None = None
        self._encoder: StreamEncoder | None = None

    @property
    def is_streaming(self) -> bool:
        return self._writer is not None

    def on_burst(self, recorder: CallRecorder, burst: Burst) -> None:
        """Write a burst from the provider, if the attempt is streaming. `recorder` is the one of the current call."""
        is_new, self._recorder = recorder is not self._recorder, recorder
        if self._writer is None:
            return
        if is_new:
            self._restart(self._writer)
        self._write(self._writer, burst)

    def start_streaming(self, writer: EventLogWriter) -> None:
        """Write all that was received so far, and each burst from now on."""
        self._writer = writer
        writer.describe(status=200, content_type=SSE_CONTENT_TYPE)
        if self._recorder is not None:
            self._encoder = self._new_encoder()
            self._write(writer, Burst(self._recorder.collector.events()))

    def finish(self, outcome: ExecutionOutcome) -> None:
        """End the stream. The stream does not contain the state of the job; that is in Postgres."""
        if self._writer is not None:
            self._writer.end(_stream_end_of(outcome))

    def _restart(self, writer: EventLogWriter) -> None:
        if self._encoder is not None:
            writer.append([RESTART])
        self._encoder = self._new_encoder()

    def _write(self, writer: EventLogWriter, burst: Burst) -> None:
        assert self._encoder is not None
        if frames := self._encoder.encode(burst):
            writer.append(frames)

    def _new_encoder(self) -> StreamEncoder:
        job = self.job
        if job.kind == JobKind.MESSAGES:
            return AnthropicStreamEncoder(f"msg-{job.request_id}", job.model, request_id=job.request_id)
        return OpenAIStreamEncoder(f"chatcmpl-{job.request_id}", clock.unix_seconds(), job.model, include_usage=True)


class AttemptStreams:
    """The streams of all attempts of one worker. One query of Redis serves all of them."""

    def __init__(self) -> None:
        self._process_streams: ProcessStreams | None = None
        self._heartbeat: ProcessHeartbeat | None = None

    async def stream_watched(self, streams: Iterable[AttemptStream]) -> None:
        """Start streaming those of the streams whose jobs are watched. Raises `RedisUnavailable`."""
        not_streaming = {stream.job.job_id: stream for stream in streams}
        for job_id in await find_watched(redis.client(settings.REDIS_URL)) & not_streaming.keys():
            not_streaming[job_id].start_streaming(await self._writer_for(not_streaming[job_id].job))

    async def stop(self) -> None:
        """Close the connections to Redis."""
        if self._heartbeat is not None:
            await self._heartbeat.stop()
        await redis.close_clients()

    async def _writer_for(self, job: ClaimedJob) -> EventLogWriter:
        if self._process_streams is None:
            self._process_streams = ProcessStreams(redis.client(settings.REDIS_URL))
            self._heartbeat = ProcessHeartbeat(self._process_streams)
            await self._heartbeat.start()
        info = StreamInfo(
            id=attempt_stream_id(job.job_id, job.attempt),
            site=to_public(Site.ID_PREFIX, job.site_id),
            status=0,
            content_type="",
            wire_format="anthropic" if job.kind == JobKind.MESSAGES else "openai",
            origin=None,
            kind="stream",
            created_at=clock.now().timestamp(),
        )
        return self._process_streams.open_writer(
            info,
            ttl_seconds=settings.STREAM_LOG_TTL_SECONDS,
            max_bytes=settings.STREAM_LOG_MAX_BYTES,
            detached=True,
        )


def _stream_end_of(outcome: ExecutionOutcome) -> StreamEnd:
    match outcome:
        case AttemptSucceeded():
            return StreamEnd("done")
        case AttemptCanceled():
            return StreamEnd("canceled")
        case _:
            return StreamEnd("error")
