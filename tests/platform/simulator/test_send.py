"""Faults and pace on the wire, seen by raw sockets: what leaves, in which pieces, and how the connection ends."""

import json
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai as openai_sdk
import pytest
from anthropic import Anthropic, APIStatusError
from openai import OpenAI

from tests.polling import wait_for
from tests.simulator_process import SimulatorProcess

MODEL = "gpt-4o-mini"
HELLO: Any = [{"role": "user", "content": "Hello"}]
CHAT = "/v1/chat/completions"
#: The simulator's clock ticks in milliseconds, and rounds.
TICKS = 0.004


def request_bytes(path: str, body: dict[str, Any], headers: dict[str, str]) -> bytes:
    data = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "host: simulator", "authorization: Bearer a", f"content-length: {len(data)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


@contextmanager
def asking(
    simulator: SimulatorProcess, path: str = CHAT, *, stream: bool = True, seconds: float = 5, **controls: Any
) -> Iterator[socket.socket]:
    """A socket on which the request has been sent."""
    address = urlsplit(simulator.url)
    body: dict[str, Any] = {"model": MODEL, "messages": HELLO, "stream": stream}
    headers = {f"x-sim-{name.replace('_', '-')}": str(value) for name, value in controls.items()}
    with closing(socket.create_connection((address.hostname, address.port or 80), timeout=seconds)) as plug:
        plug.sendall(request_bytes(path, body, headers))
        yield plug


def read_to_end(plug: socket.socket) -> bytes:
    """Everything until FIN; a reset raises ConnectionResetError."""
    return b"".join(iter(lambda: plug.recv(65_536), b""))


def read_until(plug: socket.socket, failure: type[OSError]) -> bytes:
    """Everything that comes before reading fails in this way."""
    got = bytearray()
    try:
        while part := plug.recv(65_536):
            got += part
    except failure:
        return bytes(got)
    raise AssertionError("The connection ended in good order.")


def deltas_in(answer: bytes) -> int:
    return answer.count(b'"delta":{"content":')


@pytest.mark.parametrize("stream", [False, True])
def test_a_cut_before_the_first_byte_sends_nothing(simulator: SimulatorProcess, stream: bool) -> None:
    with asking(simulator, stream=stream, cut_after_n=0) as plug:
        assert read_to_end(plug) == b""

    [entry] = simulator.journal()
    assert (entry["outcome"], entry["status"], entry["output_tokens"]) == ("cut", None, 0)


@pytest.mark.parametrize("stream", [False, True])
def test_a_reset_before_the_first_byte_is_a_reset(simulator: SimulatorProcess, stream: bool) -> None:
    with asking(simulator, stream=stream, cut_after_n=0, cut="rst") as plug, pytest.raises(ConnectionResetError):
        read_to_end(plug)

    assert simulator.journal()[0]["outcome"] == "rst"


def test_a_cut_stream_ends_after_so_many_deltas_and_without_its_last_chunk(simulator: SimulatorProcess) -> None:
    with asking(simulator, cut_after_n=3) as plug:
        answer = read_to_end(plug)

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert deltas_in(answer) == 3
    assert b"[DONE]" not in answer
    assert not answer.endswith(b"0\r\n\r\n")
    [entry] = simulator.journal()
    assert (entry["outcome"], entry["usage_reported"]) == ("cut", False)
    assert 0 < entry["output_tokens"] < 10


def test_a_reset_stream_ends_with_a_reset_after_what_was_sent(simulator: SimulatorProcess) -> None:
    with asking(simulator, cut_after_n=2, cut="rst") as plug:
        got = read_until(plug, ConnectionResetError)

    assert deltas_in(got) == 2
    assert simulator.journal()[0]["outcome"] == "rst"


def test_a_cut_answer_that_is_no_stream_stops_in_the_middle_of_its_body(simulator: SimulatorProcess) -> None:
    with asking(simulator, stream=False, cut_after_n=1) as plug:
        head, body = read_to_end(plug).split(b"\r\n\r\n", 1)

    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
    assert len(body) == length // 2


def test_the_clients_see_a_cut_as_a_lost_connection(openai: OpenAI, anthropic: Anthropic) -> None:
    with pytest.raises(openai_sdk.APIConnectionError):
        openai.chat.completions.create(model=f"{MODEL}@cut_after_n=0", messages=HELLO)
    with pytest.raises(Exception, match="incomplete|peer closed"):
        list(anthropic.messages.create(model="c@cut_after_n=2", max_tokens=50, messages=HELLO, stream=True))


