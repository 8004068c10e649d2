"""Round trips of streams: what a provider streams in either dialect, a caller receives in either dialect."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.dialects.error_payloads import ErrorPayload
from providers.dialects.stream_encoder import StreamEncoder
from providers.errors import ProviderError
from providers.types import AnswerFinished, Burst, Dialect, FinishReason, Usage
from tests.platform.providers.dialects.stream_strategies import (
    DIALECTS,
    assemble,
    decoder_of,
    encode_all,
    encoder_of,
    read_all,
    streams,
    through_of,
)

#: No deadline per example, and few of them, because the machine may be busy.
QUICK = settings(deadline=None, max_examples=30)

CUT = ErrorPayload(502, "server_error", "upstream_stream_interrupted", "The provider's stream ended in the middle.")
END_MARKS = (b"[DONE]", b'{"type":"message_stop"}')

PAIRS = [(provider, caller) for provider in DIALECTS for caller in DIALECTS]

# Each example is drawn once for all dialects: drawing takes longer than the test itself.


@QUICK
@given(streams())
def test_a_caller_receives_the_provider_s_answer_in_every_dialect(provider_stream: list[Burst]) -> None:
    for provider, caller in PAIRS:
        upstream = read_all(provider, encode_all(encoder_of(provider), provider_stream))

        frames = encode_all(encoder_of(caller), upstream)

        assert assemble(read_all(caller, frames)) == assemble(upstream) == assemble(provider_stream)


@QUICK
@given(streams())
def test_passed_through_frames_are_the_provider_s_own_bytes(provider_stream: list[Burst]) -> None:
    for dialect in DIALECTS:
        frames = encode_all(encoder_of(dialect), provider_stream)

        assert encode_all(through_of(dialect), read_all(dialect, frames)) == frames


@QUICK
@given(streams(), st.floats(0, 1))
def test_an_interrupted_stream_never_ends_cleanly(provider_stream: list[Burst], share: float) -> None:
    for provider, caller in PAIRS:
        complete = read_all(provider, encode_all(encoder_of(provider), provider_stream)[:-1])
        cut = complete[: round(share * len(complete))]
        for encoder in encoders(provider, caller):
            frames = encode_all(encoder, cut)
            (error,) = encoder.encode_interruption(CUT)

            decoder = decoder_of(caller)
            for frame in frames:
                decoder.decode(frame)
            with pytest.raises(ProviderError, match="ended in the middle"):
                decoder.decode(error)
            assert decoder.finished is None


@QUICK
@given(streams(), st.floats(0, 1), streams())
def test_another_provider_continues_the_same_answer(
    provider_stream: list[Burst], share: float, more: list[Burst]
) -> None:
    for provider, caller in PAIRS:
        complete = read_all(provider, encode_all(encoder_of(provider), provider_stream)[:-1])
        cut = [burst for burst in complete[: round(share * len(complete))] if not _has_finish_reason(burst)]
        for encoder in encoders(provider, caller):
            before = encode_all(encoder, cut)

            after = encode_all(encoder.continue_with("next")[0], more)

            received, first, rest = assemble(read_all(caller, [*before, *after])), assemble(cut), assemble(more)
            assert (received.text, received.reasoning) == (first.text + rest.text, first.reasoning + rest.reasoning)
            assert [call[:2] for call in received.calls] == [call[:2] for call in (*first.calls, *rest.calls)]
            assert received.calls[len(first.calls) :] == rest.calls
            assert received.finished is not None
            assert received.finished.usage == (rest.finished and rest.finished.usage)


@QUICK
@given(streams())
def test_nothing_follows_the_end(provider_stream: list[Burst]) -> None:
    for dialect in DIALECTS:
        upstream = read_all(dialect, encode_all(encoder_of(dialect), provider_stream))
        for encoder in encoders(dialect, dialect):
            frames = encode_all(encoder, upstream)

            assert encode_all(encoder, upstream) == []
            assert encoder.encode_interruption(CUT) == []
            assert [frame for frame in frames if frame.data in END_MARKS] == frames[-1:]


def encoders(provider: Dialect, caller: Dialect) -> Iterator[StreamEncoder]:
    """Yield each encoder by which this caller may receive this provider's stream."""
    yield encoder_of(caller)
    if caller is provider:
        yield through_of(caller)


def _has_finish_reason(burst: Burst) -> bool:
    """Return whether part of the end was passed on: after that no provider can continue."""
    return any(b'_reason":"' in frame.data for frame in burst.frames)


def test_one_hour_cache_writes_are_encoded_if_the_dialect_can() -> None:
    usage = Usage(100, 5, cached_input_tokens=10, cache_write_tokens=30, cache_write_1h_tokens=20)
    for dialect, expected in ((Dialect.ANTHROPIC, usage), (Dialect.OPENAI, replace(usage, cache_write_1h_tokens=0))):
        provider_stream = [Burst((AnswerFinished(FinishReason.STOP, usage),))]

        finished = assemble(read_all(dialect, encode_all(encoder_of(dialect), provider_stream))).finished

        assert finished is not None
        assert finished.usage == expected
