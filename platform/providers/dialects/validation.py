"""From a caller's body to a typed struct. A mistake is described neutrally; each dialect has its own words for it."""

import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import msgspec

from providers.dialects.errors import InvalidRequest

#: Deep enough for any real schema, and far from the limits of the encoders that come later.
NESTING = 64

_WHERE = re.compile(r" - at `\$(?P<path>[^`]*)`$")
_MISSING = re.compile(r"^Object missing required field `(?P<name>[^`]*)`$")
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<name>[^`]*)`$")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong: a field is missing or unknown, a value is wrong, or the body is no JSON at all."""

    kind: Literal["missing", "unknown", "value", "malformed"]
    #: Such as `messages.0.content`; None for the whole body.
    path: str | None
    detail: str


Words = Callable[[Mistake], InvalidRequest]


def decode(data: bytes | Mapping[str, Any], shape: type[T], words: Words) -> T:
    """Return `data` as `shape`, or raise what `words` makes of its first mistake."""
    try:
        body = data if isinstance(data, bytes) else msgspec.json.encode(data)
        _refuse_nul(body, words)
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        raise words(_mistake(str(error))) from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise words(Mistake("malformed", None, str(error))) from None
    except RecursionError:
        raise words(Mistake("malformed", None, "JSON is nested too deeply")) from None


def check_nesting(value: Any, path: str, words: Words) -> None:
    """Refuse free-form JSON (a schema, a tool's input) that is nested so deeply that later steps might fail."""
    level = [value]
    for _ in range(NESTING):
        level = [inner for outer in level for inner in _children(outer)]
        if not level:
            return
    raise words(Mistake("value", path, f"Nested more than {NESTING} levels deep"))


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


def _mistake(message: str) -> Mistake:
    where = _WHERE.search(message)
    path = _dotted(where["path"]) if where else None
    detail = message[: where.start()] if where else message
    if missing := _MISSING.match(detail):
        return Mistake("missing", _joined(path, missing["name"]), detail)
    if unknown := _UNKNOWN.match(detail):
        return Mistake("unknown", _joined(path, unknown["name"]), detail)
    return Mistake("value", path, detail)


def _dotted(path: str) -> str | None:
    # `.messages[0].content` becomes `messages.0.content`; `[...]` stands for a key that is not named.
    return path.replace("[...]", "").replace("[", ".").replace("]", "").removeprefix(".") or None


def _joined(path: str | None, name: str) -> str:
    return f"{path}.{name}" if path else name


def _refuse_nul(body: bytes, words: Words) -> None:
    # Postgres stores no NUL in text or JSON, so it must not get past the edge. The walk is for suspects only.
    if b"\\u0000" not in body:
        return
    suspects: list[tuple[str | None, Any]] = [(None, msgspec.json.decode(body))]
    while suspects:
        path, value = suspects.pop()
        if isinstance(value, str) and "\0" in value:
            raise words(Mistake("value", path, "A NUL character is not allowed"))
        if isinstance(value, dict):
            if any("\0" in key for key in value):
                raise words(Mistake("value", path, "A NUL character is not allowed"))
            suspects.extend((_joined(path, key), inner) for key, inner in value.items())
        elif isinstance(value, list):
            suspects.extend((_joined(path, str(index)), inner) for index, inner in enumerate(value))


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
