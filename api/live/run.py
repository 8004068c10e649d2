"""Runs what was let in: asks the providers, writes the stream, and accounts for every call, whatever happens."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Literal

import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError

from api.errors import ApiProblem, to_problem
from api.live.admit import AdmittedRequest
from api.live.authenticate import Caller
from api.live.respond import EVENT_STREAM, JSON
from api.live.runtime import LiveRuntime
from api.live.wire_formats import (
    AnswerMetadata,
    ParsedRequest,
    encode_answer,
    encode_error,
    encoder_for,
    status_for,
    to_fault,
)
from core import clock, metrics
from core.redis import RedisUnavailable, translate_redis_errors
from core.redis_keys import USAGE_RECORDS_KEY, open_calls_key
from inference import cache
from inference.calls import CallClosed, CallOpened, CallOutcome, CallTrace
from inference.complete import Answered, Deferred, Exhausted, complete_non_streaming
from inference.context import InferenceContext
from inference.continuation import can_be_continued, stream_with_continuation
from inference.routing import Target
from inference.stream import StreamPart, TargetSelected, TargetSwitched, stream
from inference.usage_records import to_open_usage_record, to_usage_record
from metering import usage_records
from metering.buffer import encode_usage_record
from metering.models import UsageOutcome as Usages
from metering.usage_records import CACHE_PROVIDER, UsageRecord
from providers.dialects.stream_encoder import StreamEncoder
from providers.errors import ProviderOverloaded
from providers.types import Burst, ChatRequest, EmbeddingRequest, Embeddings, InferenceRequest, InferenceResponse, Usage
from streams.entries import StreamEnd
from streams.writer import EventLogWriter
from tenants.rate_limiting.admission import get_cached_answers, settle
from tenants.rate_limiting.types import CacheEntry, Settlement, to_settlement

log = structlog.get_logger(__name__)

CANCELED = ApiProblem(499, "server_error", "stream_canceled", "The stream was canceled.")
SHUTTING_DOWN = ApiProblem(
    503, "service_unavailable_error", "shutting_down", "The server is shutting down; this response was interrupted."
)

#: How long a Redis that did not take the end of a request is left alone, each time.
SETTLE_RETRY_DELAYS_SECONDS = (0.5, 1, 2, 4, 8, 15, 30)

IdempotencyOutcome = Literal["keep", "drop"]

#: Longer lists of inputs are asked for as a whole.
MAX_CACHED_INPUTS = 256


@dataclass(frozen=True, slots=True)
class LiveLedger:
    """Keeps the account of the call under way in Redis, so that a killed process leaves its trace there."""

    runtime: LiveRuntime
    admitted: AdmittedRequest

    async def open(self, call: CallOpened, previous_call: CallClosed | None) -> None:
        if call.number == 1:
            # It was opened with the admission, in the same round trip.
            return
        usage_record = encode_usage_record(
            to_open_usage_record(self.admitted.attribution, call, Usage(self.admitted.input_tokens))
        )
        try:
            with translate_redis_errors():
                key = open_calls_key(self.runtime.heartbeat.id)
                pipeline = self.runtime.server.pipeline(transaction=False)
                pipeline.hset(key, self.admitted.admission.request_id, usage_record)
                if previous_call is not None:
                    # Its place is taken now. Coming again at the end, it changes nothing.
                    pipeline.rpush(
                        USAGE_RECORDS_KEY,
                        encode_usage_record(to_usage_record(self.admitted.attribution, previous_call)),
                    )
                await pipeline.execute()
        except RedisUnavailable:
            # The call is made all the same; only should this process be killed now, nobody would know of it.
            log.warning("open_usage_record_not_saved", call=call.call_id)


class LiveRun:
    """One request under way."""

    def __init__(
        self, runtime: LiveRuntime, admitted: AdmittedRequest, *, created: int, continuation: bool = False
    ) -> None:
        self._runtime = runtime
        self._admitted = admitted
        self._created = created
        request = admitted.parsed.request
        self._continuation = continuation and isinstance(request, ChatRequest) and can_be_continued(request)
        self.trace = CallTrace(admitted.admission.request_id)
        #: Of a list of inputs: how many vectors were known. None: nobody looked.
        self.cached_inputs: int | None = None

    # Whole answers

    async def complete_answer(self) -> bytes:
        """Return the body of the answer. It is accounted for, also if this is canceled or raises."""
        outcome: IdempotencyOutcome = "drop"
        cached: tuple[CacheEntry, ...] = ()
        try:
            if isinstance(self._admitted.parsed.request, EmbeddingRequest):
                body, cached = await self._answer_embeddings(self._admitted.parsed.request)
            else:
                answered = await self._complete(self._admitted.parsed.request)
                body = self._encode(answered.answer, answered.target)
                cached = self._cache_entries(body)
            outcome = "keep"
            return body
        finally:
            self._runtime.spawn(self._settle(outcome, cached))

    async def write_answer(self, writer: EventLogWriter) -> None:
        """Write the answer as a stream of one event, for all who ask for the same."""
        try:
            body = await self.complete_answer()
        except asyncio.CancelledError:
            # Without a word it would look like an empty answer.
            self._write_error(writer, _cancellation_problem(writer))
            raise
        except Exception as error:
            self._write_error(writer, to_problem(error))
            await writer.finish(StreamEnd("error"))
            return
        writer.describe(status=200, content_type=JSON)
        writer.append([("", body)])
        await writer.finish(StreamEnd("done"))

    async def _answer_embeddings(self, request: EmbeddingRequest) -> tuple[bytes, tuple[CacheEntry, ...]]:
        """Answer with the vectors that are known, and ask for the others only."""
        known = await self._find_cached_vectors(request)
        if known is None:
            answered = await self._complete(request)
            return self._encode(answered.answer, answered.target), ()
        misses, target = None, self._admitted.targets[0]
        if known.misses is not None:
            misses, target = await self._request_embeddings(known.misses)
            if known.is_model_mismatch(misses):
                known = known.without_hits()
                misses, target = await self._request_embeddings(known.misses or request)
        self.cached_inputs = sum(each is not None for each in known.known)
        kept = known.entries_to_store(misses) if misses is not None else []
        cached = tuple(CacheEntry(key, vector, settings.CACHE_TTL_SECONDS) for key, vector in kept)
        return self._encode(known.answer(misses), target), cached

    async def _request_embeddings(self, request: EmbeddingRequest) -> tuple[Embeddings, Target]:
        answered = await self._complete(request)
        assert isinstance(answered.answer, Embeddings)
        return answered.answer, answered.target

    async def _find_cached_vectors(self, request: EmbeddingRequest) -> cache.EmbeddingCacheResult | None:
        """Look up what is known of an answer; None where nothing is kept."""
        keys = cache.embedding_keys(self._admitted.caller.site, request) if self._admitted.may_cache else None
        if keys is None or len(keys) > MAX_CACHED_INPUTS:
            return None
        try:
            return cache.to_embedding_cache_result(
                request, keys, await get_cached_answers(self._runtime.server, self._admitted.caller.site, keys)
            )
        except RedisUnavailable:
            return None

    def _encode(self, answer: InferenceResponse, target: Target) -> bytes:
        return encode_answer(self._admitted.parsed, answer, self._answer_metadata(target))

    async def _complete(self, request: InferenceRequest) -> Answered:
        result = await complete_non_streaming(request, self._admitted.targets, self._inference_context())
        match result:
            case Answered():
                return result
            case Exhausted(error):
                raise error
            case Deferred(error):
                raise error or ProviderOverloaded("Too many retries are under way at this provider; try again soon.")

    # Streams

    async def write_stream(self, writer: EventLogWriter) -> None:
        """Write the stream in the caller's dialect; end it with what its dialect says of the end."""
        outcome: IdempotencyOutcome = "drop"
        encoder: StreamEncoder | None = None
        metrics.streams_open.inc()
        try:
            async with aclosing(self._parts()) as parts:
                async for part in parts:
                    match part:
                        case TargetSelected(target):
                            encoder = encoder_for(self._admitted.parsed, self._answer_metadata(target))
                            writer.describe(status=200, content_type=EVENT_STREAM)
                        case TargetSwitched(target):
                            assert encoder is not None
                            encoder, frames = encoder.continue_with(target.provider.name)
                            writer.append(frames)
                        case Burst():
                            assert encoder is not None
                            self._append(writer, encoder, part)
            outcome = "keep"
            await writer.finish(StreamEnd("done"))
        except asyncio.CancelledError:
            self._interrupt(writer, encoder, _cancellation_problem(writer))
            raise
        except Exception as error:
            problem = to_problem(error)
            if problem.is_unexpected:
                log.error("stream_failed", exc_info=error)
            self._interrupt(writer, encoder, problem)
            await writer.finish(StreamEnd("error"))
        finally:
            metrics.streams_open.dec()
            self._runtime.spawn(self._settle(outcome))

    def _parts(self) -> AsyncGenerator[StreamPart, None]:
        request = self._admitted.parsed.request
        assert isinstance(request, ChatRequest)
        stream_answer = stream_with_continuation if self._continuation else stream
        return stream_answer(request, self._admitted.targets, self._inference_context())

    def _inference_context(self) -> InferenceContext:
        runtime, admitted = self._runtime, self._admitted
        return InferenceContext(
            trace=self.trace,
            ledger=LiveLedger(runtime, admitted),
            retry_budget=runtime.retry_budgets.for_site(admitted.caller.identity.site.id),
            deadline_seconds=settings.LIVE_TIMEOUT_SECONDS,
            provider_for=runtime.clients,
            rng=runtime.rng,
            breaker=runtime.breakers,
        )

    def _append(self, writer: EventLogWriter, encoder: StreamEncoder, burst: Burst) -> None:
        if frames := encoder.encode(burst):
            metrics.stream_events.inc(len(frames))
            writer.append(frames)

    def _interrupt(self, writer: EventLogWriter, encoder: StreamEncoder | None, problem: ApiProblem) -> None:
        """Say in the dialect that this is no end. Before the first event it is an answer with a status of its own."""
        if encoder is None:
            self._write_error(writer, problem)
        elif frames := encoder.encode_interruption(to_fault(problem)):
            writer.append(frames)

    def _write_error(self, writer: EventLogWriter, problem: ApiProblem) -> None:
        wire, request_id = self._admitted.parsed.wire, self._admitted.admission.request_id
        writer.describe(
            status=status_for(wire, problem), content_type=JSON, retry_after_seconds=problem.retry_after_seconds
        )
        writer.append([("", encode_error(wire, problem, request_id))])

    # Accounts

    def release(self) -> None:
        """Give back what was let in, and ask nobody."""
        self._runtime.spawn(self._settle("drop"))

    async def _settle(self, outcome: IdempotencyOutcome, cached: tuple[CacheEntry, ...] = ()) -> None:
        """Give back what was reserved, and hand over the accounts of all calls, in one round trip."""
        closed = [self._usage_record(call) for call in self.trace.closed]
        for call in self.trace.closed:
            metrics.upstream_calls.labels(call.opened.target.provider.name, call.outcome.value).inc()
        ended = to_settlement(
            self._admitted.admission,
            self._admitted.reservation,
            used_tokens=sum(call.usage.total_tokens for call in self.trace.closed),
            usage_rows=[encode_usage_record(usage_record) for usage_record in closed],
            outcome=outcome,
            cache=cached,
        )
        is_recorded = False
        try:
            await settle(self._runtime.server, ended)
            is_recorded = True
        except RedisUnavailable as error:
            log.error("settle_redis_unavailable", error=str(error), calls=len(closed))
            is_recorded = await self._write_to_postgres(closed)
            self._runtime.spawn(self._retry_settle(ended))
        finally:
            self._runtime.leases.release(self._admitted.admission.request_id, is_recorded=is_recorded)

    async def _retry_settle(self, ended: Settlement) -> None:
        """Give back what was reserved once Redis is back, if that is soon; or else it is held until it lapses."""
        for seconds in SETTLE_RETRY_DELAYS_SECONDS:
            await asyncio.sleep(seconds)
            with suppress(RedisUnavailable):
                await settle(self._runtime.server, ended)
                return

    async def _write_to_postgres(self, closed: Sequence[UsageRecord]) -> bool:
        try:
            await self._runtime.threads.run(usage_records.write, closed)
        except (OperationalError, InterfaceError) as error:
            log.critical(
                "usage_records_dropped",
                calls=[usage_record.dedupe_key for usage_record in closed],
                error=str(error)[:200],
            )
            return False
        return True

    def _usage_record(self, call: CallClosed) -> UsageRecord:
        # What a caller breaks off was worked on for it, until then.
        is_billable = call.outcome in (CallOutcome.OK, CallOutcome.CANCELED)
        return to_usage_record(self._admitted.attribution, call, billable=is_billable)

    def _answer_metadata(self, target: Target) -> AnswerMetadata:
        admitted = self._admitted
        return AnswerMetadata(
            answer_id=answer_id(admitted),
            created=self._created,
            request_id=admitted.admission.request_id,
            provider=target.provider.name,
            # What two providers wrote is put together from events, whoever they are.
            dialect=None if self._continuation else target.provider.dialect,
            input_tokens=admitted.input_tokens,
        )

    def _cache_entries(self, body: bytes) -> tuple[CacheEntry, ...]:
        key = self._admitted.admission.cache_key
        is_kept = key is not None and len(body) <= settings.CACHE_MAX_BODY_BYTES
        return (CacheEntry(key, body, settings.CACHE_TTL_SECONDS),) if is_kept and key is not None else ()


