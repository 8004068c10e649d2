"""One request over all its targets: retry, failover, one deadline, and an account of every call."""

import asyncio

import pytest

from inference.calls import CallClosed, CallOpened, CallOutcome
from inference.complete import Answered, Deferred, Exhausted
from inference.errors import NoProviderKey
from inference.retry_budget import RetryBudgets
from providers import errors
from providers.dialects import openai
from providers.scripted_provider import ScriptedProvider
from providers.types import AnswerFinished, Completion, FinishReason, InferenceRequest, TextDelta, Usage
from tests.platform.inference.harness import BUSY, HELLO, InferenceHarness, InMemoryLedger


async def test_the_first_target_answers_and_one_call_is_written() -> None:
    desk = InferenceHarness(one=ScriptedProvider(HELLO), two=ScriptedProvider())

    result = await desk.complete()

    assert isinstance(result, Answered)
    assert isinstance(result.answer, Completion)
    assert (result.answer.text, result.target.upstream_model) == ("Hello", "one-model")
    assert desk.calls() == [("one", CallOutcome.OK)]
    assert desk.trace.closed[0].usage == Usage(9, 1)
    assert desk.trace.closed[0].estimated is False


async def test_the_provider_is_asked_for_its_own_model() -> None:
    one = ScriptedProvider(HELLO)
    await InferenceHarness(one=one).complete()

    assert [received.request.model for received in one.received] == ["one-model"]


async def test_a_fault_is_asked_again_then_the_next_target_answers() -> None:
    desk = InferenceHarness(one=ScriptedProvider(BUSY, errors.TransientFailure("reset")), two=ScriptedProvider(HELLO))

    assert isinstance(await desk.complete(), Answered)
    assert desk.calls() == [("one", CallOutcome.ERROR), ("one", CallOutcome.ERROR), ("two", CallOutcome.OK)]
    assert [call.call_id for call in desk.ledger.opened] == ["job_1:1:1", "job_1:1:2", "job_1:1:3"]
    # Each opening also closes the call before it; the last is closed by whoever ends the request.
    assert desk.ledger.closed == desk.trace.closed[:2]


async def test_a_call_is_written_before_it_is_made() -> None:
    one = ScriptedProvider(HELLO)
    desk = InferenceHarness(one=one)

    class Refusing(InMemoryLedger):
        async def open(self, call: CallOpened, previous_call: CallClosed | None) -> None:
            raise ConnectionError("no database")

    desk.ledger = Refusing()
    with pytest.raises(ConnectionError):
        await desk.complete()

    assert one.received == []


async def test_a_wrong_request_is_not_asked_of_the_next_target() -> None:
    desk = InferenceHarness(
        one=ScriptedProvider(errors.RequestRejected("no such field", 400)), two=ScriptedProvider(HELLO)
    )

    result = await desk.complete()

    assert isinstance(result, Exhausted)
    assert (result.error.message, result.retryable) == ("no such field", False)
    assert desk.calls() == [("one", CallOutcome.ERROR)]


async def test_when_nobody_answers_one_target_that_may_recover_is_worth_another_try() -> None:
    desk = InferenceHarness(
        one=ScriptedProvider(errors.ProviderRateLimited("slow", 429, retry_after_seconds=40)),
        two=ScriptedProvider(errors.ProviderKeyRejected("bad key", 401)),
    )

    result = await desk.complete()

    assert isinstance(result, Exhausted)
    assert (result.retryable, result.retry_after_seconds) == (True, 40)


async def test_dead_keys_everywhere_are_not_worth_another_try() -> None:
    dead = errors.ProviderKeyRejected("bad key", 401)
    result = await InferenceHarness(one=ScriptedProvider(dead), two=ScriptedProvider(dead)).complete()

    assert isinstance(result, Exhausted)
    assert result.retryable is False


async def test_targets_without_a_key_are_passed_over_and_none_at_all_is_an_error() -> None:
    with pytest.raises(NoProviderKey, match="one, two"):
        await InferenceHarness(one=ScriptedProvider(), two=ScriptedProvider()).complete(keys=False)


async def test_missing_usage_is_estimated_and_flagged() -> None:
    desk = InferenceHarness(
        one=ScriptedProvider((TextDelta("Hello, you. " * 20), AnswerFinished(FinishReason.STOP, None)))
    )

    await desk.complete()

    call = desk.trace.closed[0]
    assert call.estimated is True
    assert call.usage.input_tokens > 50
    assert call.usage.output_tokens > 20


@pytest.mark.parametrize("error", [errors.ProviderTimeout("silence"), errors.BadResponse("garbage", 200)])
async def test_a_call_that_may_have_been_done_is_estimated_not_zero(error: errors.ProviderError) -> None:
    desk = InferenceHarness(one=ScriptedProvider(error), two=ScriptedProvider(HELLO))

    await desk.complete()

    assert desk.trace.closed[0].estimated is True
    assert desk.trace.closed[0].usage.input_tokens > 0


