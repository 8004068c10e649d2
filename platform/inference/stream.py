"""The event stream of one chat request: failover until the first token, none after it.

call 1 fails ──▶ call 2 answers: TargetSelected(target), Burst, Burst, …, Burst with AnswerFinished
interrupted after the first token ──▶ the error is raised

`inference.continuation` wraps this loop for callers that want an interrupted answer to be continued.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TypeAlias

from inference.call_recorder import record_call
from inference.context import InferenceContext
from inference.failover import FailoverPlan
from inference.routing import Target
from providers.errors import ProviderError, ProviderOverloaded, ResponseInterrupted
from providers.types import Burst, CallContext, ChatRequest


@dataclass(frozen=True, slots=True)
class TargetSelected:
    """This target answers; its bursts follow."""

    target: Target


@dataclass(frozen=True, slots=True)
class TargetSwitched:
    """The answer was interrupted, and this target continues it. Only `stream_with_continuation` yields it."""

    target: Target


StreamPart: TypeAlias = TargetSelected | Burst | TargetSwitched


def stream(
    request: ChatRequest, targets: tuple[Target, ...], context: InferenceContext
) -> AsyncGenerator[StreamPart, None]:
    """Yield the target that answers, then its bursts; the last burst holds `AnswerFinished`, or this raises.

    Every target must be able to serve the request (`permit`, or `routing.filter_capable`).

    Close the generator if you stop early: that closes the call upstream and adds it to the trace.

    Raises:
        NoProviderKey: no target has a key.
        ProviderError: no target answered, or the answer was interrupted.
        Exception: whatever the ledger raised; the call that it was to record has then not been made.
    """
    return stream_plan(request, FailoverPlan(request.model, targets, context))


async def stream_plan(request: ChatRequest, plan: FailoverPlan) -> AsyncGenerator[TargetSelected | Burst, None]:
    """Call the remaining targets of a plan until one answers, and yield its answer. See `stream`."""
    while (target := await plan.next_target()) is not None:
        has_content = False
        try:
            bursts = _call(request, target, plan)
            async with aclosing(bursts):
                async for burst in bursts:
                    if not has_content:
                        has_content = True
                        yield TargetSelected(target)
                    yield burst
            return
        except ProviderError as error:
            if has_content:
                raise
            await plan.handle_failure(error)
    raise plan.failure or ProviderOverloaded("The retry budget is exhausted.")


async def _call(request: ChatRequest, target: Target, plan: FailoverPlan) -> AsyncGenerator[Burst, None]:
    """Make one call; yield its bursts, from the first token on."""
    context = plan.context
    upstream = replace(request, model=target.upstream_model)
    held: list[Burst] = []
    async with plan.track_call(target) as call, record_call(request, target, context) as recorder:
        call_context = CallContext(recorder.opened.call_id, total_seconds=plan.remaining_seconds)
        async with aclosing(context.provider_for(target.provider).stream(upstream, call_context)) as bursts:
            async for burst in bursts:
                recorder.add(burst)
                held.append(burst)
                if recorder.collector.finished is not None:
                    break
                # Held back until the first token: while only the start was read, failover is still invisible.
                if recorder.has_content:
                    await call.report_answered()
                    # One burst, except at the first token.
                    for ready in held:
                        yield ready
                    held.clear()
            else:
                raise ResponseInterrupted("The provider's stream ended without a final event.")
    # The call is closed before its last burst is passed on: a caller rarely iterates beyond that one.
    for ready in held:
        yield ready
