"""Token buckets and the headers that report them."""

import pytest

from simulator.headers import go_duration, retry_headers
from simulator.rate_limits import RateLimiter, RateLimitStatus


def admit(limits: RateLimiter, now: float, tokens: int = 1) -> RateLimitStatus:
    return limits.admit("key", "model", tokens, rate_limit=6, token_limit=600, now=now)


def test_a_bucket_lets_its_limit_through_and_then_one_every_part_of_a_minute() -> None:
    limits = RateLimiter()

    assert [admit(limits, 0).wait_seconds for _ in range(6)] == [0] * 6
    assert admit(limits, 0).wait_seconds == pytest.approx(10)
    assert admit(limits, 9).wait_seconds == pytest.approx(1)
    assert admit(limits, 10).wait_seconds == 0
    assert admit(limits, 10).wait_seconds == pytest.approx(10)


def test_a_refused_request_takes_nothing() -> None:
    limits = RateLimiter()
    admit(limits, 0, tokens=500)

    refused = admit(limits, 0, tokens=200)

    assert refused.wait_seconds == pytest.approx(10)
    assert refused.exhausted == "tokens"
    assert (refused.requests.remaining, refused.tokens.remaining) == (5, 100)


def test_more_than_the_limit_waits_for_a_full_bucket_only() -> None:
    limits = RateLimiter()

    assert admit(limits, 0, tokens=5000).wait_seconds == 0
    assert admit(limits, 0, tokens=5000).wait_seconds == pytest.approx(60)


def test_a_bucket_never_holds_more_than_its_limit() -> None:
    limits = RateLimiter()
    admit(limits, 0)

    assert admit(limits, 10_000).requests.remaining == 5


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0, "0ms"), (0.012, "12ms"), (0.9994, "999ms"), (1, "1s"), (8.64, "8.64s"), (60, "1m0s"), (61.5, "1m1.5s")],
)
def test_durations_are_written_as_go_does(seconds: float, written: str) -> None:
    assert go_duration(seconds) == written


@pytest.mark.parametrize(
    ("seconds", "headers"),
    [
        (None, []),
        (0, [(b"retry-after", b"0")]),
        (2, [(b"retry-after", b"2")]),
        (0.25, [(b"retry-after", b"1"), (b"retry-after-ms", b"250")]),
    ],
)
def test_retry_after_is_whole_seconds_and_milliseconds_when_they_are_not(
    seconds: float | None, headers: list[tuple[bytes, bytes]]
) -> None:
    assert retry_headers(seconds) == headers
