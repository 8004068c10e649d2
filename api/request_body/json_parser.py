"""Strict parser of JSON bodies: one object in UTF-8.

It guarantees that later steps can store and re-encode the object: no duplicate keys, no NaN or Infinity, no integers of
more than 64 bits, no NUL characters or lone surrogates, and a bounded depth.
"""

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

#: More than any known request needs, and far below Python's recursion limit.
MAX_DEPTH = 100
#: Surrogates, which encode half of a character in UTF-16. UTF-8 cannot represent them.
SURROGATE = re.compile("[\ud800-\udfff]")

#: The path of a value, from the inside out: the path of its container, and its key or index there.
JSONPath: TypeAlias = "tuple[JSONPath, str] | None"


class StrictJSONParser(BaseParser):
    """The DRF parser of all JSON bodies."""

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
    """The parser of batches. It only splits their many requests; `jobs.batches.requests` parses each of them."""

    def read(self, data: bytes) -> dict[str, Any]:
        return parse_batch(data)


def parse_object(data: bytes) -> dict[str, Any]:
    """Return the decoded object. Raises `MalformedBody`."""
    try:
        parsed = json.loads(
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
    if not isinstance(parsed, dict):
        raise MalformedBody("The body must be a JSON object.")
    _check_values(parsed)
    return parsed


def parse_batch(data: bytes) -> dict[str, Any]:
    """Return the decoded object, with the items of `requests` as raw JSON. Raises `MalformedBody`."""
    try:
        fields = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        listed = bytes(fields.pop("requests"))
        requests = msgspec.json.decode(listed, type=list[msgspec.Raw])
    except (KeyError, msgspec.DecodeError, UnicodeError, RecursionError):
        # There are no requests, or the body is malformed: then report it like any other body.
        return parse_object(data)
    # Duplicate keys are visible only in the original text, so that is checked, with one occurrence of the list cut out.
    parse_object(data.replace(listed, b"null", 1))
    return {**parse_object(msgspec.json.encode(fields)), "requests": requests}


def _to_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise MalformedBody("The body contains a number that is too large for a 64-bit float.")
    return number


def _refuse_constant(text: str) -> NoReturn:
    raise MalformedBody(f"The body contains {text}, which is not valid JSON.")


def _check_values(body: dict[str, Any]) -> None:
    """Check every key and string, and the depth. Iterative, because the depth is not bounded before."""
    todo: list[tuple[Any, JSONPath, int]] = [(body, None, 1)]
    while todo:
        container, path, depth = todo.pop()
        if depth > MAX_DEPTH:
            raise MalformedBody(f"The body is nested deeper than {MAX_DEPTH} levels.", _format_path(path))
        for key, inner in _items(container):
            if isinstance(inner, dict | list):
                todo.append((inner, (path, str(key)), depth + 1))
            elif isinstance(inner, str):
                _check_text(inner, (path, str(key)))
            if isinstance(key, str):
                _check_text(key, (path, key))


def _items(container: dict[str, Any] | list[Any]) -> Iterable[tuple[str | int, Any]]:
    return container.items() if isinstance(container, dict) else enumerate(container)


def _check_text(text: str, path: JSONPath) -> None:
    if "\0" in text:
        raise MalformedBody("The body contains a NUL character (\\u0000), which cannot be stored.", _format_path(path))
    if SURROGATE.search(text):
        raise MalformedBody("The body contains an unpaired surrogate (a lone \\ud800 to \\udfff).", _format_path(path))


def _format_path(path: JSONPath) -> str:
    """Return a path as `body.messages.0.content`."""
    steps: list[str] = []
    while path is not None:
        path, step = path
        steps.append(_printable(step))
    return ".".join(reversed(steps))[:200]


def _printable(key: str) -> str:
    return key[:60].encode("ascii", "backslashreplace").decode().replace("\0", "\\u0000")
