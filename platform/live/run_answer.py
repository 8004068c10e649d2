"""Runs one admitted request for a complete answer: calls the provider, encodes its answer, and settles.

Embeddings are cached per input: only the inputs without a cached vector go to a provider.
"""

import asyncio
from functools import partial
from typing import Literal

from django.conf import settings

from core.redis import RedisUnavailable
from inference import cache
from inference.calls import CallTrace
from inference.complete import Answered, Deferred, Exhausted, complete_non_streaming
from inference.routing import Target
from live.admit import AdmittedRequest
from live.ledger import inference_context
from live.response_writer import AnswerEncoder
from live.runtime import LiveRuntime
from live.settlement import IdempotencyOutcome, spawn_settlement
from live.writer_task import ResponseWriterFactory, cancellation_error, start_writer_task
from providers.errors import ProviderOverloaded
from providers.types import EmbeddingRequest, Embeddings, InferenceRequest
from streams.buffer import LocalStream
from streams.entries import StreamEnd
from streams.writer import EventLogWriter
from tenants.rate_limiting.admission import get_cached_answers
from tenants.rate_limiting.types import CacheEntry

#: Longer lists of inputs are not looked up in the cache.
MAX_CACHED_INPUTS = 256


def start_answer(runtime: LiveRuntime, admitted: AdmittedRequest, make_writer: ResponseWriterFactory) -> LocalStream:
    """Start the writer task of a complete answer: a stream of one event, for all requests with the same key.

    Raises `StreamsClosed`.
    """
    return start_writer_task(runtime, admitted, "answer", partial(_write_answer, runtime, admitted, make_writer))


async def _write_answer(
    runtime: LiveRuntime,
    admitted: AdmittedRequest,
    make_writer: ResponseWriterFactory,
    event_log: EventLogWriter,
) -> None:
    writer = make_writer(event_log)
    try:
        body = await AnswerRun(runtime, admitted, writer).run()
    except asyncio.CancelledError:
        # Without an event the stream would look like an empty answer.
        writer.error(cancellation_error(event_log))
        raise
    except Exception as error:
        writer.error(error)
        await event_log.finish(StreamEnd("error"))
        return
    writer.answer(body)
    await event_log.finish(StreamEnd("done"))


class AnswerRun:
    """One request for a complete answer, in progress. The settlement at its end releases the request's lease."""

    def __init__(self, runtime: LiveRuntime, admitted: AdmittedRequest, encoder: AnswerEncoder) -> None:
        self._runtime = runtime
        self._admitted = admitted
        self._encoder = encoder
        self._trace = CallTrace(admitted.admission.request_id)
        self._looked_up = admitted.admission.cache_key is not None

    @classmethod
    def with_lease(cls, runtime: LiveRuntime, admitted: AdmittedRequest, encoder: AnswerEncoder) -> "AnswerRun":
        """Hold the lease of a request that has no writer task, and return its run."""
        runtime.leases.add(admitted.admission)
        return cls(runtime, admitted, encoder)

    @property
    def cache_status(self) -> Literal["hit", "miss"] | None:
        """Whether the cache had the answer; None if it was not looked up. Of embeddings: every vector."""
        if not self._looked_up:
            return None
        return "miss" if self._trace.closed else "hit"

    async def run(self) -> bytes:
        """Return the encoded answer. It is settled in the background, also if this is canceled or raises."""
        outcome: IdempotencyOutcome = "drop"
        cached: tuple[CacheEntry, ...] = ()
        request = self._admitted.request
        try:
            if isinstance(request, EmbeddingRequest):
                body, cached = await self._embed(request)
            else:
                answered = await self._complete(request)
                body = self._encoder.encode_answer(answered.answer, answered.target)
                cached = self._cache_entries(body)
            outcome = "keep"
            return body
        finally:
            spawn_settlement(self._runtime, self._admitted, self._trace, outcome, cached)

    async def _embed(self, request: EmbeddingRequest) -> tuple[bytes, tuple[CacheEntry, ...]]:
        """Return the encoded answer, and the vectors to cache. A provider gets only the inputs that are not cached."""
        result = await self._find_cached_vectors(request)
        if result is None:
            answered = await self._complete(request)
            return self._encoder.encode_answer(answered.answer, answered.target), ()
        misses, target = None, self._admitted.targets[0]
        if result.misses is not None:
            misses, target = await self._request_embeddings(result.misses)
            if result.is_model_mismatch(misses):
                result = result.without_hits()
                misses, target = await self._request_embeddings(result.misses or request)
        self._looked_up = True
        to_store = result.entries_to_store(misses) if misses is not None else []
        cached = tuple(CacheEntry(key, vector, settings.CACHE_TTL_SECONDS) for key, vector in to_store)
        return self._encoder.encode_answer(result.answer(misses), target), cached

    async def _request_embeddings(self, request: EmbeddingRequest) -> tuple[Embeddings, Target]:
        answered = await self._complete(request)
        assert isinstance(answered.answer, Embeddings)
        return answered.answer, answered.target

    async def _find_cached_vectors(self, request: EmbeddingRequest) -> cache.EmbeddingCacheResult | None:
        """Look up the vector of each input. None: nothing may be cached, or the cache is unavailable."""
        keys = cache.embedding_keys(self._admitted.caller.site, request) if self._admitted.may_cache else None
        if keys is None or len(keys) > MAX_CACHED_INPUTS:
            return None
        try:
            cached = await get_cached_answers(self._runtime.redis, self._admitted.caller.site, keys)
        except RedisUnavailable:
            return None
        return cache.to_embedding_cache_result(request, keys, cached)

    async def _complete(self, request: InferenceRequest) -> Answered:
        """Return a provider's answer. Raises `ProviderError`."""
        context = inference_context(self._runtime, self._admitted, self._trace)
        result = await complete_non_streaming(request, self._admitted.targets, context)
        match result:
            case Answered():
                return result
            case Exhausted(error):
                raise error
            case Deferred(error):
                raise error or ProviderOverloaded("Too many retries are in progress at this provider; try again soon.")

    def _cache_entries(self, body: bytes) -> tuple[CacheEntry, ...]:
        key = self._admitted.admission.cache_key
        if key is None or len(body) > settings.CACHE_MAX_BODY_BYTES:
            return ()
        return (CacheEntry(key, body, settings.CACHE_TTL_SECONDS),)
