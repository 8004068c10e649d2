"""Complete answers: retry, failover, one deadline, and a record of every call."""

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


async def test_the_first_target_answers_with_one_recorded_call() -> None:
    harness = InferenceHarness(one=ScriptedProvider(HELLO), two=ScriptedProvider())

    result = await harness.complete()

    assert isinstance(result, Answered)
    assert isinstance(result.answer, Completion)
    assert (result.answer.text, result.target.upstream_model) == ("Hello", "one-model")
    assert harness.calls() == [("one", CallOutcome.OK)]
    assert harness.trace.closed[0].usage == Usage(9, 1)
    assert harness.trace.closed[0].estimated is False


async def test_the_provider_gets_its_own_model_name() -> None:
    one = ScriptedProvider(HELLO)
    await InferenceHarness(one=one).complete()

    assert [received.request.model for received in one.received] == ["one-model"]


async def test_a_transient_failure_is_retried_before_failover() -> None:
    harness = InferenceHarness(
        one=ScriptedProvider(BUSY, errors.TransientFailure("reset")), two=ScriptedProvider(HELLO)
    )

    assert isinstance(await harness.complete(), Answered)
    assert harness.calls() == [("one", CallOutcome.ERROR), ("one", CallOutcome.ERROR), ("two", CallOutcome.OK)]
    assert [call.call_id for call in harness.ledger.opened] == ["job_1:1:1", "job_1:1:2", "job_1:1:3"]
    # Each opening also closes the call before it; the last one is closed with the request.
    assert harness.ledger.closed == harness.trace.closed[:2]


async def test_a_call_is_recorded_before_it_is_made() -> None:
    one = ScriptedProvider(HELLO)
    harness = InferenceHarness(one=one)

    class Refusing(InMemoryLedger):
        async def open(self, call: CallOpened, previous_call: CallClosed | None) -> None:
            raise ConnectionError("no database")

    harness.ledger = Refusing()
    with pytest.raises(ConnectionError):
        await harness.complete()

    assert one.received == []


async def test_a_rejected_request_does_not_fail_over() -> None:
    harness = InferenceHarness(
        one=ScriptedProvider(errors.RequestRejected("no such field", 400)), two=ScriptedProvider(HELLO)
    )

    result = await harness.complete()

    assert isinstance(result, Exhausted)
    assert (result.error.message, result.retryable) == ("no such field", False)
    assert harness.calls() == [("one", CallOutcome.ERROR)]


async def test_a_failed_request_is_retryable_if_one_target_may_recover() -> None:
    harness = InferenceHarness(
        one=ScriptedProvider(errors.ProviderRateLimited("slow", 429, retry_after_seconds=40)),
        two=ScriptedProvider(errors.ProviderKeyRejected("bad key", 401)),
    )

    result = await harness.complete()

    assert isinstance(result, Exhausted)
    assert (result.retryable, result.retry_after_seconds) == (True, 40)


async def test_a_request_with_only_rejected_keys_is_not_retryable() -> None:
    dead = errors.ProviderKeyRejected("bad key", 401)
    result = await InferenceHarness(one=ScriptedProvider(dead), two=ScriptedProvider(dead)).complete()

    assert isinstance(result, Exhausted)
    assert result.retryable is False


async def test_a_request_without_any_key_raises_no_provider_key() -> None:
    with pytest.raises(NoProviderKey, match="one, two"):
        await InferenceHarness(one=ScriptedProvider(), two=ScriptedProvider()).complete(keys=False)


async def test_missing_usage_is_estimated_and_flagged() -> None:
    harness = InferenceHarness(
        one=ScriptedProvider((TextDelta("Hello, you. " * 20), AnswerFinished(FinishReason.STOP, None)))
    )

    await harness.complete()

    call = harness.trace.closed[0]
    assert call.estimated is True
    assert call.usage.input_tokens > 50
    assert call.usage.output_tokens > 20


@pytest.mark.parametrize("error", [errors.ProviderTimeout("silence"), errors.BadResponse("garbage", 200)])
async def test_a_call_that_may_have_been_billed_has_estimated_usage(error: errors.ProviderError) -> None:
    harness = InferenceHarness(one=ScriptedProvider(error), two=ScriptedProvider(HELLO))

    await harness.complete()

    assert harness.trace.closed[0].estimated is True
    assert harness.trace.closed[0].usage.input_tokens > 0


async def test_a_rejected_call_has_zero_usage() -> None:
    harness = InferenceHarness(one=ScriptedProvider(BUSY), two=ScriptedProvider())

    harness.scripts["one"] = ScriptedProvider(errors.RequestRejected("no", 400))
    await harness.complete()

    assert (harness.trace.closed[0].usage, harness.trace.closed[0].estimated) == (Usage(), False)