def _cancellation_problem(writer: EventLogWriter) -> ApiProblem:
    return SHUTTING_DOWN if writer.stream.cancel_reason == "shutdown" else CANCELED


def answer_id(admitted: AdmittedRequest) -> str:
    """Return how the answer is called in its dialect: after the stream it could be read from."""
    prefix = "msg" if admitted.parsed.wire.value == "anthropic" else "chatcmpl"
    return f"{prefix}-{admitted.admission.stream_id.partition('_')[2]}"


async def record_cache_hit(runtime: LiveRuntime, caller: Caller, request_id: str, parsed: ParsedRequest) -> None:
    """Write that an answer was given again: at no tokens and no cost, with the cache for a provider."""
    usage_record = UsageRecord(
        dedupe_key=f"{request_id}:1",
        site_id=caller.identity.site.id,
        job_id=None,
        attempt=None,
        call=1,
        request_id=request_id,
        provider=CACHE_PROVIDER,
        price_list="",
        model=parsed.request.model,
        upstream_model="",
        started_at=clock.now(),
        outcome=Usages.OK,
        http_status=200,
        duration_ms=0,
    )
    try:
        with translate_redis_errors():
            await runtime.server.rpush(USAGE_RECORDS_KEY, encode_usage_record(usage_record))
    except RedisUnavailable:
        # It cost nothing, and Redis, from which it came, has gone since.
        log.warning("cache_hit_not_recorded", request=request_id)


def start_run(runtime: LiveRuntime, admitted: AdmittedRequest, *, continuation: bool = False) -> LiveRun:
    runtime.leases.add(admitted.admission)
    return LiveRun(runtime, admitted, created=clock.unix_seconds(), continuation=continuation)
