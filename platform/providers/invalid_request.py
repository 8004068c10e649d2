"""The error for a request that a dialect cannot read. (Errors of a provider call are in `providers.errors`.)"""

from dataclasses import dataclass


@dataclass(eq=False)
class InvalidRequest(Exception):
    """The caller's body is invalid. `message` is worded as in the dialect; it may quote a short value, no prompt."""

    message: str
    #: The path of the field, such as `messages.0.content`; None for the whole body.
    param: str | None = None
    #: OpenAI's error code, such as `missing_required_parameter`.
    code: str | None = None

    def __str__(self) -> str:
        return self.message
