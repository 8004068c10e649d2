"""Runs what was let in: asks the providers, writes the stream, and accounts for every call, whatever happens."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Literal

import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError

from api.errors import Problem, problem_of
from api.live.answer import EVENT_STREAM, JSON
from api.live.begin import Begun
from api.live.desk import LiveDesk
from api.live.edges import Answering, Wanted, encode_answer, encode_error, encoder_for, status_for, to_fault
from api.live.who import Known
from core import clock, metrics
from core.redis import RedisAway, redis_errors
from inference import cache
from inference.accounts import to_account, to_open_account
from inference.calls import CallClosed, CallOpened, CallOutcome, Trace
from inference.complete import Answered, PutOff, Unanswered, complete
from inference.continuation import can_be_continued
from inference.routing import Target
from inference.stream import Answering as Answers
from inference.stream import Continued, Part, stream
from metering import accounts
from metering.accounts import CACHE, Account
from metering.buffer import USAGE, to_entry
from metering.models import Outcome as Usages
from providers.dialects.encoding import StreamEncoder
from providers.errors import Overloaded
from providers.types import Answer, Burst, ChatRequest, EmbeddingRequest, Embeddings, InferenceRequest, Usage
from streams.entries import End
from streams.log import Writer
from tenants.admission.admission import open_key, recall, settle
from tenants.admission.asks import Cached, Settlement, settlement

log = structlog.get_logger(__name__)

CANCELED = Problem(499, "server_error", "stream_canceled", "The stream was canceled before its end.")
STOPPED = Problem(503, "service_unavailable_error", "stopping", "The desk is restarting; this answer was broken off.")

#: How long a Redis that did not take the end of a request is left alone, each time.
SETTLED_AGAIN_AFTER = (0.5, 1, 2, 4, 8, 15, 30)

Outcome = Literal["keep", "drop"]

#: Longer lists of inputs are asked for as a whole.
MOST_RECALLED = 256


@dataclass(frozen=True, slots=True)
class LiveLedger:
    """Keeps the account of the call under way in Redis, so that a killed process leaves its trace there."""

    desk: LiveDesk
    begun: Begun

    async def open(self, call: CallOpened, closed_before: CallClosed | None) -> None:
        if call.number == 1:
            # It was opened with the admission, in the same round trip.
            return
        account = to_entry(to_open_account(self.begun.asker, call, Usage(self.begun.input_tokens)))
        try:
            with redis_errors():
                key = open_key(self.desk.mark.id)
                pipeline = self.desk.server.pipeline(transaction=False)
                pipeline.hset(key, self.begun.ask.request_id, account)
                if closed_before is not None:
                    # Its place is taken now. Coming again at the end, it changes nothing.
                    pipeline.rpush(USAGE, to_entry(to_account(self.begun.asker, closed_before)))
                await pipeline.execute()
        except RedisAway:
            # The call is made all the same; only should this process be killed now, nobody would know of it.
            log.warning("open_account_not_kept", call=call.call_id)


class Run:
    """One request under way."""

    def __init__(self, desk: LiveDesk, begun: Begun, *, created: int, continuation: bool = False) -> None:
        self._desk = desk
        self._begun = begun
        self._created = created
        request = begun.wanted.request
        self._continuation = continuation and isinstance(request, ChatRequest) and can_be_continued(request)
        self.trace = Trace(begun.ask.request_id)
        #: Of a list of inputs: how many vectors were known. None: nobody looked.
        self.known_inputs: int | None = None

    # Whole answers

    async def whole(self) -> bytes:
        """Return the body of the answer. It is accounted for, also if this is canceled or raises."""
        outcome: Outcome = "drop"
        cached: tuple[Cached, ...] = ()
        try:
            if isinstance(self._begun.wanted.request, EmbeddingRequest):
                body, cached = await self._vectors(self._begun.wanted.request)
            else:
                answered = await self._ask_whole(self._begun.wanted.request)
                body = self._encode(answered.answer, answered.target)
                cached = self._to_cache(body)
            outcome = "keep"
            return body
        finally:
            self._desk.do_beside(self._settle(outcome, cached))

    async def write_whole(self, writer: Writer) -> None:
        """Write the answer as a stream of one event, for all who ask for the same."""
        try:
            body = await self.whole()
        except asyncio.CancelledError:
            # Without a word it would look like an empty answer.
            self._write_problem(writer, _cancellation_of(writer))
            raise
        except Exception as error:
            self._write_problem(writer, problem_of(error))
            await writer.finish(End("error"))
            return
        writer.describe(status=200, content_type=JSON)
        writer.append([("", body)])
        await writer.finish(End("done"))

    async def _vectors(self, request: EmbeddingRequest) -> tuple[bytes, tuple[Cached, ...]]:
        """Answer with the vectors that are known, and ask for the others only."""
        known = await self._recall(request)
        if known is None:
            answered = await self._ask_whole(request)
            return self._encode(answered.answer, answered.target), ()
        rest, target = None, self._begun.targets[0]
        if known.rest is not None:
            rest, target = await self._embed(known.rest)
            if known.is_of_another_model(rest):
                known = known.forgotten()
                rest, target = await self._embed(known.rest or request)
        self.known_inputs = sum(each is not None for each in known.known)
        kept = known.to_keep(rest) if rest is not None else []
        cached = tuple(Cached(key, vector, settings.CACHE_SECONDS) for key, vector in kept)
        return self._encode(known.answer(rest), target), cached

    async def _embed(self, request: EmbeddingRequest) -> tuple[Embeddings, Target]:
        answered = await self._ask_whole(request)
        assert isinstance(answered.answer, Embeddings)
        return answered.answer, answered.target

    async def _recall(self, request: EmbeddingRequest) -> cache.Recalled | None:
        """Look up what is known of an answer; None where nothing is kept."""
        keys = cache.keys_of_inputs(self._begun.known.site, request) if self._begun.may_cache else None
        if keys is None or len(keys) > MOST_RECALLED:
            return None
        try:
            return cache.recalled(request, keys, await recall(self._desk.server, self._begun.known.site, keys))
        except RedisAway:
            return None

    def _encode(self, answer: Answer, target: Target) -> bytes:
        return encode_answer(self._begun.wanted, answer, self._answering(target))

    async def _ask_whole(self, request: InferenceRequest) -> Answered:
        begun = self._begun
        result = await complete(
            request,
            begun.targets,
            trace=self.trace,
            ledger=LiveLedger(self._desk, begun),
            retries=self._desk.budgets.of_site(begun.known.identity.site.id),
            deadline_seconds=settings.LIVE_SECONDS,
            provider_for=self._desk.clients,
            chance=self._desk.chance,
            breaker=self._desk.breakers,
            whole=True,
        )
        match result:
            case Answered():
                return result
            case Unanswered(error):
                raise error
            case PutOff(error):
                raise error or Overloaded("Too many retries are under way at this provider; try again soon.")

    # Streams

    async def write_stream(self, writer: Writer) -> None:
        """Write the stream in the caller's dialect; end it with what its dialect says of the end."""
        outcome: Outcome = "drop"
        encoder: StreamEncoder | None = None
        metrics.streams_open.inc()
        try:
            async with aclosing(self._parts()) as parts:
                async for part in parts:
                    match part:
                        case Answers(target):
                            encoder = encoder_for(self._begun.wanted, self._answering(target))
                            writer.describe(status=200, content_type=EVENT_STREAM)
                        case Continued(target):
                            assert encoder is not None
                            encoder, frames = encoder.continued(target.provider.name)
                            writer.append(frames)
                        case Burst():
                            assert encoder is not None
                            self._append(writer, encoder, part)
            outcome = "keep"
            await writer.finish(End("done"))
        except asyncio.CancelledError:
            self._interrupt(writer, encoder, _cancellation_of(writer))
            raise
        except Exception as error:
            problem = problem_of(error)
            if problem.code == "internal_error":
                log.error("stream_broke", exc_info=error)
            self._interrupt(writer, encoder, problem)
            await writer.finish(End("error"))
        finally:
            metrics.streams_open.dec()
            self._desk.do_beside(self._settle(outcome))

    def _parts(self) -> AsyncGenerator[Part, None]:
        begun = self._begun
        assert isinstance(begun.wanted.request, ChatRequest)
        return stream(
            begun.wanted.request,
            begun.targets,
            trace=self.trace,
            ledger=LiveLedger(self._desk, begun),
            retries=self._desk.budgets.of_site(begun.known.identity.site.id),
            deadline_seconds=settings.LIVE_SECONDS,
            provider_for=self._desk.clients,
            chance=self._desk.chance,
            breaker=self._desk.breakers,
            continuation=self._continuation,
        )

    def _append(self, writer: Writer, encoder: StreamEncoder, burst: Burst) -> None:
        if frames := encoder.encode(burst):
            metrics.stream_events.inc(len(frames))
            writer.append(frames)

    def _interrupt(self, writer: Writer, encoder: StreamEncoder | None, problem: Problem) -> None:
        """Say in the dialect that this is no end. Before the first event it is an answer with a status of its own."""
        if encoder is None:
            self._write_problem(writer, problem)
        elif frames := encoder.interrupt(to_fault(problem)):
            writer.append(frames)

    def _write_problem(self, writer: Writer, problem: Problem) -> None:
        wire, request_id = self._begun.wanted.wire, self._begun.ask.request_id
        writer.describe(
            status=status_for(wire, problem), content_type=JSON, retry_after_seconds=problem.retry_after_seconds
        )
        writer.append([("", encode_error(wire, problem, request_id))])

    # Accounts

    def give_up(self) -> None:
        """Give back what was let in, and ask nobody."""
        self._desk.do_beside(self._settle("drop"))

    async def _settle(self, outcome: Outcome, cached: tuple[Cached, ...] = ()) -> None:
        """Give back what was reserved, and hand over the accounts of all calls, in one round trip."""
        closed = [self._account(call) for call in self.trace.closed]
        for call in self.trace.closed:
            metrics.upstream_calls.labels(call.opened.target.provider.name, call.outcome.value).inc()
        ended = settlement(
            self._begun.ask,
            self._begun.admitted,
            used_tokens=sum(call.usage.total_tokens for call in self.trace.closed),
            usage_rows=[to_entry(account) for account in closed],
            outcome=outcome,
            cache=cached,
        )
        is_accounted = False
        try:
            await settle(self._desk.server, ended)
            is_accounted = True
        except RedisAway as error:
            log.error("settled_without_redis", error=str(error), calls=len(closed))
            is_accounted = await self._write_to_postgres(closed)
            self._desk.do_beside(self._settle_later(ended))
        finally:
            self._desk.leases.drop(self._begun.ask.request_id, is_accounted=is_accounted)

    async def _settle_later(self, ended: Settlement) -> None:
        """Give back what was reserved once Redis is back, if that is soon; or else it is held until it lapses."""
        for seconds in SETTLED_AGAIN_AFTER:
            await asyncio.sleep(seconds)
            with suppress(RedisAway):
                await settle(self._desk.server, ended)
                return

    async def _write_to_postgres(self, closed: Sequence[Account]) -> bool:
        try:
            await self._desk.threads.run(accounts.write, closed)
        except (OperationalError, InterfaceError) as error:
            log.critical("accounts_lost", calls=[account.dedupe_key for account in closed], error=str(error)[:200])
            return False
        return True

    def _account(self, call: CallClosed) -> Account:
        # What a caller breaks off was worked on for it, until then.
        is_billable = call.outcome in (CallOutcome.OK, CallOutcome.CANCELED)
        return to_account(self._begun.asker, call, billable=is_billable)

    def _answering(self, target: Target) -> Answering:
        begun = self._begun
        return Answering(
            answer_id=answer_id(begun),
            created=self._created,
            request_id=begun.ask.request_id,
            provider=target.provider.name,
            # What two providers wrote is put together from events, whoever they are.
            dialect=None if self._continuation else target.provider.dialect,
            input_tokens=begun.input_tokens,
        )

    def _to_cache(self, body: bytes) -> tuple[Cached, ...]:
        key = self._begun.ask.cache_key
        is_kept = key is not None and len(body) <= settings.CACHE_BODY_BYTES
        return (Cached(key, body, settings.CACHE_SECONDS),) if is_kept and key is not None else ()


