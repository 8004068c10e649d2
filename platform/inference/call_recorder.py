"""Recording of one provider call: opened in the ledger before it is made, closed in the trace however it ends."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from core import clock
from core.crash import CrashPoint, crash_point
from inference.calls import CallClosed, CallOpened, CallOutcome
from inference.context import InferenceContext
from inference.routing import Target
from inference.stream_collector import StreamCollector
from providers.errors import AmbiguousOutcome, ProviderError, ProviderTimeout
from providers.tiers import Tier
from providers.token_estimation import estimate_input_tokens, estimate_output_tokens, estimate_text_tokens
from providers.types import AnswerStarted, Burst, Completion, InferenceRequest, InferenceResponse, Usage

log = structlog.get_logger(__name__)


@asynccontextmanager
async def record_call(
    request: InferenceRequest, target: Target, context: InferenceContext
) -> AsyncIterator["CallRecorder"]:
    """Open a call in the ledger; when the block is left, add its result to the trace.

    Raises what the ledger raises: the call must then not be made.
    """
    trace = context.trace
    number = len(trace.closed) + 1
    opened = CallOpened(number, f"{trace.prefix}:{number}", target, clock.now(), target.tier_of(request))
    await context.ledger.open(opened, trace.closed[-1] if trace.closed else None)
    crash_point(CrashPoint.BEFORE_CALL)
    recorder = CallRecorder(opened, request)
    try:
        yield recorder
    except ProviderError as error:
        trace.closed.append(recorder.failed(error))
        log.warning(
            "call_failed",
            provider=target.provider.name,
            model=target.upstream_model,
            call=number,
            kind=error.kind,
            status=error.status,
            code=error.code,
        )
        raise
    except (asyncio.CancelledError, GeneratorExit):
        trace.closed.append(recorder.canceled())
        raise
    except Exception:
        # A bug of ours. The call was made nevertheless, so its usage record must be closed.
        trace.closed.append(recorder.failed(AmbiguousOutcome("Internal error during this call.")))
        raise
    trace.closed.append(recorder.answered())


class CallRecorder:
    """Measures one call and its usage. Add the bursts of a stream, or set the complete `answer`."""

    def __init__(self, opened: CallOpened, request: InferenceRequest) -> None:
        self.opened = opened
        self.request = request
        self.collector = StreamCollector()
        self.answer: InferenceResponse | None = None
        #: An event other than `AnswerStarted` has arrived.
        self.has_content = False
        #: Usage reported before `AnswerFinished`, which may never arrive.
        self._usage: Usage | None = None
        self._started = time.monotonic()
        self._first_token_ms: int | None = None

    def add(self, burst: Burst) -> None:
        if self._first_token_ms is None and burst.events:
            self._first_token_ms = self._elapsed_ms()
            crash_point(CrashPoint.IN_CALL)
        self._usage = burst.usage or self._usage
        self.collector.tier = burst.tier or self.collector.tier
        for event in burst.events:
            self.collector.add(event)
            self.has_content = self.has_content or not isinstance(event, AnswerStarted)

    def answered(self) -> CallClosed:
        return self._closed(CallOutcome.OK, self.answer.usage if self.answer else self._reported_usage())

    def failed(self, error: ProviderError) -> CallClosed:
        outcome = CallOutcome.TIMEOUT if isinstance(error, ProviderTimeout) else CallOutcome.ERROR
        if error.maybe_billed:
            return self._closed(outcome, self._reported_usage(), error)
        return self._closed(outcome, Usage(), error)

    def canceled(self) -> CallClosed:
        return self._closed(CallOutcome.CANCELED, self._reported_usage())

    def _reported_usage(self) -> Usage | None:
        return self.collector.finished.usage if self.collector.finished else self._usage

    def _closed(self, outcome: CallOutcome, usage: Usage | None, error: ProviderError | None = None) -> CallClosed:
        return CallClosed(
            opened=self.opened,
            outcome=outcome,
            # Missing usage is not zero: the provider may have processed and billed the request.
            usage=self._estimate() if usage is None else usage,
            estimated=usage is None,
            duration_ms=self._elapsed_ms(),
            first_token_ms=self._first_token_ms,
            error=error,
            tier=self._reported_tier() or self.opened.tier,
        )

    def _reported_tier(self) -> Tier | None:
        return self.answer.tier if isinstance(self.answer, Completion) else self.collector.tier

    def _estimate(self) -> Usage:
        if isinstance(self.answer, Completion):
            output_tokens = estimate_output_tokens(self.answer)
        else:
            output_tokens = estimate_text_tokens(self.collector.received)
        return Usage(estimate_input_tokens(self.request), output_tokens)

    def _elapsed_ms(self) -> int:
        return int((time.monotonic() - self._started) * 1000)
