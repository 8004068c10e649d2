"""Complete (non-streaming) answers: calls the targets of one request until one answers."""

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TypeAlias

from core.crash import CrashPoint, crash_point
from inference.call_recorder import CallRecorder, record_call
from inference.context import InferenceContext
from inference.failover import ActiveCall, FailoverPlan
from inference.routing import Target
from providers.errors import ProviderError
from providers.types import Burst, CallContext, ChatRequest, InferenceRequest, InferenceResponse, Provider


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer, from the last call of the trace, and the target that gave it."""

    answer: InferenceResponse
    target: Target


@dataclass(frozen=True, slots=True)
class Exhausted:
    """No target answered. `error` is the last target's; a later attempt makes sense if `retryable`."""

    error: ProviderError
    retryable: bool
    #: The longest `Retry-After` of the targets: a later attempt waits at least this long.
    retry_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Deferred:
    """No call was made: `error` says why, or without one, the retry budget is exhausted."""

    error: ProviderError | None = None
    retry_after_seconds: float | None = None


#: Called with each burst while a streamed answer is collected.
OnBurst: TypeAlias = Callable[[CallRecorder, Burst], None]

InferenceResult: TypeAlias = Answered | Exhausted | Deferred


async def complete(
    request: InferenceRequest, targets: tuple[Target, ...], context: InferenceContext, on_burst: OnBurst | None = None
) -> InferenceResult:
    """Call the targets until one answers or no further call is allowed; return the complete answer.

    A chat is streamed and its answer collected, so that silence and interruptions are noticed immediately and no proxy
    on the way times out; `on_burst` gets each burst. An answer that cannot be collected (`untranslatable`, or
    embeddings) is requested non-streaming. Every target must be able to serve the request (`permit`, or
    `routing.filter_capable`).

    Raises:
        NoProviderKey: no target has a key.
        Exception: whatever the ledger raised; the call that it was to record has then not been made.
    """
    if isinstance(request, ChatRequest) and request.untranslatable is None:
        return await _call_targets(request, targets, context, lambda call: _collect_stream(call, on_burst))
    return await complete_non_streaming(request, targets, context)


async def complete_non_streaming(
    request: InferenceRequest, targets: tuple[Target, ...], context: InferenceContext
) -> InferenceResult:
    """Like `complete`, with one non-streaming response: what the provider wrote can then be passed on unchanged."""
    return await _call_targets(request, targets, context, _call_non_streaming)


@dataclass(slots=True)
class _UpstreamCall:
    """One call to one provider, about to be made."""

    provider: Provider
    #: Names the provider's own model.
    request: InferenceRequest
    context: CallContext
    active: ActiveCall
    recorder: CallRecorder


async def _call_targets(
    request: InferenceRequest,
    targets: tuple[Target, ...],
    context: InferenceContext,
    make_call: Callable[[_UpstreamCall], Awaitable[InferenceResponse]],
) -> InferenceResult:
    plan = FailoverPlan(request.model, targets, context)
    while (target := await plan.next_target()) is not None:
        upstream = request if request.model == target.upstream_model else replace(request, model=target.upstream_model)
        try:
            async with plan.track_call(target) as active, record_call(request, target, context) as recorder:
                call_context = CallContext(recorder.opened.call_id, total_seconds=plan.remaining_seconds)
                provider = context.provider_for(target.provider)
                answer = await make_call(_UpstreamCall(provider, upstream, call_context, active, recorder))
                recorder.answer = answer
        except ProviderError as error:
            await plan.handle_failure(error)
        else:
            return Answered(answer, target)
    return _to_inference_result(plan)


async def _collect_stream(call: _UpstreamCall, on_burst: OnBurst | None) -> InferenceResponse:
    assert isinstance(call.request, ChatRequest)
    recorder = call.recorder
    async with aclosing(call.provider.stream(call.request, call.context)) as bursts:
        async for burst in bursts:
            recorder.add(burst)
            if on_burst is not None:
                on_burst(recorder, burst)
            if recorder.has_content and not call.active.has_answered:
                await call.active.report_answered()
    return recorder.collector.completion()


async def _call_non_streaming(call: _UpstreamCall) -> InferenceResponse:
    if isinstance(call.request, ChatRequest):
        # The first byte comes only when the model has finished.
        patient = replace(call.context, first_byte_seconds=call.context.total_seconds)
        answer: InferenceResponse = await call.provider.complete(call.request, patient)
    else:
        answer = await call.provider.embed(call.request, call.context)
    crash_point(CrashPoint.IN_CALL)
    return answer


def _to_inference_result(plan: FailoverPlan) -> Exhausted | Deferred:
    error, retryable = plan.failure, plan.is_retryable
    if error is None or (retryable and not plan.has_called):
        return Deferred(error, plan.retry_after_seconds)
    return Exhausted(error, retryable, plan.retry_after_seconds)
