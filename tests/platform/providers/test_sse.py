"""Frames are decoded the same, however the bytes are split."""

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.sse import Frame, FrameTooLong, SSEDecoder
from tests.platform.providers.vendors import recorded


def decoded(*chunks: bytes) -> list[Frame]:
    decoder = SSEDecoder()
    return [frame for chunk in chunks for frame in decoder.feed(chunk)]


@pytest.mark.parametrize(
    ("stream", "frames"),
    [
        (b"data: a\n\n", [Frame("", b"a")]),
        (b"data:a\n\n", [Frame("", b"a")]),
        (b"data:  a\n\n", [Frame("", b" a")]),
        (b"data: a\r\n\r\n", [Frame("", b"a")]),
        (b"data: a\r\r", [Frame("", b"a")]),
        (b"data: a\r\n\ndata: b\r\r\n", [Frame("", b"a"), Frame("", b"b")]),
        (b"data: a\ndata: b\n\n", [Frame("", b"a\nb")]),
        (b"event: ping\ndata: {}\n\n", [Frame("ping", b"{}")]),
        (b"event: ping\n\ndata: x\n\n", [Frame("", b"x")]),
        (b": comment\n\ndata: a\n\n", [Frame("", b"a")]),
        (b": comment\ndata: a\n\n", [Frame("", b"a")]),
        (b"id: 7\nretry: 10\ndata: a\n\n", [Frame("", b"a")]),
        (b"data\n\n", []),
        (b"\n\n\n", []),
        (b"nonsense\n\n", []),
        (b"\xef\xbb\xbfdata: a\n\n", [Frame("", b"a")]),
        (b"data: a\n", []),
        (b"data: \xe2\x98\x82\n\n", [Frame("", b"\xe2\x98\x82")]),
        # No other character ends a line, not even one that ends lines in Unicode.
        ("data: a\u2028b\x0bc\x85d\n\n".encode(), [Frame("", "a\u2028b\x0bc\x85d".encode())]),
    ],
)
def test_frames_follow_the_standard(stream: bytes, frames: list[Frame]) -> None:
    assert decoded(stream) == frames


LINES = st.sampled_from(
    [b"data: a", "data: ☂".encode(), b"data:", b"event: ping", b": note", b"", b"id: 1", b"junk", b"data: {}"]
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
STREAMS = st.lists(st.tuples(LINES, ENDS), max_size=12).map(lambda pairs: b"".join(a + b for a, b in pairs))


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[a:b] for a, b in zip(edges, edges[1:], strict=False)]


@settings(deadline=None)
@given(STREAMS, st.lists(st.integers(min_value=0), max_size=8))
def test_frames_do_not_depend_on_how_the_bytes_are_split(stream: bytes, places: list[int]) -> None:
    assert decoded(*cut(stream, places)) == decoded(stream)


def test_an_empty_chunk_between_cr_and_lf_changes_nothing() -> None:
    assert decoded(b"data: a\r", b"", b"\ndata: b\n\n") == [Frame("", b"a\nb")]


@pytest.mark.parametrize("name", ["openai/chat_text.sse", "anthropic/messages_text.sse", "azure/chat_text.sse"])
def test_recorded_streams_decode_the_same_byte_by_byte(name: str) -> None:
    stream = recorded(name)

    assert decoded(*(stream[i : i + 1] for i in range(len(stream)))) == decoded(stream)
    assert decoded(stream.replace(b"\n", b"\r\n")) == decoded(stream)


@pytest.mark.parametrize("end", [b"", b"\n", b"\r"])
def test_the_end_completes_a_frame_without_its_blank_line(end: bytes) -> None:
    decoder = SSEDecoder()

    assert list(decoder.feed(b"data: [DONE]" + end)) == []
    assert decoder.close() == Frame("", b"[DONE]")


def test_the_end_of_a_complete_stream_yields_no_frame() -> None:
    decoder = SSEDecoder()
    list(decoder.feed(b"data: a\n\n"))

    assert decoder.close() is None


@pytest.mark.parametrize(
    "chunks", [[b"data: " + b"x" * 200], [b"data: x\n"] * 200, [b"x"] * 200], ids=["line", "lines", "bytes"]
)
def test_a_frame_that_is_too_long_is_rejected_before_it_is_buffered(chunks: list[bytes]) -> None:
    decoder = SSEDecoder(max_frame_bytes=100)

    with pytest.raises(FrameTooLong):
        deque((frame for chunk in chunks for frame in decoder.feed(chunk)), maxlen=0)


def test_many_frames_and_comments_are_not_one_long_frame() -> None:
    decoder = SSEDecoder(max_frame_bytes=100)

    assert len(list(decoder.feed(b": keep-alive\n" * 100 + b"data: x\n\n" * 100))) == 100