def test_more_deltas_than_there_are_means_before_the_finish(simulator: SimulatorProcess) -> None:
    with asking(simulator, cut_after_n=1000, deltas=4) as plug:
        answer = read_to_end(plug)

    assert deltas_in(answer) == 4
    assert b'"finish_reason":"stop"' not in answer


@pytest.mark.parametrize("events", range(8))
def test_a_stream_can_be_cut_after_any_event(simulator: SimulatorProcess, events: int) -> None:
    with asking(simulator, cut_after_events=events, deltas=4) as plug:
        answer = read_to_end(plug)

    # The role, four deltas, the finish, and perhaps the usage before the end.
    assert answer.count(b"data: ") == min(events, 7)
    assert simulator.journal()[0]["outcome"] == "cut"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("after", [0, 2])
def test_a_stall_keeps_the_connection_open_and_silent(simulator: SimulatorProcess, stream: bool, after: int) -> None:
    with asking(simulator, stream=stream, stall_after_n=after, seconds=0.15) as plug:
        assert bool(read_until(plug, TimeoutError)) == bool(after)
        assert simulator.journal()[0]["outcome"] == "running"

    [entry] = simulator.finished()
    assert (entry["outcome"], entry["client_disconnected"]) == ("stalled", True)


def test_a_stall_with_an_end_goes_on(simulator: SimulatorProcess) -> None:
    started = time.monotonic()
    with asking(simulator, stall_after_n=2, stall_ms=60) as plug:
        answer = receive_until(plug, b"0\r\n\r\n")

    assert time.monotonic() - started >= 0.06 - TICKS
    assert b"[DONE]" in answer
    assert simulator.journal()[0]["outcome"] == "ok"


def test_after_a_silence_the_pace_is_the_old_one(simulator: SimulatorProcess) -> None:
    with asking(simulator, stall_after_n=2, stall_ms=100, inter_token_ms=10, deltas=10) as plug:
        receive_until(plug, b"0\r\n\r\n")

    [entry] = simulator.finished()
    assert entry["finished_at"] - entry["started_at"] >= 0.1 + 9 * 0.010 - TICKS


def receive_until(plug: socket.socket, end: bytes) -> bytes:
    got = b""
    while not got.endswith(end):
        part = plug.recv(65_536)
        assert part, got
        got += part
    return got


def test_an_error_inside_a_stream_is_seen_by_both_clients(
    openai: OpenAI, anthropic: Anthropic, simulator: SimulatorProcess
) -> None:
    chunks = openai.chat.completions.create(model=f"{MODEL}@error_after_n=2", messages=HELLO, stream=True)
    assert [next(chunks).choices[0].delta.content == "" for _ in range(3)] == [True, False, False]
    with pytest.raises(openai_sdk.APIError) as first:
        next(chunks)
    with pytest.raises(APIStatusError) as second:
        list(anthropic.messages.create(model="claude@error_after_n=2", max_tokens=90, messages=HELLO, stream=True))

    body: Any = second.value.body
    assert first.value.type == "server_error"
    assert body["error"]["type"] == "overloaded_error"
    assert [entry["outcome"] for entry in simulator.journal()] == ["error_frame", "error_frame"]


def test_an_error_instead_of_a_whole_answer_is_status_500(openai: OpenAI) -> None:
    with pytest.raises(openai_sdk.InternalServerError):
        openai.chat.completions.create(model=f"{MODEL}@error_after_n=2", messages=HELLO)


def test_html_502_is_a_proxys_page(http: httpx.Client) -> None:
    answer = http.post(
        CHAT,
        json={"model": f"{MODEL}@html_502", "messages": HELLO},
        headers={"authorization": "Bearer a"},
    )

    assert answer.status_code == 502
    assert answer.headers["content-type"] == "text/html"
    assert answer.text.startswith("<html>")


def pieces_of(simulator: SimulatorProcess, **controls: Any) -> list[bytes]:
    """An answer in the pieces in which it arrived; a reader that is late gets fewer, larger ones."""
    pieces = [b""]
    with asking(simulator, **controls) as plug:
        while not pieces[-1].endswith(b"0\r\n\r\n"):
            pieces.append(plug.recv(65_536))
    return pieces[1:]


def is_text(piece: bytes) -> bool:
    try:
        piece.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_split_frames_break_characters_over_two_writes(simulator: SimulatorProcess) -> None:
    tries = (pieces_of(simulator, split_frames=1) for _ in range(20))

    assert any(not is_text(piece) for pieces in tries for piece in pieces)


def test_without_split_frames_characters_stay_whole(simulator: SimulatorProcess) -> None:
    assert all(map(is_text, pieces_of(simulator, inter_token_ms=1)))


