"""Encoded frames are decoded as the same frames by every reader."""

import json
from typing import Any

import pytest
from anthropic._streaming import SSEDecoder as AnthropicDecoder
from hypothesis import given, settings
from hypothesis import strategies as st
from openai._streaming import SSEDecoder as OpenAIDecoder

from providers.sse import Frame, SSEDecoder
from providers.sse_writer import KEEP_ALIVE, encode_frames

FRAMES = [Frame("", b'{"n":1}'), Frame("ping", b'{"n":2}'), Frame("", b'{"n":3}')]


def test_events_are_numbered_and_the_first_has_the_retry_delay() -> None:
    assert encode_frames("stm_1", 7, FRAMES, retry_milliseconds=1000) == (
        b'retry: 1000\nid: stm_1-7\ndata: {"n":1}\n\n'
        b'id: stm_1-8\nevent: ping\ndata: {"n":2}\n\n'
        b'id: stm_1-9\ndata: {"n":3}\n\n'
    )


def test_no_frames_encode_to_no_bytes() -> None:
    # OpenAI's client would read a lone `retry` as an event.
    assert encode_frames("stm_1", 1, [], retry_milliseconds=1000) == b""


@pytest.mark.parametrize("cut", range(1, 12))
def test_the_official_decoders_read_exactly_our_events(cut: int) -> None:
    first, rest = encode_frames("s", 1, FRAMES[:1], retry_milliseconds=5), encode_frames("s", 2, FRAMES[1:])
    wire = KEEP_ALIVE + first + KEEP_ALIVE + KEEP_ALIVE + rest + KEEP_ALIVE
    pieces = [wire[i : i + cut] for i in range(0, len(wire), cut)]

    decoders: list[Any] = [OpenAIDecoder(), AnthropicDecoder()]
    for decoder in decoders:
        events = list(decoder.iter_bytes(iter(pieces)))

        assert [(event.id, event.event or "", json.loads(event.data)["n"]) for event in events] == [
            ("s-1", "", 1),
            ("s-2", "ping", 2),
            ("s-3", "", 3),
        ]


LINES = st.lists(st.binary(max_size=5).map(lambda line: line.replace(b"\r", b"").replace(b"\n", b"")), max_size=4)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.sampled_from(["", "done"]), LINES.map(b"\n".join).filter(bool)), max_size=3))
def test_data_of_several_lines_is_decoded_unchanged(frames: list[tuple[str, bytes]]) -> None:
    assert list(SSEDecoder().feed(encode_frames("s", 1, frames))) == frames


@pytest.mark.parametrize("data", [b"a\rb", b"a\r\nb"])
def test_no_line_end_in_data_breaks_a_frame(data: bytes) -> None:
    assert list(SSEDecoder().feed(encode_frames("s", 1, [("", data)]))) == [Frame("", b"a\nb")]
