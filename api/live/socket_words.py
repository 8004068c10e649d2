"""What is said over a WebSocket: one JSON message a frame, told apart by `type`."""

import re
from collections.abc import Callable
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from api.errors import Problem
from providers.dialects.errors import InvalidRequest

#: How a client calls what it has under way.
Ref: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64)]
PublicId: TypeAlias = Annotated[str, Meta(max_length=64)]
WHERE = re.compile(r" - at `\$\.?(?P<where>[^`]*)`$")


class ClientWord(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True): ...


class Auth(ClientWord, frozen=True, kw_only=True, tag="auth"):
    """The proof, where the handshake carried none: what would stand behind `Authorization: Bearer`."""

    token: str


class Start(ClientWord, frozen=True, kw_only=True, tag="start"):
    """Begin a stream, and follow it. `body` is that of its dialect."""

    ref: Ref
    body: Raw
    dialect: str = "openai"
    continue_: bool = msgspec.field(name="continue", default=False)
    idempotency_key: str | None = None


class Follow(ClientWord, frozen=True, kw_only=True, tag="follow"):
    """Read a stream or a job, after the event with this number."""

    ref: Ref
    stream: PublicId | None = None
    job: PublicId | None = None
    after: Annotated[int, Meta(ge=0, lt=2**53)] = 0


class Leave(ClientWord, frozen=True, kw_only=True, tag="leave"):
    """Follow it no longer. It goes on for a while, and can be followed again."""

    ref: Ref


class Cancel(ClientWord, frozen=True, kw_only=True, tag="cancel"):
    """Close a stream's call upstream."""

    ref: Ref | None = None
    stream: PublicId | None = None


class Ping(ClientWord, frozen=True, kw_only=True, tag="ping"):
    id: Any = None


class Pong(ClientWord, frozen=True, kw_only=True, tag="pong"):
    id: int


Said: TypeAlias = Auth | Start | Follow | Leave | Cancel | Ping | Pong


class ServerWord(Struct, frozen=True, kw_only=True): ...


class Ready(ServerWord, frozen=True, kw_only=True, tag="ready"):
    """The proof holds."""

    site: str


class Started(ServerWord, frozen=True, kw_only=True, tag="started"):
    ref: str
    stream: str
    request_id: str
    #: An earlier request with the same key had begun it.
    replayed: bool = False


class Following(ServerWord, frozen=True, kw_only=True, tag="following"):
    ref: str
    stream: str | UnsetType = UNSET
    job: str | UnsetType = UNSET


class EventCame(ServerWord, frozen=True, kw_only=True, tag="event", omit_defaults=True):
    ref: str
    #: Absent from what is no event of a log, such as the state of a job.
    seq: int = 0
    event: str = ""
    #: The JSON itself; text where it is none, such as `[DONE]`.
    data: Raw


class Ended(ServerWord, frozen=True, kw_only=True, tag="end"):
    ref: str
    kind: str
    #: The last event that was sent.
    seq: int
    status: int | UnsetType = UNSET
    error: Any | UnsetType = UNSET


class Canceled(ServerWord, frozen=True, kw_only=True, tag="canceled"):
    stream: str
    #: False: it had ended already.
    was_running: bool
    ref: str | UnsetType = UNSET


class Failure(ServerWord, frozen=True, kw_only=True, tag="error"):
    """What is wrong with one message of the client's, or why the connection is about to be closed."""

    error: Any
    ref: str | UnsetType = UNSET


class Asking(ServerWord, frozen=True, kw_only=True, tag="ping"):
    id: int


class Answering(ServerWord, frozen=True, kw_only=True, tag="pong"):
    id: Any = None


class Named(Struct):
    ref: Any = None


_decode: Callable[[str], Said] = msgspec.json.Decoder(Said).decode
_find_name = msgspec.json.Decoder(Named).decode
_find_json = msgspec.json.Decoder(Raw).decode
_encode = msgspec.json.Encoder().encode


def read(text: str) -> Said:
    """Return what a client says. Raises `InvalidRequest`."""
    try:
        return _decode(text)
    except msgspec.ValidationError as error:
        message = str(error)
        where = found["where"] if (found := WHERE.search(message)) else None
        raise InvalidRequest(WHERE.sub("", message) + ".", where or None, "invalid_value") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest("The message is no JSON.", None, "malformed_body") from error


def name_in(text: str) -> str | UnsetType:
    """Return the `ref` of a message that cannot be read, if it has one."""
    try:
        ref = _find_name(text).ref
    except (msgspec.MsgspecError, RecursionError):
        return UNSET
    return ref if isinstance(ref, str) and len(ref) <= 64 else UNSET


def write(word: ServerWord) -> str:
    # What a provider wrote passes through as it is, and may be no Unicode.
    return _encode(word).decode(errors="replace")


def data_of(data: bytes) -> Raw:
    """Return an event's data as it stands in a message."""
    try:
        return _find_json(data)
    except msgspec.MsgspecError:
        return Raw(_encode(data.decode(errors="replace")))


def error_of(problem: Problem, request_id: str) -> dict[str, Any]:
    """Return an error as it stands in a message: in the words of all our errors."""
    error: dict[str, Any] = {
        "type": problem.type,
        "code": problem.code,
        "message": problem.message,
        "param": problem.param,
        "request_id": request_id,
    }
    if problem.retry_after_seconds is not None:
        error["retry_after"] = problem.retry_after_seconds
    return error