def test_a_split_stream_is_read_correctly_all_the_same(openai: OpenAI) -> None:
    whole = openai.chat.completions.create(model=MODEL, messages=HELLO)
    chunks = openai.chat.completions.create(model=f"{MODEL}@split_frames", messages=HELLO, stream=True)

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    assert "“" in text
    assert text == whole.choices[0].message.content


def test_slow_loris_sends_the_head_byte_by_byte(simulator: SimulatorProcess) -> None:
    started = time.monotonic()
    with asking(simulator, stream=False, slow_loris=1, tokens=5) as plug:
        pieces = list(iter(lambda: plug.recv(65_536), b""))

    head, body = b"".join(pieces).split(b"\r\n\r\n", 1)
    assert time.monotonic() - started >= len(head) * 0.0009
    assert len(pieces) > 10
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert json.loads(body)["usage"]["completion_tokens"] == 5
    assert simulator.journal()[0]["outcome"] == "ok"


def test_a_client_that_leaves_a_slow_head_is_noticed(simulator: SimulatorProcess) -> None:
    with asking(simulator, slow_loris=20) as plug:
        assert plug.recv(4)

    assert simulator.finished()[0]["outcome"] == "disconnected"


def test_a_client_that_leaves_a_stream_stops_it(simulator: SimulatorProcess) -> None:
    with asking(simulator, inter_token_ms=10, tokens=4000) as plug:
        assert plug.recv(10)

    [entry] = simulator.finished()
    assert (entry["outcome"], entry["client_disconnected"], entry["usage_reported"]) == ("disconnected", True, False)
    assert entry["output_tokens"] < 100


def test_a_client_that_leaves_before_the_answer_is_noticed(simulator: SimulatorProcess) -> None:
    with asking(simulator, stream=False, ttft_ms=60_000):
        assert simulator.journal()[0]["outcome"] == "running"

    [entry] = simulator.finished()
    assert (entry["outcome"], entry["status"], entry["input_tokens"]) == ("disconnected", None, 0)


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_client_that_leaves_before_the_fault_is_the_one_who_left(simulator: SimulatorProcess, how: str) -> None:
    """What cannot be sent holds up the fault: the line is longer than any buffer, and nobody reads it."""
    with asking(simulator, huge_line=20_000_000, cut_after_n=1, cut=how):
        wait_for(lambda: simulator.journal()[0]["status"] == 200)

    [entry] = simulator.finished()
    assert (entry["outcome"], entry["client_disconnected"]) == ("disconnected", True)


def test_a_client_that_resets_a_stream_stops_it_too(simulator: SimulatorProcess) -> None:
    with asking(simulator, inter_token_ms=10, tokens=4000) as plug:
        assert plug.recv(10)
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    assert simulator.finished()[0]["outcome"] == "disconnected"


def test_drop_usage_and_drop_done(openai: OpenAI, anthropic: Anthropic, simulator: SimulatorProcess) -> None:
    asked: Any = {"messages": HELLO, "stream": True, "stream_options": {"include_usage": True}}
    with openai.chat.completions.with_streaming_response.create(model=f"{MODEL}@drop_usage,drop_done", **asked) as raw:
        openai_answer = raw.read().decode()
    with anthropic.messages.with_streaming_response.create(
        model="claude@drop_usage,drop_done", max_tokens=50, messages=HELLO, stream=True
    ) as raw:
        anthropic_answer = raw.read().decode()
    whole = openai.chat.completions.create(model=f"{MODEL}@drop_usage", messages=HELLO)

    assert '"finish_reason":"stop"' in openai_answer
    assert "[DONE]" not in openai_answer
    assert "completion_tokens" not in openai_answer
    assert "message_delta" in anthropic_answer
    assert "message_stop" not in anthropic_answer
    assert "output_tokens" not in anthropic_answer
    assert whole.usage is None
    assert [entry["usage_reported"] for entry in simulator.journal()] == [False, False, False]
    assert all(entry["output_tokens"] for entry in simulator.journal())


def test_pings_come_between_deltas_and_disturb_nobody(openai: OpenAI, anthropic: Anthropic) -> None:
    with openai.chat.completions.with_streaming_response.create(
        model=f"{MODEL}@ping_every=2,deltas=6", messages=HELLO, stream=True
    ) as raw:
        assert raw.read().count(b": keep-alive\n\n") == 3
    with anthropic.messages.with_streaming_response.create(
        model="claude@ping_every=2,deltas=6", max_tokens=50, messages=HELLO, stream=True
    ) as raw:
        assert raw.read().count(b"event: ping\n") == 1 + 3
    chunks = openai.chat.completions.create(model=f"{MODEL}@ping_every=1", messages=HELLO, stream=True)

    assert len(list(chunks)) > 5


