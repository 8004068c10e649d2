"""What attempts say while they are under way: nothing, until somebody looks on; then all of it, as a stream."""

from collections.abc import Iterable

import structlog
from django.conf import settings

from core import clock, redis
from core.ids import to_public
from core.redis import RedisAway
from inference.recorded import Watch
from jobs.audience import find_watched, stream_of
from jobs.claim import Claimed
from jobs.endings import Canceled, Ending, Succeeded
from jobs.models import JobKind
from providers.dialects.anthropic_stream import AnthropicStream
from providers.dialects.encoding import StreamEncoder
from providers.dialects.openai_stream import OpenAIStream
from providers.types import Burst
from streams.entries import About, End
from streams.log import Writer
from streams.process import ProcessMark
from tenants.models import Site

log = structlog.get_logger(__name__)

EVENT_STREAM = "text/event-stream; charset=utf-8"
#: The text so far was another call's, and counts no more.
RESTART = ("restart", b"{}")


class Voice:
    """Of one attempt."""

    def __init__(self, job: Claimed) -> None:
        self.job = job
        self._watch: Watch | None = None
        self._writer: Writer | None = None
        self._encoder: StreamEncoder | None = None

    @property
    def is_heard(self) -> bool:
        return self._writer is not None

    def hear(self, watch: Watch, burst: Burst) -> None:
        """Take in what has come from the provider."""
        is_new, self._watch = watch is not self._watch, watch
        if self._writer is None:
            return
        if is_new:
            self._restart(self._writer)
        self._write(self._writer, burst)

    def speak(self, writer: Writer) -> None:
        """Say from now on what comes, and first what has come so far."""
        self._writer = writer
        writer.describe(status=200, content_type=EVENT_STREAM)
        if self._watch is not None:
            self._encoder = self._new_encoder()
            self._write(writer, Burst(self._watch.collector.events()))

    def end(self, ending: Ending) -> None:
        """The attempt has come to this; how the job goes on, Postgres says."""
        if self._writer is not None:
            self._writer.end(_end_of(ending))

    def _restart(self, writer: Writer) -> None:
        if self._encoder is not None:
            writer.append([RESTART])
        self._encoder = self._new_encoder()

    def _write(self, writer: Writer, burst: Burst) -> None:
        assert self._encoder is not None
        if frames := self._encoder.encode(burst):
            writer.append(frames)

    def _new_encoder(self) -> StreamEncoder:
        job = self.job
        if job.kind == JobKind.MESSAGES:
            return AnthropicStream(f"msg-{job.request_id}", job.model, request_id=job.request_id)
        return OpenAIStream(f"chatcmpl-{job.request_id}", clock.unix_seconds(), job.model, include_usage=True)


class Voices:
    """Of all attempts of one worker. Redis is asked only while there are any, and once for all of them."""

    def __init__(self) -> None:
        self._mark: ProcessMark | None = None
        self._is_away = False

    async def look(self, voices: Iterable[Voice]) -> None:
        """Let those speak that somebody wants to hear."""
        silent = {voice.job.job_id: voice for voice in voices if not voice.is_heard}
        if not silent:
            return
        try:
            for job_id in await find_watched(redis.client(settings.REDIS_URL)) & silent.keys():
                silent[job_id].speak(await self._writer_for(silent[job_id].job))
        except RedisAway as error:
            if not self._is_away:
                log.warning("audience_unknown", error=str(error))
            self._is_away = True
        else:
            self._is_away = False

    async def stop(self) -> None:
        """Say goodbye to Redis."""
        if self._mark is not None:
            await self._mark.stop()
        await redis.close_clients()

    async def _writer_for(self, job: Claimed) -> Writer:
        server = redis.client(settings.REDIS_URL)
        if self._mark is None:
            self._mark = ProcessMark(server)
            await self._mark.start()
        about = About(
            id=stream_of(job.job_id, job.attempt),
            site=to_public(Site.ID_PREFIX, job.site_id),
            status=0,
            content_type="",
            dialect="anthropic" if job.kind == JobKind.MESSAGES else "openai",
            origin=None,
            kind="stream",
            created_at=clock.now().timestamp(),
        )
        return Writer(
            server,
            about,
            process=self._mark,
            ttl_seconds=settings.STREAM_LOG_SECONDS,
            max_bytes=settings.STREAM_LOG_BYTES,
            detached=True,
        )


def _end_of(ending: Ending) -> End:
    match ending:
        case Succeeded():
            return End("done")
        case Canceled():
            return End("canceled")
        case _:
            return End("error")
