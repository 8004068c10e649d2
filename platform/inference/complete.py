"""One metered request for a whole answer."""

import random
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TypeAlias

from core.crash import CrashPoint, crash_point
from inference.breaker import NO_BREAKER, Breaker
from inference.calls import Ledger, Trace
from inference.course import Asking, Course
from inference.recorded import Watch, recorded
from inference.retry_budget import Retries
from inference.routing import ProviderSpec, Target, able
from providers.errors import ProviderError
from providers.types import Answer, Burst, CallContext, ChatRequest, InferenceRequest, Provider


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
    """Nobody was asked: this would be a retry and the retry budget is spent, or `error` says why not."""

    error: ProviderError | None = None
    retry_after_seconds: float | None = None


#: Told of what comes while an answer is put together.
Hear: TypeAlias = Callable[[Watch, Burst], None]

Result: TypeAlias = Answered | Unanswered | PutOff


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
    breaker: Breaker = NO_BREAKER,
    asked_before: bool = False,
    whole: bool = False,
    hear: Hear | None = None,
) -> Result:
    """Ask the targets until one answers, or nothing more may be asked.

    `asked_before` says that an earlier attempt at the same request has failed. `whole` asks for whole answers: what
    the provider wrote can then be passed on as it is. Without, a chat's answer comes as a stream and is put together;
    `hear` is told of each burst. What cannot be put together is asked for as a whole anyway.

    Raises:
        InvalidRequest: no target can do all that is asked for.
        NoProvider: no target has a key.
        Exception: what the ledger raises; the call it was told of has then not been made.
    """
    course = Course(
        request.model,
        able(targets, request),
        retries=retries,
        deadline_seconds=deadline_seconds,
        chance=chance,
        breaker=breaker,
        asked_before=asked_before,
    )
    while (target := await course.next_target()) is not None:
        upstream = request if request.model == target.upstream_model else replace(request, model=target.upstream_model)
        try:
            async with course.asking(target) as asking, recorded(request, target, trace, ledger) as watch:
                context = CallContext(watch.opened.call_id, total_seconds=course.remaining_seconds)
                answer = await _ask(provider_for(target.provider), upstream, context, asking, watch, whole, hear)
        except ProviderError as error:
            await course.go_on(error)
        else:
            return Answered(answer, target)
    return _to_result(course)


async def _ask(
    provider: Provider,
    request: InferenceRequest,
    context: CallContext,
    asking: Asking,
    watch: Watch,
    whole: bool,
    hear: Hear | None,
) -> Answer:
    if isinstance(request, ChatRequest) and request.only_sent is None and not whole:
        # Streamed also when nobody looks on: silence and cuts are noticed at once, and no proxy on the way gives up.
        async with aclosing(provider.stream(request, context)) as bursts:
            async for burst in bursts:
                watch.add(burst)
                if hear is not None:
                    hear(watch, burst)
                if watch.has_begun and not asking.has_answered:
                    await asking.answers()
        watch.answer = watch.collector.completion()
    else:
        watch.answer = await _ask_whole(provider, request, context)
        crash_point(CrashPoint.IN_CALL)
    return watch.answer


async def _ask_whole(provider: Provider, request: InferenceRequest, context: CallContext) -> Answer:
    if isinstance(request, ChatRequest):
        # The answer's first byte comes when the model has written its last.
        return await provider.complete(request, replace(context, first_byte_seconds=context.total_seconds))
    return await provider.embed(request, context)


def _to_result(course: Course) -> Unanswered | PutOff:
    error, retryable = course.failure, course.is_worth_another_try
    if error is None or (retryable and not course.has_asked):
        return PutOff(error, course.retry_after_seconds)
    return Unanswered(error, retryable, course.retry_after_seconds)
