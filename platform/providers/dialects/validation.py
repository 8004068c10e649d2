"""Decoding of callers' bodies to typed structs. Issues are neutral; each dialect formats them its own way."""

import binascii
import re
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import msgspec
from msgspec import Raw, Struct

from providers.invalid_request import InvalidRequest

#: Deeper than any real schema, and far below the limits of the encoders that run later.
MAX_NESTING_DEPTH = 64

_ERROR_PATH = re.compile(r" - at `\$(?P<path>[^`]*)`$")
_MISSING = re.compile(r"^Object missing required field `(?P<name>[^`]*)`$")
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<name>[^`]*)`$")

#: msgspec's error for a content part, of a message or inside a tool's result, whose type has no struct.
_UNKNOWN_PART_ERROR = re.compile(
    r"^Invalid value .* - at `\$\.messages\[\d+\]\.content\[\d+\](\.content\[\d+\])?\.type`$"
)
UNKNOWN_PART_TAG = "*"

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class UnknownContentPart(Struct, tag_field="type", tag=UNKNOWN_PART_TAG):
    """A content part of an unknown type."""

    part: Any = None


@dataclass(frozen=True, slots=True)
class DecodedBody(Generic[T_co]):
    """A valid body, and its fields as JSON text as they were sent."""

    body: T_co
    fields: Mapping[str, Raw]


@dataclass(frozen=True, slots=True)
class ValidationIssue:
    """One validation error: a field is missing or unknown, a value is invalid, or the body is not JSON."""

    kind: Literal["missing", "unknown", "value", "malformed"]
    #: Such as `messages.0.content`; None for the whole body.
    path: str | None
    detail: str


IssueFormatter = Callable[[ValidationIssue], InvalidRequest]


def precompile_decoders(*shapes: type[Struct]) -> None:
    """Compile msgspec's type information for `shapes` now, while the module is loaded and only one thread runs.

    Otherwise msgspec does so when it first decodes a shape; two threads that do so concurrently crash the process
    (msgspec 0.22, a segmentation fault).
    """
    for shape in shapes:
        msgspec.json.Decoder(shape)


def decode_body(
    data: bytes | Mapping[str, Any], shape: type[T], format_issue: IssueFormatter, part_types: Set[str] = frozenset()
) -> DecodedBody[T]:
    """Return `data` as `shape`, or raise what `format_issue` returns for the first issue.

    If `part_types` are given, a content part of any other type becomes an `UnknownContentPart`.
    """
    try:
        body = data if isinstance(data, bytes) else msgspec.json.encode(data)
        _reject_nul(body, format_issue)
        return DecodedBody(_decode_tolerantly(body, shape, part_types), msgspec.json.decode(body, type=dict[str, Raw]))
    except msgspec.ValidationError as error:
        raise format_issue(_to_issue(str(error))) from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise format_issue(ValidationIssue("malformed", None, str(error))) from None
    except RecursionError:
        raise format_issue(ValidationIssue("malformed", None, "JSON is nested too deeply")) from None


def check_nesting(value: Any, path: str, format_issue: IssueFormatter) -> None:
    """Reject free-form JSON (a schema, a tool's input) that is nested so deeply that later steps might fail."""
    level = [value]
    for _ in range(MAX_NESTING_DEPTH):
        level = [inner for outer in level for inner in _child_values(outer)]
        if not level:
            return
    raise format_issue(ValidationIssue("value", path, f"Nested more than {MAX_NESTING_DEPTH} levels deep"))


def parse_data_url(url: str) -> tuple[str, str] | None:
    """Return media type and base64 text of a `data:` URL; None if it is not a `data:` URL with base64."""
    head, comma, text = url.partition(",")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        return None
    return (head.removeprefix("data:").removesuffix(";base64"), text) if is_base64(text) else None


def is_base64(text: str) -> bool:
    try:
        return bool(binascii.a2b_base64(text, strict_mode=True))
    except ValueError:
        return False


def _decode_tolerantly(body: bytes, shape: type[T], part_types: Set[str]) -> T:
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        if not part_types or not _UNKNOWN_PART_ERROR.match(str(error)):
            raise
    decoded = msgspec.json.decode(body)
    _tag_unknown_parts(decoded["messages"], part_types)
    return msgspec.convert(decoded, shape)


def _tag_unknown_parts(holders: list[Any], part_types: Set[str]) -> None:
    """Replace parts of unknown types by `UnknownContentPart`, in messages and in parts that contain parts."""
    contents = [holder.get("content") for holder in holders if isinstance(holder, dict)]
    parts = [part for content in contents if isinstance(content, list) for part in content if isinstance(part, dict)]
    for part in parts:
        if isinstance(kind := part.get("type"), str) and kind not in part_types:
            original = dict(part)
            part.clear()
            part |= {"type": UNKNOWN_PART_TAG, "part": original}
    if parts:
        _tag_unknown_parts(parts, part_types)


def _to_issue(message: str) -> ValidationIssue:
    where = _ERROR_PATH.search(message)
    path = _to_dotted_path(where["path"]) if where else None
    detail = message[: where.start()] if where else message
    if missing := _MISSING.match(detail):
        return ValidationIssue("missing", _join_path(path, missing["name"]), detail)
    if unknown := _UNKNOWN.match(detail):
        return ValidationIssue("unknown", _join_path(path, unknown["name"]), detail)
    return ValidationIssue("value", path, detail)


def _to_dotted_path(path: str) -> str | None:
    # `.messages[0].content` becomes `messages.0.content`; `[...]` stands for a key that is not named.
    return path.replace("[...]", "").replace("[", ".").replace("]", "").removeprefix(".") or None


def _join_path(path: str | None, name: str) -> str:
    return f"{path}.{name}" if path else name


def _reject_nul(body: bytes, format_issue: IssueFormatter) -> None:
    # Postgres cannot store NUL in text or JSON, so it must not get past the edge. Only suspicious bodies are walked.
    if b"\\u0000" not in body:
        return
    pending: list[tuple[str | None, Any]] = [(None, msgspec.json.decode(body))]
    while pending:
        path, value = pending.pop()
        if isinstance(value, str) and "\0" in value:
            raise format_issue(ValidationIssue("value", path, "A NUL character is not allowed"))
        if isinstance(value, dict):
            if any("\0" in key for key in value):
                raise format_issue(ValidationIssue("value", path, "A NUL character is not allowed"))
            pending.extend((_join_path(path, key), inner) for key, inner in value.items())
        elif isinstance(value, list):
            pending.extend((_join_path(path, str(index)), inner) for index, inner in enumerate(value))


def _child_values(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
