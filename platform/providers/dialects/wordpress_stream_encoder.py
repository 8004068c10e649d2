"""The stream of `POST /v1/chat`: OpenAI's chunks for a browser's `EventSource`, then `done` or `error`."""

import msgspec

from providers.dialects.error_payloads import ErrorPayload, encode_openai_error
from providers.dialects.openai import encode_usage
from providers.dialects.openai_stream_encoder import DONE
from providers.dialects.stream_encoder import StreamEncoder
from providers.sse import Frame
from providers.types import AnswerFinished, Burst


class WordPressStreamEncoder:
    """Wraps `chunks`, an encoder of OpenAI's dialect. The stream ends with a named event that a page can listen for."""

    def __init__(self, answer_id: str, chunks: StreamEncoder) -> None:
        self._id = answer_id
        self._chunks = chunks

    def encode(self, burst: Burst) -> list[Frame]:
        frames = self._chunks.encode(burst)
        if not frames or frames[-1] is not DONE:
            return frames
        return [*frames[:-1], *(self._done(event) for event in burst.events if isinstance(event, AnswerFinished))]

    def encode_interruption(self, error: ErrorPayload) -> list[Frame]:
        return [Frame("error", encode_openai_error(error)) for _ in self._chunks.encode_interruption(error)]

    def continue_with(self, provider: str) -> tuple[StreamEncoder, list[Frame]]:
        self._chunks, frames = self._chunks.continue_with(provider)
        return self, frames

    def _done(self, event: AnswerFinished) -> Frame:
        usage = encode_usage(event.usage) if event.usage else None
        return Frame("done", msgspec.json.encode({"id": self._id, "finish_reason": event.reason.value, "usage": usage}))