async def test_a_canceled_request_leaves_its_call_in_the_trace() -> None:
    reached, never = asyncio.Event(), asyncio.Event()

    async def hang(_: InferenceRequest) -> None:
        reached.set()
        await never.wait()

    harness = InferenceHarness(one=ScriptedProvider(HELLO, before=hang))
    asking = asyncio.create_task(harness.complete())
    await reached.wait()
    asking.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asking
    assert harness.calls() == [("one", CallOutcome.CANCELED)]
    assert harness.trace.closed[0].estimated is True


async def test_one_deadline_covers_all_calls() -> None:
    harness = InferenceHarness(one=ScriptedProvider(BUSY, BUSY), two=ScriptedProvider(BUSY, BUSY))

    result = await harness.complete(deadline_seconds=0)

    assert isinstance(result, Exhausted)
    assert isinstance(result.error, errors.ProviderTimeout)
    assert harness.ledger.opened == []


# The retry budget


def spent_budget() -> RetryBudgets:
    """A budget that allows no retry at all."""
    return RetryBudgets(share=0.2, floor=0)


async def test_without_retry_budget_a_request_fails_over_instead_of_retrying() -> None:
    harness = InferenceHarness(
        first=ScriptedProvider(BUSY, name="first"), second=ScriptedProvider(HELLO, name="second")
    )
    harness.budgets = spent_budget()

    assert isinstance(await harness.complete(), Answered)
    assert harness.calls() == [("first", CallOutcome.ERROR), ("second", CallOutcome.OK)]


async def test_without_retry_budget_and_next_target_the_request_is_exhausted() -> None:
    harness = InferenceHarness(only=ScriptedProvider(BUSY, name="only"))
    harness.budgets = spent_budget()

    result = await harness.complete()

    assert isinstance(result, Exhausted)
    assert result.retryable
    assert harness.calls() == [("only", CallOutcome.ERROR)]


async def test_a_later_attempt_without_retry_budget_is_deferred() -> None:
    harness = InferenceHarness(first=ScriptedProvider(name="first"), second=ScriptedProvider(name="second"))
    harness.budgets = spent_budget()

    assert await harness.complete(is_retry=True) == Deferred()
    assert harness.calls() == []
    assert harness.ledger.opened == []


async def test_a_later_attempt_counts_as_a_retry() -> None:
    harness = InferenceHarness(only=ScriptedProvider(HELLO, name="only"))

    assert isinstance(await harness.complete(is_retry=True), Answered)
    assert {(usage.key.scope, usage.first_tries, usage.retries) for usage in harness.budgets.usage()} == {
        ("site", 0, 1),
        ("provider", 0, 1),
    }


# Non-streaming answers


async def test_a_non_streaming_answer_keeps_the_provider_s_body() -> None:
    class Plain(ScriptedProvider):
        """Has no `stream`."""

        stream = None  # type: ignore[assignment]

    written = Completion("chatcmpl-1", "m", "Hello", FinishReason.STOP, Usage(9, 1), body=b'{"id": "chatcmpl-1"}')
    plain = Plain(written)
    harness = InferenceHarness(one=plain)

    result = await harness.complete_non_streaming()

    assert isinstance(result, Answered)
    assert isinstance(result.answer, Completion)
    assert result.answer.body == b'{"id": "chatcmpl-1"}'
    assert (harness.calls(), harness.trace.closed[0].usage) == ([("one", CallOutcome.OK)], Usage(9, 1))
    # The first byte arrives with the last, so its timeout is the total.
    call = plain.received[0].call
    assert call.first_byte_seconds == call.total_seconds > 29


SEVERAL = openai.decode_chat({"model": "desk", "messages": [{"role": "user", "content": "x"}], "n": 2})


async def test_an_untranslatable_request_is_called_non_streaming() -> None:
    class Plain(ScriptedProvider):
        """Has no `stream`."""

        stream = None  # type: ignore[assignment]

    written = Completion(
        "c", "m", "A", FinishReason.STOP, Usage(9, 2), other_choices=("B",), body=b'{"choices": [1, 2]}'
    )
    harness = InferenceHarness(one=Plain(written))

    result = await harness.complete(SEVERAL)

    assert isinstance(result, Answered)
    assert result.answer == written


async def test_a_non_streaming_answer_without_usage_is_estimated_from_its_text() -> None:
    harness = InferenceHarness(
        one=ScriptedProvider(
            Completion("c", "m", "A" * 30, FinishReason.STOP, None, other_choices=("B" * 60,), body=b"{}")
        )
    )

    await harness.complete_non_streaming()

    (call,) = harness.trace.closed
    assert (call.estimated, call.usage.output_tokens) == (True, 30)
