"""What is said over a WebSocket: one JSON message a frame, told apart by `type`."""

import re
from collections.abc import Callable
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from api.errors import ApiProblem
from providers.invalid_request import InvalidRequest

#: How a client calls what it has under way.
RefName: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64)]
PublicId: TypeAlias = Annotated[str, Meta(max_length=64)]
ERROR_PATH = re.compile(r" - at `\$\.?(?P<where>[^`]*)`$")


class ClientMessage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True): ...


class AuthMessage(ClientMessage, frozen=True, kw_only=True, tag="auth"):
    """The proof, where the handshake carried none: what would stand behind `Authorization: Bearer`."""

    token: str


class StartMessage(ClientMessage, frozen=True, kw_only=True, tag="start"):
    """Begin a stream, and follow it. `body` is that of its dialect."""

    ref: RefName
    body: Raw
    dialect: str = "openai"
    continue_: bool = msgspec.field(name="continue", default=False)
    idempotency_key: str | None = None


class FollowMessage(ClientMessage, frozen=True, kw_only=True, tag="follow"):
    """Read a stream or a job, after the event with this number."""

    ref: RefName
    stream: PublicId | None = None
    job: PublicId | None = None
    after: Annotated[int, Meta(ge=0, lt=2**53)] = 0


class LeaveMessage(ClientMessage, frozen=True, kw_only=True, tag="leave"):
    """Follow it no longer. It goes on for a while, and can be followed again."""

    ref: RefName


class CancelMessage(ClientMessage, frozen=True, kw_only=True, tag="cancel"):
    """Close a stream's call upstream."""

    ref: RefName | None = None
    stream: PublicId | None = None


class ClientPing(ClientMessage, frozen=True, kw_only=True, tag="ping"):
    id: Any = None


class ClientPong(ClientMessage, frozen=True, kw_only=True, tag="pong"):
    id: int


AnyClientMessage: TypeAlias = (
    AuthMessage | StartMessage | FollowMessage | LeaveMessage | CancelMessage | ClientPing | ClientPong
)


class ServerMessage(Struct, frozen=True, kw_only=True): ...


class ReadyMessage(ServerMessage, frozen=True, kw_only=True, tag="ready"):
    """The proof holds."""

    site: str


class StartedMessage(ServerMessage, frozen=True, kw_only=True, tag="started"):
    ref: str
    stream: str
    request_id: str
    #: An earlier request with the same key had begun it.
    replayed: bool = False


class FollowingMessage(ServerMessage, frozen=True, kw_only=True, tag="following"):
    ref: str
    stream: str | UnsetType = UNSET
    job: str | UnsetType = UNSET


class EventMessage(ServerMessage, frozen=True, kw_only=True, tag="event", omit_defaults=True):
    ref: str
    #: Absent from what is no event of a log, such as the state of a job.
    seq: int = 0
    event: str = ""
    #: The JSON itself; text where it is none, such as `[DONE]`.
    data: Raw


class EndMessage(ServerMessage, frozen=True, kw_only=True, tag="end"):
    ref: str
    kind: str
    #: The last event that was sent.
    seq: int
    status: int | UnsetType = UNSET
    error: Any | UnsetType = UNSET


class CanceledMessage(ServerMessage, frozen=True, kw_only=True, tag="canceled"):
    stream: str
    #: False: it had ended already.
    was_running: bool
    ref: str | UnsetType = UNSET


class ErrorMessage(ServerMessage, frozen=True, kw_only=True, tag="error"):
    """What is wrong with one message of the client's, or why the connection is about to be closed."""

    error: Any
    ref: str | UnsetType = UNSET


class ServerPing(ServerMessage, frozen=True, kw_only=True, tag="ping"):
    id: int


class ServerPong(ServerMessage, frozen=True, kw_only=True, tag="pong"):
    id: Any = None


class RefOnly(Struct):
    ref: Any = None


_decode: Callable[[str], AnyClientMessage] = msgspec.json.Decoder(AnyClientMessage).decode
_decode_ref = msgspec.json.Decoder(RefOnly).decode
_decode_raw = msgspec.json.Decoder(Raw).decode
_encode = msgspec.json.Encoder().encode


def decode_message(text: str) -> AnyClientMessage:
    """Return what a client says. Raises `InvalidRequest`."""
    try:
        return _decode(text)
    except msgspec.ValidationError as error:
        message = str(error)
        where = found["where"] if (found := ERROR_PATH.search(message)) else None
        raise InvalidRequest(ERROR_PATH.sub("", message) + ".", where or None, "invalid_value") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest("The message is no JSON.", None, "malformed_body") from error


def find_ref(text: str) -> str | UnsetType:
    """Return the `ref` of a message that cannot be read, if it has one."""
    try:
        ref = _decode_ref(text).ref
    except (msgspec.MsgspecError, RecursionError):
        return UNSET
    return ref if isinstance(ref, str) and len(ref) <= 64 else UNSET


def encode_message(message: ServerMessage) -> str:
    # What a provider wrote passes through as it is, and may be no Unicode.
    return _encode(message).decode(errors="replace")


def event_data(data: bytes) -> Raw:
    """Return an event's data as it stands in a message."""
    try:
        return _decode_raw(data)
    except msgspec.MsgspecError:
        return Raw(_encode(data.decode(errors="replace")))


def error_body(problem: ApiProblem, request_id: str) -> dict[str, Any]:
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