def _cancellation_of(writer: Writer) -> Problem:
    return STOPPED if writer.stream.canceled_because == "stopped" else CANCELED


def answer_id(begun: Begun) -> str:
    """Return how the answer is called in its dialect: after the stream it could be read from."""
    prefix = "msg" if begun.wanted.wire.value == "anthropic" else "chatcmpl"
    return f"{prefix}-{begun.ask.stream_id.partition('_')[2]}"


async def account_for_hit(desk: LiveDesk, known: Known, request_id: str, wanted: Wanted) -> None:
    """Write that an answer was given again: at no tokens and no cost, with the cache for a provider."""
    account = Account(
        dedupe_key=f"{request_id}:1",
        site_id=known.identity.site.id,
        job_id=None,
        attempt=None,
        call=1,
        request_id=request_id,
        provider=CACHE,
        price_list="",
        model=wanted.request.model,
        upstream_model="",
        started_at=clock.now(),
        outcome=Usages.OK,
        http_status=200,
        duration_ms=0,
    )
    try:
        with redis_errors():
            await desk.server.rpush(USAGE, to_entry(account))
    except RedisAway:
        # It cost nothing, and Redis, from which it came, has gone since.
        log.warning("cache_hit_not_accounted", request=request_id)


def start_run(desk: LiveDesk, begun: Begun, *, continuation: bool = False) -> Run:
    desk.leases.add(begun.ask)
    return Run(desk, begun, created=clock.unix_seconds(), continuation=continuation)
