"""One metered request: its targets in order, retry, failover, one deadline and one budget of calls over all."""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace

import structlog

from core import clock
from core.crash import CrashPoint, crash_point
from inference.calls import CallClosed, CallOpened, CallOutcome, Ledger
from inference.collect import Collector
from inference.errors import NoProvider
from inference.policy import AskAgain, AskNext, GiveUp, decide
from inference.retry_budget import Retries
from inference.routing import ProviderSpec, Target, order
from providers.errors import Ambiguous, ProviderError, TimedOut
from providers.estimate import estimate_text, estimate_tokens
from providers.types import Answer, Burst, CallContext, ChatRequest, InferenceRequest, Provider, Usage

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Trace:
    """The calls of one request. It is the caller's, so that it can be read when the request was cut short."""

    #: `<prefix>:<call>` names a call here, upstream and in the accounts.
    prefix: str
    closed: list[CallClosed] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer, from the last call of the trace."""

    answer: Answer
    target: Target


@dataclass(frozen=True, slots=True)
class Unanswered:
    """No target answered. `error` is the last one's; it is worth another try later if `retryable`."""

    error: ProviderError
    retryable: bool
    #: No target may be asked before this has passed.
    retry_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class PutOff:
    """Nobody was asked: this would be a retry, and the retry budget is spent."""


async def complete(
    request: InferenceRequest,
    targets: tuple[Target, ...],
    *,
    trace: Trace,
    ledger: Ledger,
    retries: Retries,
    deadline_seconds: float,
    provider_for: Callable[[ProviderSpec], Provider],
    chance: random.Random,
    asked_before: bool = False,
) -> Answered | Unanswered | PutOff:
    """Ask the targets until one answers, or nothing more may be asked.

    `asked_before` says that an earlier attempt at the same request has failed.

    Raises:
        NoProvider: no target has a key.
        Exception: what the ledger raises; the call it was told of has then not been made.
    """
    deadline = time.monotonic() + deadline_seconds
    waiting = _with_key(request.model, order(targets, chance))
    failed: list[ProviderError] = []
    target, tries = waiting.pop(0), 0
    while True:
        remaining_seconds = deadline - time.monotonic()
        if remaining_seconds <= 0:
            failed.append(TimedOut(f"No answer within {deadline_seconds:g} s, over all tries."))
            return _unanswered(failed)
        tries += 1
        if not _may_ask(target, retries, is_again=asked_before or tries > 1):
            if not waiting:
                return _unanswered(failed) if failed else PutOff()
            target, tries = waiting.pop(0), 0
            continue
        result = await _call(request, target, trace, ledger, remaining_seconds, provider_for)
        if not isinstance(result, ProviderError):
            return Answered(result, target)
        failed.append(result)
        step = decide(
            result,
            tries=tries,
            calls=len(trace.closed),
            has_next=bool(waiting),
            remaining_seconds=deadline - time.monotonic(),
            chance=chance,
        )
        match step:
            case AskAgain(wait_seconds):
                await asyncio.sleep(wait_seconds)
            case AskNext():
                target, tries = waiting.pop(0), 0
            case GiveUp():
                return _unanswered(failed)


def _with_key(model: str, targets: list[Target]) -> list[Target]:
    usable = [target for target in targets if target.provider.api_key]
    if not usable:
        raise NoProvider(model, [target.provider.name for target in targets])
    return usable


def _may_ask(target: Target, retries: Retries, *, is_again: bool) -> bool:
    if is_again:
        return retries.take(target.provider.name)
    retries.first(target.provider.name)
    return True


def _unanswered(failed: list[ProviderError]) -> Unanswered:
    # A wrong request is wrong everywhere and ends the matter; else, one target that may recover is enough.
    last = failed[-1]
    retryable = last.failover and any(error.retryable for error in failed)
    floors = [error.retry_after_seconds for error in failed if error.retry_after_seconds is not None]
    return Unanswered(last, retryable, max(floors, default=None))


