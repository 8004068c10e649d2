"""Judging: tables from responses to outcomes."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.ssrf_guard import (
    BlockedAddress,
    CappedResponse,
    ConnectionFailed,
    ConnectionInterrupted,
    DeadlineExceeded,
    NoResponse,
)
from webhooks.judge import (
    MAX_BACKOFF,
    RETRY_SCHEDULE,
    Delivered,
    DeliveryExhausted,
    DeliveryOutcome,
    EndpointGone,
    RetryDelivery,
    judge,
    with_jitter,
)

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def judged(answer: CappedResponse | NoResponse, attempt: int = 1, chance: float = 0.5) -> DeliveryOutcome:
    return judge(answer, attempt=attempt, now=NOW, random=lambda: chance)


def answer(status: int, **headers: str) -> CappedResponse:
    return CappedResponse(
        status, httpx.Headers({name.replace("_", "-"): value for name, value in headers.items()}), b""
    )


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_delivered(status: int) -> None:
    assert judged(answer(status)) == Delivered()


@pytest.mark.parametrize("attempt", [1, 10, 11])
def test_410_means_endpoint_gone_at_any_attempt(attempt: int) -> None:
    assert isinstance(judged(answer(410), attempt), EndpointGone)


@pytest.mark.parametrize("status", [101, 400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504])
def test_every_other_status_is_retried(status: int) -> None:
    assert judged(answer(status)) == RetryDelivery(timedelta(seconds=5), f"The receiver answered {status}.")


@pytest.mark.parametrize("status", [301, 302, 303, 304, 307, 308])
def test_a_redirect_is_a_failure_with_advice(status: int) -> None:
    outcome = judged(answer(status, location="https://example.com/elsewhere"))

    assert isinstance(outcome, RetryDelivery)
    assert "redirect" in outcome.reason


@pytest.mark.parametrize("kind", [BlockedAddress, ConnectionFailed, ConnectionInterrupted, DeadlineExceeded])
def test_a_missing_response_is_retried_and_its_reason_kept(kind: type[NoResponse]) -> None:
    assert judged(kind("Because.")) == RetryDelivery(timedelta(seconds=5), "Because.")


@pytest.mark.parametrize(("attempt", "wait"), list(enumerate(RETRY_SCHEDULE[1:], 1)))
def test_the_backoff_follows_the_schedule(attempt: int, wait: timedelta) -> None:
    assert judged(answer(500), attempt) == RetryDelivery(wait, "The receiver answered 500.")


def test_the_schedule_is_that_of_standard_webhooks_and_ends_after_75_hours() -> None:
    assert len(RETRY_SCHEDULE) == 10
    assert sum(RETRY_SCHEDULE, timedelta(0)) == timedelta(hours=75, minutes=35, seconds=5)


@pytest.mark.parametrize("attempt", [10, 11, 500])
def test_a_failure_of_the_last_attempt_is_exhausted(attempt: int) -> None:
    assert judged(answer(500), attempt) == DeliveryExhausted("The receiver answered 500.")
    assert judged(ConnectionFailed("Because."), attempt) == DeliveryExhausted("Because.")


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 240), (0.5, 300), (1.0, 360)])
def test_the_backoff_has_a_fifth_of_jitter(chance: float, seconds: int) -> None:
    assert judged(answer(500), 2, chance) == RetryDelivery(timedelta(seconds=seconds), "The receiver answered 500.")


@pytest.mark.parametrize(
    ("header", "delay"),
    [
        ("600", timedelta(minutes=10)),
        ("1", timedelta(seconds=5)),
        ("Sat, 21 Nov 2026 12:02:00 GMT", timedelta(minutes=2)),
        ("Sat, 21 Nov 2026 11:00:00 GMT", timedelta(seconds=5)),
        ("86400", timedelta(hours=24)),
        ("86401", timedelta(hours=24)),
        ("9" * 40, timedelta(hours=24)),
        ("Sat, 21 Nov 2099 12:00:00 GMT", timedelta(hours=24)),
        ("soon", timedelta(seconds=5)),
        ("-5", timedelta(seconds=5)),
        ("1.5", timedelta(seconds=5)),
        ("²", timedelta(seconds=5)),
        ("", timedelta(seconds=5)),
    ],
)
@pytest.mark.parametrize("status", [429, 503, 400])
def test_retry_after_is_a_floor_and_at_most_a_day(status: int, header: str, delay: timedelta) -> None:
    headers = httpx.Headers([(b"Retry-After", header.encode())])

    outcome = judged(CappedResponse(status, headers, b""))

    assert isinstance(outcome, RetryDelivery)
    assert outcome.delay == delay


def test_jitter_does_not_exceed_the_maximum_backoff() -> None:
    outcome = judged(answer(500), 9, chance=1.0)

    assert isinstance(outcome, RetryDelivery)
    assert outcome.delay == MAX_BACKOFF


@given(st.floats(0, 1), st.sampled_from(RETRY_SCHEDULE))
def test_jitter_stays_within_its_bounds(chance: float, delay: timedelta) -> None:
    assert delay * 0.799 <= with_jitter(delay, chance) <= delay * 1.201


@pytest.mark.parametrize("value", ["Mon, 01 Jan 99999999999 00:00:00 GMT", "Mon, 31 Dec 9999 23:59:59 -2359", "9" * 40])
def test_an_overflowing_retry_after_still_yields_a_retry(value: str) -> None:
    assert isinstance(judged(answer(503, retry_after=value)), RetryDelivery)
