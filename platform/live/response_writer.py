"""The interface between this room and the wire: how an answer is written. `api.live` implements it per wire format."""

from typing import Protocol

from inference.routing import Target
from providers.types import Burst, InferenceResponse


class AnswerEncoder(Protocol):
    """Encodes complete answers."""

    def encode_answer(self, answer: InferenceResponse, target: Target) -> bytes:
        """Return the body of the response. The response cache stores it as it is."""
        ...


class ResponseWriter(AnswerEncoder, Protocol):
    """Writes one response to its stream: `answer`, or `start` and then `events`. `error` may end either."""

    def start(self, target: Target) -> None:
        """Begin a stream that this target answers."""
        ...

    def events(self, burst: Burst) -> None:
        """Write what arrived from the provider in one read."""
        ...

    def continued(self, target: Target) -> None:
        """Mark that the answer was cut and this target continues it."""
        ...

    def answer(self, body: bytes) -> None:
        """Write a complete answer, as one event."""
        ...

    def error(self, error: BaseException) -> None:
        """Write why the answer does not come, or stops here. Before the first event the response gets its status."""
        ...
