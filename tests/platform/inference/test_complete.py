"""One request over all its targets: retry, failover, one deadline, and an account of every call."""

import asyncio

import pytest

from inference.calls import CallClosed, CallOpened, CallOutcome
from inference.complete import Answered, PutOff, Unanswered
from inference.errors import NoProvider
from inference.retry_budget import RetryBudgets
from providers import errors
from providers.dialects import openai
from providers.dialects.errors import InvalidRequest
from providers.scripted import Scripted
from providers.types import Completion, Dialect, Finished, FinishReason, InferenceRequest, TextDelta, Usage
from tests.platform.inference.desk import BUSY, HELLO, Desk, Written


async def test_the_first_target_answers_and_one_call_is_written() -> None:
    desk = Desk(one=Scripted(HELLO), two=Scripted())

    result = await desk.ask()

    assert isinstance(result, Answered)
    assert isinstance(result.answer, Completion)
    assert (result.answer.text, result.target.upstream_model) == ("Hello", "one-model")
    assert desk.calls() == [("one", CallOutcome.OK)]
    assert desk.trace.closed[0].usage == Usage(9, 1)
    assert desk.trace.closed[0].estimated is False


async def test_the_provider_is_asked_for_its_own_model() -> None:
    one = Scripted(HELLO)
    await Desk(one=one).ask()

    assert [received.request.model for received in one.received] == ["one-model"]


async def test_a_fault_is_asked_again_then_the_next_target_answers() -> None:
    desk = Desk(one=Scripted(BUSY, errors.Transient("reset")), two=Scripted(HELLO))

    assert isinstance(await desk.ask(), Answered)
    assert desk.calls() == [("one", CallOutcome.ERROR), ("one", CallOutcome.ERROR), ("two", CallOutcome.OK)]
    assert [call.call_id for call in desk.ledger.opened] == ["job_1:1:1", "job_1:1:2", "job_1:1:3"]
    # Each opening also closes the call before it; the last is closed by whoever ends the request.
    assert desk.ledger.closed == desk.trace.closed[:2]


async def test_a_call_is_written_before_it_is_made() -> None:
    one = Scripted(HELLO)
    desk = Desk(one=one)

    class Refusing(Written):
        async def open(self, call: CallOpened, closed_before: CallClosed | None) -> None:
            raise ConnectionError("no database")

    desk.ledger = Refusing()
    with pytest.raises(ConnectionError):
        await desk.ask()

    assert one.received == []


async def test_a_wrong_request_is_not_asked_of_the_next_target() -> None:
    desk = Desk(one=Scripted(errors.Rejected("no such field", 400)), two=Scripted(HELLO))

    result = await desk.ask()

    assert isinstance(result, Unanswered)
    assert (result.error.message, result.retryable) == ("no such field", False)
    assert desk.calls() == [("one", CallOutcome.ERROR)]


async def test_when_nobody_answers_one_target_that_may_recover_is_worth_another_try() -> None:
    desk = Desk(
        one=Scripted(errors.RateLimited("slow", 429, retry_after_seconds=40)),
        two=Scripted(errors.CredentialDead("bad key", 401)),
    )

    result = await desk.ask()

    assert isinstance(result, Unanswered)
    assert (result.retryable, result.retry_after_seconds) == (True, 40)


async def test_dead_keys_everywhere_are_not_worth_another_try() -> None:
    dead = errors.CredentialDead("bad key", 401)
    result = await Desk(one=Scripted(dead), two=Scripted(dead)).ask()

    assert isinstance(result, Unanswered)
    assert result.retryable is False


async def test_targets_without_a_key_are_passed_over_and_none_at_all_is_an_error() -> None:
    with pytest.raises(NoProvider, match="one, two"):
        await Desk(one=Scripted(), two=Scripted()).ask(keys=False)


async def test_missing_usage_is_estimated_and_flagged() -> None:
    desk = Desk(one=Scripted((TextDelta("Hello, you. " * 20), Finished(FinishReason.STOP, None))))

    await desk.ask()

    call = desk.trace.closed[0]
    assert call.estimated is True
    assert call.usage.input_tokens > 50
    assert call.usage.output_tokens > 20


@pytest.mark.parametrize("error", [errors.TimedOut("silence"), errors.BadResponse("garbage", 200)])
async def test_a_call_that_may_have_been_done_is_estimated_not_zero(error: errors.ProviderError) -> None:
    desk = Desk(one=Scripted(error), two=Scripted(HELLO))

    await desk.ask()

    assert desk.trace.closed[0].estimated is True
    assert desk.trace.closed[0].usage.input_tokens > 0


async def test_a_call_that_was_refused_used_nothing() -> None:
    desk = Desk(one=Scripted(BUSY), two=Scripted())

    desk.scripts["one"] = Scripted(errors.Rejected("no", 400))
    await desk.ask()

    assert (desk.trace.closed[0].usage, desk.trace.closed[0].estimated) == (Usage(), False)