async def _call(
    request: InferenceRequest,
    target: Target,
    trace: Trace,
    ledger: Ledger,
    remaining_seconds: float,
    provider_for: Callable[[ProviderSpec], Provider],
) -> Answer | ProviderError:
    """Make one call, and add what became of it to the trace. Provider errors are returned."""
    number = len(trace.closed) + 1
    opened = CallOpened(number, f"{trace.prefix}:{number}", target, clock.now())
    await ledger.open(opened, trace.closed[-1] if trace.closed else None)
    crash_point(CrashPoint.BEFORE_CALL)
    watch = _Watch(opened, request)
    upstream = replace(request, model=target.upstream_model)
    context = CallContext(call_id=opened.call_id, total_seconds=remaining_seconds)
    try:
        answer = await _ask(provider_for(target.provider), upstream, context, watch)
    except ProviderError as error:
        trace.closed.append(watch.failed(error))
        log.warning(
            "call_failed",
            provider=target.provider.name,
            model=target.upstream_model,
            call=number,
            kind=error.kind,
            status=error.status,
            code=error.code,
        )
        return error
    except asyncio.CancelledError:
        trace.closed.append(watch.canceled())
        raise
    except Exception:
        # A fault of ours; the call was made all the same, and its account must not stay open.
        trace.closed.append(watch.failed(Ambiguous("The desk failed while it made this call.")))
        raise
    trace.closed.append(watch.answered(answer))
    return answer


async def _ask(provider: Provider, request: InferenceRequest, context: CallContext, watch: "_Watch") -> Answer:
    if isinstance(request, ChatRequest):
        # Streamed also when nobody looks on: silence and cuts are noticed at once, and no proxy on the way gives up.
        async with aclosing(provider.stream(request, context)) as bursts:
            async for burst in bursts:
                watch.add(burst)
        return watch.collector.completion()
    answer = await provider.embed(request, context)
    crash_point(CrashPoint.IN_CALL)
    return answer


class _Watch:
    """Times one call, and tells what it used."""

    def __init__(self, opened: CallOpened, request: InferenceRequest) -> None:
        self.opened = opened
        self.request = request
        self.collector = Collector()
        self._started = time.monotonic()
        self._first_event_ms: int | None = None

    def add(self, burst: Burst) -> None:
        if self._first_event_ms is None and burst.events:
            self._first_event_ms = self._elapsed_ms()
            crash_point(CrashPoint.IN_CALL)
        for event in burst.events:
            self.collector.add(event)

    def answered(self, answer: Answer) -> CallClosed:
        return self._closed(CallOutcome.OK, answer.usage)

    def failed(self, error: ProviderError) -> CallClosed:
        outcome = CallOutcome.TIMEOUT if isinstance(error, TimedOut) else CallOutcome.ERROR
        if error.maybe_billed:
            return self._closed(outcome, self._finished_usage(), error)
        return self._closed(outcome, Usage(), error)

    def canceled(self) -> CallClosed:
        return self._closed(CallOutcome.CANCELED, self._finished_usage())

    def _finished_usage(self) -> Usage | None:
        return self.collector.finished.usage if self.collector.finished else None

    def _closed(self, outcome: CallOutcome, usage: Usage | None, error: ProviderError | None = None) -> CallClosed:
        return CallClosed(
            opened=self.opened,
            outcome=outcome,
            # Missing usage is not zero: the provider may have worked, and billed.
            usage=self._estimate() if usage is None else usage,
            estimated=usage is None,
            duration_ms=self._elapsed_ms(),
            first_token_ms=self._first_event_ms,
            error=error,
        )

    def _estimate(self) -> Usage:
        return Usage(estimate_tokens(self.request), estimate_text(self.collector.received))

    def _elapsed_ms(self) -> int:
        return int((time.monotonic() - self._started) * 1000)
