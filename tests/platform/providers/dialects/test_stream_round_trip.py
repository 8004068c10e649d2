"""Whatever a provider streams, in either dialect, its callers hear in either dialect."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.dialects.error_payloads import ErrorPayload
from providers.dialects.stream_encoder import StreamEncoder
from providers.errors import ProviderError
from providers.types import AnswerFinished, Burst, Dialect, FinishReason, Usage
from tests.platform.providers.dialects.streamed import (
    DIALECTS,
    decoder_of,
    encode_all,
    encoder_of,
    heard,
    read_all,
    streams,
    through_of,
)

#: The machine may be busy: no deadline for one example, and not too many of them.
QUICK = settings(deadline=None, max_examples=30)

CUT = ErrorPayload(502, "server_error", "upstream_stream_interrupted", "The provider's stream ended in the middle.")
END_MARKS = (b"[DONE]", b'{"type":"message_stop"}')

PAIRS = [(provider, caller) for provider in DIALECTS for caller in DIALECTS]

# Each example is drawn once for all dialects: drawing takes longer than what is tested.


@QUICK
@given(streams())
def test_a_caller_hears_what_the_provider_said(said: list[Burst]) -> None:
    for provider, caller in PAIRS:
        upstream = read_all(provider, encode_all(encoder_of(provider), said))

        frames = encode_all(encoder_of(caller), upstream)

        assert heard(read_all(caller, frames)) == heard(upstream) == heard(said)


@QUICK
@given(streams())
def test_what_passes_through_is_the_provider_s_own_bytes(said: list[Burst]) -> None:
    for dialect in DIALECTS:
        frames = encode_all(encoder_of(dialect), said)

        assert encode_all(through_of(dialect), read_all(dialect, frames)) == frames


@QUICK
@given(streams(), st.floats(0, 1))
def test_a_cut_stream_never_ends_cleanly(said: list[Burst], share: float) -> None:
    for provider, caller in PAIRS:
        whole = read_all(provider, encode_all(encoder_of(provider), said)[:-1])
        cut = whole[: round(share * len(whole))]
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
def test_another_provider_goes_on_in_the_same_answer(said: list[Burst], share: float, more: list[Burst]) -> None:
    for provider, caller in PAIRS:
        whole = read_all(provider, encode_all(encoder_of(provider), said)[:-1])
        cut = [burst for burst in whole[: round(share * len(whole))] if not _says_why_it_ends(burst)]
        for encoder in encoders(provider, caller):
            before = encode_all(encoder, cut)

            after = encode_all(encoder.continue_with("next")[0], more)

            got, first, rest = heard(read_all(caller, [*before, *after])), heard(cut), heard(more)
            assert (got.text, got.reasoning) == (first.text + rest.text, first.reasoning + rest.reasoning)
            assert [call[:2] for call in got.calls] == [call[:2] for call in (*first.calls, *rest.calls)]
            assert got.calls[len(first.calls) :] == rest.calls
            assert got.finished is not None
            assert got.finished.usage == (rest.finished and rest.finished.usage)


@QUICK
@given(streams())
def test_nothing_follows_the_end(said: list[Burst]) -> None:
    for dialect in DIALECTS:
        upstream = read_all(dialect, encode_all(encoder_of(dialect), said))
        for encoder in encoders(dialect, dialect):
            frames = encode_all(encoder, upstream)

            assert encode_all(encoder, upstream) == []
            assert encoder.encode_interruption(CUT) == []
            assert [frame for frame in frames if frame.data in END_MARKS] == frames[-1:]


def encoders(provider: Dialect, caller: Dialect) -> Iterator[StreamEncoder]:
    """Yield each way in which this caller may get this provider's stream."""
    yield encoder_of(caller)
    if caller is provider:
        yield through_of(caller)


def _says_why_it_ends(burst: Burst) -> bool:
    """What was passed on of an end cannot be taken back, so nobody goes on after it."""
    return any(b'_reason":"' in frame.data for frame in burst.frames)


def test_an_hour_in_the_cache_is_told_where_the_dialect_can() -> None:
    usage = Usage(100, 5, cached_input_tokens=10, cache_write_tokens=30, cache_write_1h_tokens=20)
    for dialect, told in ((Dialect.ANTHROPIC, usage), (Dialect.OPENAI, replace(usage, cache_write_1h_tokens=0))):
        said = [Burst((AnswerFinished(FinishReason.STOP, usage),))]

        finished = heard(read_all(dialect, encode_all(encoder_of(dialect), said))).finished

        assert finished is not None
        assert finished.usage == told
