"""The stream for an `EventSource`: chunks, then an end that has a name."""

import json

from providers.dialects.error_bodies import Fault
from providers.dialects.openai_stream import OpenAIStream
from providers.dialects.wordpress_stream import WordPressStream
from providers.types import Burst, Finished, FinishReason, Started, TextDelta, ToolCallStarted, Usage

STARTED = Started("id", "m-2026")
CUT = Fault(502, "server_error", "upstream_stream_interrupted", "Cut.")


def encoder_of(answer_id: str) -> WordPressStream:
    return WordPressStream(answer_id, OpenAIStream(answer_id, 5, "m"))


def test_the_end_is_an_event_that_a_page_can_listen_for() -> None:
    encoder = encoder_of("stm_1")

    *chunks, done = encoder.encode(Burst((STARTED, TextDelta("a"), Finished(FinishReason.LENGTH, Usage(3, 2)))))

    assert [frame.event for frame in chunks] == ["", "", ""]
    assert [json.loads(frame.data)["choices"][0]["finish_reason"] for frame in chunks] == [None, None, "length"]
    body = json.loads(done.data)
    assert (done.event, body["id"], body["finish_reason"]) == ("done", "stm_1", "length")
    assert body["usage"]["total_tokens"] == 5
    assert encoder.interrupt(CUT) == []


def test_usage_that_nobody_knows_is_null() -> None:
    frames = encoder_of("stm_1").encode(Burst((STARTED, Finished(FinishReason.STOP, None))))

    assert json.loads(frames[-1].data)["usage"] is None


def test_a_failure_is_an_event_and_then_there_is_no_end() -> None:
    encoder = encoder_of("stm_1")
    encoder.encode(Burst((STARTED, TextDelta("a"))))

    (frame,) = encoder.interrupt(CUT)

    assert frame.event == "error"
    assert json.loads(frame.data)["error"]["code"] == "upstream_stream_interrupted"


def test_another_provider_goes_on_without_beginning_again() -> None:
    encoder = encoder_of("stm_1")
    encoder.encode(Burst((STARTED, ToolCallStarted(0, "call_a", "f"))))

    text, call = encoder.continued("next")[0].encode(
        Burst((Started("other", "other"), TextDelta("b"), ToolCallStarted(0, "b", "g")))
    )

    assert json.loads(text.data)["choices"][0]["delta"] == {"content": "b"}
    assert json.loads(call.data)["choices"][0]["delta"]["tool_calls"][0]["index"] == 1