@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_content_type(http: httpx.Client, stream: bool) -> None:
    for control, expected in (("wrong_content_type", "text/plain; charset=utf-8"), ("wrong_content_type=a/b", "a/b")):
        answer = http.post(
            CHAT,
            json={"model": f"{MODEL}@{control}", "messages": HELLO, "stream": stream},
            headers={"authorization": "Bearer a"},
        )

        assert answer.headers["content-type"] == expected


def test_a_huge_line_is_a_megabyte_and_changes_no_answer(openai: OpenAI, anthropic: Anthropic) -> None:
    with openai.chat.completions.with_streaming_response.create(
        model=f"{MODEL}@huge_line", messages=HELLO, stream=True
    ) as raw:
        assert max(map(len, raw.read().split(b"\n"))) > 1_048_576
    with anthropic.messages.with_streaming_response.create(
        model="claude@huge_line=70000", max_tokens=50, messages=HELLO, stream=True
    ) as raw:
        assert max(map(len, raw.read().split(b"\n"))) > 70_000
    plain = openai.chat.completions.create(model=MODEL, messages=HELLO)
    huge = openai.chat.completions.create(model=f"{MODEL}@huge_line", messages=HELLO)

    assert (huge.choices, huge.usage) == (plain.choices, plain.usage)


def test_ttft_delays_the_head_or_only_the_first_event(simulator: SimulatorProcess) -> None:
    def seconds_to(first: bytes, **controls: Any) -> float:
        started = time.monotonic()
        with asking(simulator, ttft_ms=80, **controls) as plug:
            got = b""
            while first not in got:
                got += plug.recv(65_536)
        return time.monotonic() - started

    assert seconds_to(b"HTTP/1.1") >= 0.08 - TICKS
    assert seconds_to(b"HTTP/1.1", early_headers=1) < 0.08 - TICKS
    assert seconds_to(b"data:", early_headers=1) >= 0.08 - TICKS


def test_the_pace_of_a_stream_holds_and_a_whole_answer_takes_as_long(simulator: SimulatorProcess) -> None:
    with asking(simulator, ttft_ms=20, inter_token_ms=5, deltas=11) as plug:
        receive_until(plug, b"0\r\n\r\n")
    with asking(simulator, stream=False, ttft_ms=20, inter_token_ms=5, deltas=11) as plug:
        plug.recv(65_536)

    for entry in simulator.finished(2):
        assert 0.07 - TICKS <= entry["finished_at"] - entry["started_at"] < 0.5


def test_without_controls_a_stream_is_one_write(simulator: SimulatorProcess) -> None:
    with asking(simulator) as plug:
        answer = receive_until(plug, b"0\r\n\r\n")

    chunks = answer.split(b"\r\n\r\n", 1)[1]
    size, rest = chunks.split(b"\r\n", 1)
    assert rest[int(size, 16) :] == b"\r\n0\r\n\r\n"


def test_the_litellm_profile_is_31_events_a_millisecond_apart(simulator: SimulatorProcess) -> None:
    with asking(simulator, profile="litellm") as plug:
        answer = receive_until(plug, b"0\r\n\r\n")

    assert answer.count(b"data: ") == 31
    [entry] = simulator.finished()
    assert 0.010 + 27 * 0.001 - TICKS <= entry["finished_at"] - entry["started_at"] < 0.5


def test_the_litellm_profile_holds_for_usage_and_for_anthropic(openai: OpenAI, anthropic: Anthropic) -> None:
    with openai.chat.completions.with_streaming_response.create(
        model=f"{MODEL}@profile=litellm", messages=HELLO, stream=True, stream_options={"include_usage": True}
    ) as raw:
        assert raw.read().count(b"data: ") == 31
    with anthropic.messages.with_streaming_response.create(
        model="claude@profile=litellm", max_tokens=500, messages=HELLO, stream=True
    ) as raw:
        assert raw.read().count(b"data: ") == 31


def test_the_onthe_profile_is_64_deltas_20_milliseconds_apart(simulator: SimulatorProcess) -> None:
    pieces = pieces_of(simulator, profile="onthe")

    assert deltas_in(b"".join(pieces)) == 64
    assert len(pieces) > 20
    [entry] = simulator.finished()
    assert 63 * 0.020 - TICKS <= entry["finished_at"] - entry["started_at"] < 2.5