async def test_a_call_that_was_refused_used_nothing() -> None:
    desk = InferenceHarness(one=ScriptedProvider(BUSY), two=ScriptedProvider())

    desk.scripts["one"] = ScriptedProvider(errors.RequestRejected("no", 400))
    await desk.complete()

    assert (desk.trace.closed[0].usage, desk.trace.closed[0].estimated) == (Usage(), False)


async def test_a_canceled_request_leaves_its_call_in_the_trace() -> None:
    reached, never = asyncio.Event(), asyncio.Event()

    async def hang(_: InferenceRequest) -> None:
        reached.set()
        await never.wait()

    desk = InferenceHarness(one=ScriptedProvider(HELLO, before=hang))
    asking = asyncio.create_task(desk.complete())
    await reached.wait()
    asking.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asking
    assert desk.calls() == [("one", CallOutcome.CANCELED)]
    assert desk.trace.closed[0].estimated is True


async def test_one_deadline_covers_all_calls() -> None:
    desk = InferenceHarness(one=ScriptedProvider(BUSY, BUSY), two=ScriptedProvider(BUSY, BUSY))

    result = await desk.complete(deadline_seconds=0)

    assert isinstance(result, Exhausted)
    assert isinstance(result.error, errors.ProviderTimeout)
    assert desk.ledger.opened == []


# The retry budget


def spent_budget() -> RetryBudgets:
    """A budget that allows no retry at all."""
    return RetryBudgets(share=0.2, floor=0)


async def test_without_budget_a_fault_is_not_asked_again_but_the_next_target_is() -> None:
    desk = InferenceHarness(first=ScriptedProvider(BUSY, name="first"), second=ScriptedProvider(HELLO, name="second"))
    desk.budgets = spent_budget()

    assert isinstance(await desk.complete(), Answered)
    assert desk.calls() == [("first", CallOutcome.ERROR), ("second", CallOutcome.OK)]


async def test_without_budget_and_next_target_the_request_ends_for_now() -> None:
    desk = InferenceHarness(only=ScriptedProvider(BUSY, name="only"))
    desk.budgets = spent_budget()

    result = await desk.complete()

    assert isinstance(result, Exhausted)
    assert result.retryable
    assert desk.calls() == [("only", CallOutcome.ERROR)]


async def test_a_later_attempt_without_budget_asks_nobody() -> None:
    desk = InferenceHarness(first=ScriptedProvider(name="first"), second=ScriptedProvider(name="second"))
    desk.budgets = spent_budget()

    assert await desk.complete(is_retry=True) == Deferred()
    assert desk.calls() == []
    assert desk.ledger.opened == []


async def test_a_later_attempt_counts_as_a_retry() -> None:
    desk = InferenceHarness(only=ScriptedProvider(HELLO, name="only"))

    assert isinstance(await desk.complete(is_retry=True), Answered)
    assert {(usage.key.scope, usage.first_tries, usage.retries) for usage in desk.budgets.usage()} == {
        ("site", 0, 1),
        ("provider", 0, 1),
    }


# Whole answers


async def test_a_whole_answer_is_asked_for_as_one_and_keeps_what_the_provider_wrote() -> None:
    class Plain(ScriptedProvider):
        """Knows no streams."""

        stream = None  # type: ignore[assignment]

    written = Completion("chatcmpl-1", "m", "Hello", FinishReason.STOP, Usage(9, 1), body=b'{"id": "chatcmpl-1"}')
    plain = Plain(written)
    desk = InferenceHarness(one=plain)

    result = await desk.complete_non_streaming()

    assert isinstance(result, Answered)
    assert isinstance(result.answer, Completion)
    assert result.answer.body == b'{"id": "chatcmpl-1"}'
    assert (desk.calls(), desk.trace.closed[0].usage) == ([("one", CallOutcome.OK)], Usage(9, 1))
    # Its first byte comes with its last; there is nothing to wait for in between.
    call = plain.received[0].call
    assert call.first_byte_seconds == call.total_seconds > 29


SEVERAL = openai.decode_chat({"model": "desk", "messages": [{"role": "user", "content": "x"}], "n": 2})


async def test_what_cannot_be_put_together_is_asked_for_as_a_whole() -> None:
    class Plain(ScriptedProvider):
        """Knows no streams."""

        stream = None  # type: ignore[assignment]

    written = Completion(
        "c", "m", "A", FinishReason.STOP, Usage(9, 2), other_choices=("B",), body=b'{"choices": [1, 2]}'
    )
    desk = InferenceHarness(one=Plain(written))

    result = await desk.complete(SEVERAL)

    assert isinstance(result, Answered)
    assert result.answer == written


async def test_a_whole_answer_without_usage_is_estimated_by_what_it_says() -> None:
    desk = InferenceHarness(
        one=ScriptedProvider(
            Completion("c", "m", "A" * 30, FinishReason.STOP, None, other_choices=("B" * 60,), body=b"{}")
        )
    )

    await desk.complete_non_streaming()

    (call,) = desk.trace.closed
    assert (call.estimated, call.usage.output_tokens) == (True, 30)