async def test_a_canceled_request_leaves_its_call_in_the_trace() -> None:
    reached, never = asyncio.Event(), asyncio.Event()

    async def hang(_: InferenceRequest) -> None:
        reached.set()
        await never.wait()

    desk = Desk(one=Scripted(HELLO, before=hang))
    asking = asyncio.create_task(desk.ask())
    await reached.wait()
    asking.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asking
    assert desk.calls() == [("one", CallOutcome.CANCELED)]
    assert desk.trace.closed[0].estimated is True


async def test_one_deadline_covers_all_calls() -> None:
    desk = Desk(one=Scripted(BUSY, BUSY), two=Scripted(BUSY, BUSY))

    result = await desk.ask(deadline_seconds=0)

    assert isinstance(result, Unanswered)
    assert isinstance(result.error, errors.TimedOut)
    assert desk.ledger.opened == []


# The retry budget


def spent_budget() -> RetryBudgets:
    """A budget that allows no retry at all."""
    return RetryBudgets(share=0.2, floor=0)


async def test_without_budget_a_fault_is_not_asked_again_but_the_next_target_is() -> None:
    desk = Desk(first=Scripted(BUSY, name="first"), second=Scripted(HELLO, name="second"))
    desk.budgets = spent_budget()

    assert isinstance(await desk.ask(), Answered)
    assert desk.calls() == [("first", CallOutcome.ERROR), ("second", CallOutcome.OK)]


async def test_without_budget_and_next_target_the_request_ends_for_now() -> None:
    desk = Desk(only=Scripted(BUSY, name="only"))
    desk.budgets = spent_budget()

    result = await desk.ask()

    assert isinstance(result, Unanswered)
    assert result.retryable
    assert desk.calls() == [("only", CallOutcome.ERROR)]


async def test_a_later_attempt_without_budget_asks_nobody() -> None:
    desk = Desk(first=Scripted(name="first"), second=Scripted(name="second"))
    desk.budgets = spent_budget()

    assert await desk.ask(asked_before=True) == PutOff()
    assert desk.calls() == []
    assert desk.ledger.opened == []


async def test_a_later_attempt_counts_as_a_retry() -> None:
    desk = Desk(only=Scripted(HELLO, name="only"))

    assert isinstance(await desk.ask(asked_before=True), Answered)
    assert {(spent.key.scope, spent.first_tries, spent.retries) for spent in desk.budgets.spent()} == {
        ("site", 0, 1),
        ("provider", 0, 1),
    }


# Whole answers


async def test_a_whole_answer_is_asked_for_as_one_and_keeps_what_the_provider_wrote() -> None:
    class Plain(Scripted):
        """Knows no streams."""

        stream = None  # type: ignore[assignment]

    written = Completion("chatcmpl-1", "m", "Hello", FinishReason.STOP, Usage(9, 1), body=b'{"id": "chatcmpl-1"}')
    plain = Plain(written)
    desk = Desk(one=plain)

    result = await desk.ask(whole=True)

    assert isinstance(result, Answered)
    assert isinstance(result.answer, Completion)
    assert result.answer.body == b'{"id": "chatcmpl-1"}'
    assert (desk.calls(), desk.trace.closed[0].usage) == ([("one", CallOutcome.OK)], Usage(9, 1))
    # Its first byte comes with its last; there is nothing to wait for in between.
    call = plain.received[0].call
    assert call.first_byte_seconds == call.total_seconds > 29


SEVERAL = openai.decode_chat({"model": "desk", "messages": [{"role": "user", "content": "x"}], "n": 2})


async def test_what_cannot_be_put_together_is_asked_for_as_a_whole() -> None:
    class Plain(Scripted):
        """Knows no streams."""

        stream = None  # type: ignore[assignment]

    written = Completion("c", "m", "A", FinishReason.STOP, Usage(9, 2), others=("B",), body=b'{"choices": [1, 2]}')
    desk = Desk(one=Plain(written))

    result = await desk.ask(SEVERAL)

    assert isinstance(result, Answered)
    assert result.answer == written


async def test_where_no_target_can_say_it_none_is_asked() -> None:
    desk = Desk(one=Scripted(), dialect=Dialect.ANTHROPIC)

    with pytest.raises(InvalidRequest, match="'n'"):
        await desk.ask(SEVERAL)
    assert desk.ledger.opened == []


async def test_a_whole_answer_without_usage_is_estimated_by_what_it_says() -> None:
    desk = Desk(one=Scripted(Completion("c", "m", "A" * 30, FinishReason.STOP, None, others=("B" * 60,), body=b"{}")))

    await desk.ask(whole=True)

    (call,) = desk.trace.closed
    assert (call.estimated, call.usage.output_tokens) == (True, 30)
