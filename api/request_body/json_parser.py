"""Bodies: one JSON object in UTF-8, and nothing that later steps would stumble over."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import IO, Any, NoReturn, TypeAlias

import msgspec
from rest_framework.exceptions import UnsupportedMediaType
from rest_framework.parsers import BaseParser

from api.errors import MalformedBody
from core.strict_json import AmbiguousJson, to_64_bit_int, to_unique_dict

#: Deeper than any request we know, and far from where Python's own recursion ends.
MAX_DEPTH = 100
#: Half of a character in UTF-16: no text in UTF-8 can hold it.
SURROGATE = re.compile("[\ud800-\udfff]")

#: The way to a value, from the inside: its key or index, and the way to what holds it.
JSONPath: TypeAlias = "tuple[JSONPath, str] | None"


class StrictJSONParser(BaseParser):
    """DRF's parser for every body of the API."""

    media_type = "application/json"

    def parse(
        self, stream: IO[bytes], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        if not re.fullmatch(r'(?i)application/json\s*(;\s*charset="?utf-8"?\s*)?', (media_type or "").strip()):
            raise UnsupportedMediaType(media_type or "")
        return self.read(stream.read())

    def read(self, data: bytes) -> dict[str, Any]:
        return parse_object(data)


class BatchJSONParser(StrictJSONParser):
    """The parser for a batch, which may bring many thousands of requests: these are only told apart here."""

    def read(self, data: bytes) -> dict[str, Any]:
        return parse_batch(data)


def parse_object(data: bytes) -> dict[str, Any]:
    """Return the object that the bytes spell. Raises `MalformedBody`."""
    try:
        found = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=to_unique_dict,
            parse_int=to_64_bit_int,
            parse_float=_to_float,
            parse_constant=_refuse_constant,
        )
    except AmbiguousJson as error:
        raise MalformedBody(str(error), None if error.key is None else _printable(error.key)) from error
    except UnicodeDecodeError as error:
        raise MalformedBody("The body is not UTF-8.") from error
    except json.JSONDecodeError as error:
        raise MalformedBody(
            f"The body is not JSON: {error.msg} at line {error.lineno} column {error.colno}."
        ) from error
    except RecursionError as error:
        raise MalformedBody(f"The body is nested deeper than {MAX_DEPTH} levels.") from error
    if not isinstance(found, dict):
        raise MalformedBody("The body must be a JSON object.")
    _check_values(found)
    return found


def parse_batch(data: bytes) -> dict[str, Any]:
    """Return the object that the bytes spell, with the items of `requests` as they stand. Raises `MalformedBody`."""
    try:
        found = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        listed = bytes(found.pop("requests"))
        requests = msgspec.json.decode(listed, type=list[msgspec.Raw])
    except (KeyError, msgspec.DecodeError, UnicodeError, RecursionError):
        # There are none, or something is wrong: it is told in the words of the other bodies.
        return parse_object(data)
    # That a key stands twice shows only in the text. Where that is cut does not matter, as long as the list is gone.
    parse_object(data.replace(listed, b"null", 1))
    return {**parse_object(msgspec.json.encode(found)), "requests": requests}


def _to_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise MalformedBody("The body holds a number that is too large.")
    return number


def _refuse_constant(text: str) -> NoReturn:
    raise MalformedBody(f"The body holds {text}, which is not JSON.")


def _check_values(found: dict[str, Any]) -> None:
    """Look at every key and text, without recursion: the depth is what is checked."""
    todo: list[tuple[Any, JSONPath, int]] = [(found, None, 1)]
    while todo:
        holder, path, depth = todo.pop()
        if depth > MAX_DEPTH:
            raise MalformedBody(f"The body is nested deeper than {MAX_DEPTH} levels.", _format_path(path))
        for key, inner in _items(holder):
            if isinstance(inner, dict | list):
                todo.append((inner, (path, str(key)), depth + 1))
            elif isinstance(inner, str):
                _check_text(inner, (path, str(key)))
            if isinstance(key, str):
                _check_text(key, (path, key))


def _items(holder: dict[str, Any] | list[Any]) -> Iterable[tuple[str | int, Any]]:
    return holder.items() if isinstance(holder, dict) else enumerate(holder)


def _check_text(text: str, path: JSONPath) -> None:
    if "\0" in text:
        raise MalformedBody("The body holds a NUL character (\\u0000), which cannot be stored.", _format_path(path))
    if SURROGATE.search(text):
        raise MalformedBody("The body contains an unpaired surrogate (a lone \\ud800 to \\udfff).", _format_path(path))


def _format_path(path: JSONPath) -> str:
    """Write a way as `body.messages.0.content`."""
    steps: list[str] = []
    while path is not None:
        path, step = path
        steps.append(_printable(step))
    return ".".join(reversed(steps))[:200]


def _printable(key: str) -> str:
    return key[:60].encode("ascii", "backslashreplace").decode().replace("\0", "\\u0000")
