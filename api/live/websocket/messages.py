"""The messages of a WebSocket: one JSON object per frame, with its kind in `type` (docs/reference/websocket.md)."""

import re
from collections.abc import Callable
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from api.errors import ApiProblem
from providers.invalid_request import InvalidRequest

#: The client's name for one of its subscriptions.
RefName: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64)]
PublicId: TypeAlias = Annotated[str, Meta(max_length=64)]
ERROR_PATH = re.compile(r" - at `\$\.?(?P<where>[^`]*)`$")


class ClientMessage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True): ...


class AuthMessage(ClientMessage, frozen=True, kw_only=True, tag="auth"):
    """The credential, if the handshake had none: the value of `Authorization: Bearer`."""

    token: str


class StartMessage(ClientMessage, frozen=True, kw_only=True, tag="start"):
    """Start a stream and follow it. `body` is in the wire format that `dialect` names."""

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
    """Stop following a stream or job. An unread stream runs on for the grace time and can be followed again."""

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
    """The client is authenticated."""

    site: str


class StartedMessage(ServerMessage, frozen=True, kw_only=True, tag="started"):
    ref: str
    stream: str
    request_id: str
    #: An earlier request with the same idempotency key had started it.
    replayed: bool = False


class FollowingMessage(ServerMessage, frozen=True, kw_only=True, tag="following"):
    ref: str
    stream: str | UnsetType = UNSET
    job: str | UnsetType = UNSET


class EventMessage(ServerMessage, frozen=True, kw_only=True, tag="event", omit_defaults=True):
    ref: str
    #: 0, and so absent, for events without a number, such as the state of a job.
    seq: int = 0
    event: str = ""
    #: The event's JSON; a JSON string if the data is not JSON, such as `[DONE]`.
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
    #: False: the stream had already ended.
    was_running: bool
    ref: str | UnsetType = UNSET


class ErrorMessage(ServerMessage, frozen=True, kw_only=True, tag="error"):
    """Why a message or a subscription failed, or why the connection is about to be closed."""

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
    """Return a client's message. Raises `InvalidRequest`."""
    try:
        return _decode(text)
    except msgspec.ValidationError as error:
        message = str(error)
        where = found["where"] if (found := ERROR_PATH.search(message)) else None
        raise InvalidRequest(ERROR_PATH.sub("", message) + ".", where or None, "invalid_value") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest("The message is not JSON.", None, "malformed_body") from error


def find_ref(text: str) -> str | UnsetType:
    """Return the `ref` of a message that is otherwise invalid, if it has one."""
    try:
        ref = _decode_ref(text).ref
    except (msgspec.MsgspecError, RecursionError):
        return UNSET
    return ref if isinstance(ref, str) and len(ref) <= 64 else UNSET


def encode_message(message: ServerMessage) -> str:
    # Providers' bytes pass through unchanged, and may not be valid UTF-8.
    return _encode(message).decode(errors="replace")


def event_data(data: bytes) -> Raw:
    """Return an event's data as JSON."""
    try:
        return _decode_raw(data)
    except msgspec.MsgspecError:
        return Raw(_encode(data.decode(errors="replace")))


def error_body(problem: ApiProblem, request_id: str) -> dict[str, Any]:
    """Return an error as JSON, with the same fields as an error of the REST API."""
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
