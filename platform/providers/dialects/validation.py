"""From a caller's body to a typed struct. A mistake is described neutrally; each dialect has its own words for it."""

import binascii
import re
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import msgspec
from msgspec import Raw, Struct

from providers.invalid_request import InvalidRequest

#: Deep enough for any real schema, and far from the limits of the encoders that come later.
MAX_NESTING_DEPTH = 64

_ERROR_PATH = re.compile(r" - at `\$(?P<path>[^`]*)`$")
_MISSING = re.compile(r"^Object missing required field `(?P<name>[^`]*)`$")
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<name>[^`]*)`$")

#: A content part, of a message or inside a tool's result, whose type no struct has.
_UNKNOWN_PART_ERROR = re.compile(
    r"^Invalid value .* - at `\$\.messages\[\d+\]\.content\[\d+\](\.content\[\d+\])?\.type`$"
)
UNKNOWN_PART_TAG = "*"

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class UnknownContentPart(Struct, tag_field="type", tag=UNKNOWN_PART_TAG):
    """A content part of a type that we do not know."""

    part: Any = None


@dataclass(frozen=True, slots=True)
class DecodedBody(Generic[T_co]):
    """A body that was understood, and its fields as they were written."""

    body: T_co
    fields: Mapping[str, Raw]


@dataclass(frozen=True, slots=True)
class ValidationIssue:
    """One thing that is wrong: a field is missing or unknown, a value is wrong, or the body is no JSON at all."""

    kind: Literal["missing", "unknown", "value", "malformed"]
    #: Such as `messages.0.content`; None for the whole body.
    path: str | None
    detail: str


IssueFormatter = Callable[[ValidationIssue], InvalidRequest]


def precompile_decoders(*shapes: type[Struct]) -> None:
    """Have msgspec look at shapes now, where a module is loaded and one thread is all there is.

    It looks when it first decodes one; threads that do so at the same time end the process (msgspec 0.22, a
    segmentation fault).
    """
    for shape in shapes:
        msgspec.json.Decoder(shape)


def decode_body(
    data: bytes | Mapping[str, Any], shape: type[T], words: IssueFormatter, part_types: Set[str] = frozenset()
) -> DecodedBody[T]:
    """Return `data` as `shape`, or raise what `words` makes of its first mistake.

    Where `part_types` are given, a content part of another type is a `UnknownContentPart`.
    """
    try:
        body = data if isinstance(data, bytes) else msgspec.json.encode(data)
        _reject_nul(body, words)
        return DecodedBody(_decode_tolerantly(body, shape, part_types), msgspec.json.decode(body, type=dict[str, Raw]))
    except msgspec.ValidationError as error:
        raise words(_to_issue(str(error))) from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise words(ValidationIssue("malformed", None, str(error))) from None
    except RecursionError:
        raise words(ValidationIssue("malformed", None, "JSON is nested too deeply")) from None


def check_nesting(value: Any, path: str, words: IssueFormatter) -> None:
    """Refuse free-form JSON (a schema, a tool's input) that is nested so deeply that later steps might fail."""
    level = [value]
    for _ in range(MAX_NESTING_DEPTH):
        level = [inner for outer in level for inner in _child_values(outer)]
        if not level:
            return
    raise words(ValidationIssue("value", path, f"Nested more than {MAX_NESTING_DEPTH} levels deep"))


def parse_data_url(url: str) -> tuple[str, str] | None:
    """Return media type and base64 text of a `data:` URL; None if it is not one with base64 in it."""
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
    found = msgspec.json.decode(body)
    _tag_unknown_parts(found["messages"], part_types)
    return msgspec.convert(found, shape)


def _tag_unknown_parts(holders: list[Any], part_types: Set[str]) -> None:
    """Make strangers of the unknown parts in messages, and in the parts that hold others."""
    contents = [holder.get("content") for holder in holders if isinstance(holder, dict)]
    parts = [part for content in contents if isinstance(content, list) for part in content if isinstance(part, dict)]
    for part in parts:
        if isinstance(kind := part.get("type"), str) and kind not in part_types:
            whole = dict(part)
            part.clear()
            part |= {"type": UNKNOWN_PART_TAG, "part": whole}
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


def _reject_nul(body: bytes, words: IssueFormatter) -> None:
    # Postgres stores no NUL in text or JSON, so it must not get past the edge. The walk is for suspects only.
    if b"\\u0000" not in body:
        return
    suspects: list[tuple[str | None, Any]] = [(None, msgspec.json.decode(body))]
    while suspects:
        path, value = suspects.pop()
        if isinstance(value, str) and "\0" in value:
            raise words(ValidationIssue("value", path, "A NUL character is not allowed"))
        if isinstance(value, dict):
            if any("\0" in key for key in value):
                raise words(ValidationIssue("value", path, "A NUL character is not allowed"))
            suspects.extend((_join_path(path, key), inner) for key, inner in value.items())
        elif isinstance(value, list):
            suspects.extend((_join_path(path, str(index)), inner) for index, inner in enumerate(value))


def _child_values(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
