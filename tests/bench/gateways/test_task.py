"""What the load generator sends, and when."""

import json

import msgspec
import pytest

from tests.bench.gateways.load import requests_of
from tests.bench.gateways.task import Load, body_around, due_moments, head_of

LOAD = Load(url="http://127.0.0.1:9000/v1/chat/completions", headers={"Authorization": "Bearer key"}, model="gpt-4o")


def body_of(request: bytes) -> bytes:
    return request.partition(b"\r\n\r\n")[2]


def test_requests_are_due_evenly() -> None:
    assert due_moments(4, 1.5, at_random=False) == [0, 0.25, 0.5, 0.75, 1, 1.25]


def test_random_moments_are_the_same_for_every_system_and_as_many_as_asked() -> None:
    moments = due_moments(1000, 10, at_random=True)
    gaps = [later - earlier for earlier, later in zip(moments, moments[1:], strict=False)]

    assert moments == due_moments(1000, 10, at_random=True)
    assert len(moments) == pytest.approx(10_000, rel=0.05)
    assert moments[-1] < 10
    # As for strangers: 1 - 1/e of the gaps are shorter than the mean.
    assert sum(gap < 0.001 for gap in gaps) / len(gaps) == pytest.approx(0.632, abs=0.02)


@pytest.mark.parametrize("stream", [False, True])
def test_a_body_has_the_size_asked_for_and_is_a_request(stream: bool) -> None:
    before, after = body_around('a "model"', stream, 8192)
    body = before + b"7" * 24 + after

    assert len(body) == 8192
    assert json.loads(body)["model"] == 'a "model"'
    assert json.loads(body).get("stream", False) is stream
    assert json.loads(body)["messages"][0]["content"].startswith("7" * 24 + " Tell the night shift")


def test_no_body_is_too_small_for_what_must_be_in_it() -> None:
    with pytest.raises(ValueError, match="64 bytes"):
        body_around("gpt-4o", False, 64)


def test_bodies_differ_unless_a_cache_is_to_know_them() -> None:
    fresh, same = requests_of(LOAD), requests_of(msgspec.structs.replace(LOAD, same_body=True))

    assert next(fresh) != next(fresh)
    assert next(same) == next(same)


def test_the_head_tells_the_size() -> None:
    request = next(requests_of(LOAD))

    assert head_of(LOAD).splitlines()[0] == b"POST /v1/chat/completions HTTP/1.1"
    assert b"\r\nAuthorization: Bearer key\r\n" in request
    assert f"\r\nContent-Length: {len(body_of(request))}\r\n".encode() in request
