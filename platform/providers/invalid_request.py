"""What a dialect says of a request that it cannot read. (What a provider answers is in `providers.errors`.)"""

from dataclasses import dataclass


@dataclass(eq=False)
class InvalidRequest(Exception):
    """The caller's body is wrong. `message` is in the words of the dialect; it may quote a short value, no prompt."""

    message: str
    #: Where, such as `messages.0.content`. None where the whole body is meant.
    param: str | None = None
    #: OpenAI's finer word, such as `missing_required_parameter`.
    code: str | None = None

    def __str__(self) -> str:
        return self.message
