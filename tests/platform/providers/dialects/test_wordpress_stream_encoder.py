"""The stream for an `EventSource`: chunks, then an end that has a name."""

import json

from providers.dialects.error_payloads import ErrorPayload
from providers.dialects.openai_stream_encoder import OpenAIStreamEncoder
from providers.dialects.wordpress_stream_encoder import WordPressStreamEncoder
from providers.types import AnswerFinished, AnswerStarted, Burst, FinishReason, TextDelta, ToolCallStarted, Usage

STARTED = AnswerStarted("id", "m-2026")
CUT = ErrorPayload(502, "server_error", "upstream_stream_interrupted", "Cut.")


def encoder_of(answer_id: str) -> WordPressStreamEncoder:
    return WordPressStreamEncoder(answer_id, OpenAIStreamEncoder(answer_id, 5, "m"))


def test_the_end_is_an_event_that_a_page_can_listen_for() -> None:
    encoder = encoder_of("stm_1")

    *chunks, done = encoder.encode(Burst((STARTED, TextDelta("a"), AnswerFinished(FinishReason.LENGTH, Usage(3, 2)))))

    assert [frame.event for frame in chunks] == ["", "", ""]
    assert [json.loads(frame.data)["choices"][0]["finish_reason"] for frame in chunks] == [None, None, "length"]
    body = json.loads(done.data)
    assert (done.event, body["id"], body["finish_reason"]) == ("done", "stm_1", "length")
    assert body["usage"]["total_tokens"] == 5
    assert encoder.encode_interruption(CUT) == []


def test_usage_that_nobody_knows_is_null() -> None:
    frames = encoder_of("stm_1").encode(Burst((STARTED, AnswerFinished(FinishReason.STOP, None))))

    assert json.loads(frames[-1].data)["usage"] is None


def test_a_failure_is_an_event_and_then_there_is_no_end() -> None:
    encoder = encoder_of("stm_1")
    encoder.encode(Burst((STARTED, TextDelta("a"))))

    (frame,) = encoder.encode_interruption(CUT)

    assert frame.event == "error"
    assert json.loads(frame.data)["error"]["code"] == "upstream_stream_interrupted"


def test_another_provider_goes_on_without_beginning_again() -> None:
    encoder = encoder_of("stm_1")
    encoder.encode(Burst((STARTED, ToolCallStarted(0, "call_a", "f"))))

    text, call = encoder.continue_with("next")[0].encode(
        Burst((AnswerStarted("other", "other"), TextDelta("b"), ToolCallStarted(0, "b", "g")))
    )

    assert json.loads(text.data)["choices"][0]["delta"] == {"content": "b"}
    assert json.loads(call.data)["choices"][0]["delta"]["tool_calls"][0]["index"] == 1
