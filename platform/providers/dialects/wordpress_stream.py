"""The stream of `POST /v1/chat`: OpenAI's chunks for a browser's `EventSource`, then `done` or `error`."""

import msgspec

from providers.dialects.encoding import StreamEncoder
from providers.dialects.error_bodies import Fault, openai_error
from providers.dialects.openai import encode_usage
from providers.dialects.openai_stream import DONE
from providers.dialects.sse import Frame
from providers.types import Burst, Finished


class WordPressStream:
    """Lets `chunks` write OpenAI's. What ends the stream is an event with a name, for which a page can listen."""

    def __init__(self, answer_id: str, chunks: StreamEncoder) -> None:
        self._id = answer_id
        self._chunks = chunks

    def encode(self, burst: Burst) -> list[Frame]:
        frames = self._chunks.encode(burst)
        if not frames or frames[-1] is not DONE:
            return frames
        return [*frames[:-1], *(self._done(event) for event in burst.events if isinstance(event, Finished))]

    def interrupt(self, error: Fault) -> list[Frame]:
        return [Frame("error", openai_error(error)) for _ in self._chunks.interrupt(error)]

    def continued(self, provider: str) -> tuple[StreamEncoder, list[Frame]]:
        self._chunks, frames = self._chunks.continued(provider)
        return self, frames

    def _done(self, event: Finished) -> Frame:
        usage = encode_usage(event.usage) if event.usage else None
        return Frame("done", msgspec.json.encode({"id": self._id, "finish_reason": event.reason.value, "usage": usage}))
