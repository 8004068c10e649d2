"""One metered request for a complete answer."""

import random
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TypeAlias

from core.crash import CrashPoint, crash_point
from inference.call_recorder import CallRecorder, record_call
from inference.calls import CallLedger, CallTrace
from inference.circuit_breaker import NO_CIRCUIT_BREAKER, CircuitBreaker
from inference.failover import ActiveCall, FailoverPlan
from inference.retry_budget import RequestRetryBudget
from inference.routing import ProviderSpec, Target, filter_capable
from providers.errors import ProviderError
from providers.types import Burst, CallContext, ChatRequest, InferenceRequest, InferenceResponse, Provider


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer, from the last call of the trace."""

    answer: InferenceResponse
    target: Target


@dataclass(frozen=True, slots=True)
class Exhausted:
    """No target answered. `error` is the last one's; it is worth another try later if `retryable`."""

    error: ProviderError
    retryable: bool
    #: No target may be asked before this has passed.
    retry_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Deferred:
    """Nobody was asked: this would be a retry and the retry budget is spent, or `error` says why not."""

    error: ProviderError | None = None
    retry_after_seconds: float | None = None


#: Told of what comes while an answer is put together.
OnBurst: TypeAlias = Callable[[CallRecorder, Burst], None]

InferenceResult: TypeAlias = Answered | Exhausted | Deferred


async def complete(
    request: InferenceRequest,
    targets: tuple[Target, ...],
    *,
    trace: CallTrace,
    ledger: CallLedger,
    retry_budget: RequestRetryBudget,
    deadline_seconds: float,
    provider_for: Callable[[ProviderSpec], Provider],
    rng: random.Random,
    breaker: CircuitBreaker = NO_CIRCUIT_BREAKER,
    is_retry: bool = False,
    non_streaming: bool = False,
    on_burst: OnBurst | None = None,
) -> InferenceResult:
    """Ask the targets until one answers, or nothing more may be asked.

    `asked_before` says that an earlier attempt at the same request has failed. `non_streaming` asks for complete
    answers: what the provider wrote can then be passed on as it is. Without, a chat's answer comes as a stream and is
    put together; `on_burst` gets each burst. What cannot be put together is asked for as a whole anyway.

    Raises:
        InvalidRequest: no target can do all that is asked for.
        NoProvider: no target has a key.
        Exception: what the ledger raises; the call it was told of has then not been made.
    """
    plan = FailoverPlan(
        request.model,
        filter_capable(targets, request),
        retry_budget=retry_budget,
        deadline_seconds=deadline_seconds,
        rng=rng,
        breaker=breaker,
        is_retry=is_retry,
    )
    while (target := await plan.next_target()) is not None:
        upstream = request if request.model == target.upstream_model else replace(request, model=target.upstream_model)
        try:
            async with plan.track_call(target) as call, record_call(request, target, trace, ledger) as recorder:
                context = CallContext(recorder.opened.call_id, total_seconds=plan.remaining_seconds)
                answer = await _call_provider(
                    provider_for(target.provider), upstream, context, call, recorder, non_streaming, on_burst
                )
        except ProviderError as error:
            await plan.handle_failure(error)
        else:
            return Answered(answer, target)
    return _to_inference_result(plan)


async def _call_provider(
    provider: Provider,
    request: InferenceRequest,
    context: CallContext,
    call: ActiveCall,
    recorder: CallRecorder,
    non_streaming: bool,
    on_burst: OnBurst | None,
) -> InferenceResponse:
    if isinstance(request, ChatRequest) and request.untranslatable is None and not non_streaming:
        # Streamed also when nobody looks on: silence and cuts are noticed at once, and no proxy on the way gives up.
        async with aclosing(provider.stream(request, context)) as bursts:
            async for burst in bursts:
                recorder.add(burst)
                if on_burst is not None:
                    on_burst(recorder, burst)
                if recorder.has_content and not call.has_answered:
                    await call.report_answered()
        recorder.answer = recorder.collector.completion()
    else:
        recorder.answer = await _call_non_streaming(provider, request, context)
        crash_point(CrashPoint.IN_CALL)
    return recorder.answer


async def _call_non_streaming(provider: Provider, request: InferenceRequest, context: CallContext) -> InferenceResponse:
    if isinstance(request, ChatRequest):
        # The answer's first byte comes when the model has written its last.
        return await provider.complete(request, replace(context, first_byte_seconds=context.total_seconds))
    return await provider.embed(request, context)


def _to_inference_result(plan: FailoverPlan) -> Exhausted | Deferred:
    error, retryable = plan.failure, plan.is_retryable
    if error is None or (retryable and not plan.has_called):
        return Deferred(error, plan.retry_after_seconds)
    return Exhausted(error, retryable, plan.retry_after_seconds)
