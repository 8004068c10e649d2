"""Decoding a request body into its struct, and saying what is wrong with it in the provider's words."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

import msgspec

from simulator.errors import Refusal

Body = TypeVar("Body", bound=msgspec.Struct)

UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(.+?)`")
MISSING_FIELD = re.compile(r"Object missing required field `(.+?)`")
WHERE = re.compile(r" - at `(.+)`$")


class Wrong(StrEnum):
    SYNTAX = "syntax"
    UNKNOWN = "unknown"
    MISSING = "missing"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a body, where (`messages[0].role`), and why. The value itself is never repeated."""

    wrong: Wrong
    where: str
    why: str


class Peek(msgspec.Struct):
    """The two fields every request is journaled with."""

    model: Any = None
    stream: Any = None


_peek = msgspec.json.Decoder(Peek)


def peek(body: bytes) -> tuple[str, bool]:
    """The model and the stream flag, as far as the body can be read at all."""
    try:
        found = _peek.decode(body)
    except (ValueError, RecursionError):  # msgspec's errors and UnicodeDecodeError are ValueErrors
        return "", False
    return (found.model if isinstance(found.model, str) else ""), found.stream is True


def decoder_for(kind: type[Body], to_refusal: Callable[[Problem], Refusal]) -> Callable[[bytes], Body]:
    """A decoder that raises nothing but Refusal."""
    decoder = msgspec.json.Decoder(kind)

    def decode(body: bytes) -> Body:
        try:
            return decoder.decode(body)
        except msgspec.ValidationError as error:
            raise to_refusal(_problem_in(str(error))) from error
        except (ValueError, RecursionError) as error:
            raise to_refusal(Problem(Wrong.SYNTAX, "", str(error))) from error

    return decode


def openai_refusal(problem: Problem) -> Refusal:
    where = problem.where or "body"
    match problem.wrong:
        case Wrong.SYNTAX:
            return Refusal(
                400,
                "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP "
                "library correctly. The API expects a JSON payload, but what was sent was not valid JSON.)",
            )
        case Wrong.UNKNOWN:
            return Refusal(400, f"Unrecognized request argument supplied: {where}")
        case Wrong.MISSING:
            message = f"Missing required parameter: '{where}'."
            return Refusal(400, message, code="missing_required_parameter", param=where)
        case Wrong.INVALID:
            return Refusal(400, f"Invalid value for '{where}': {problem.why}.", code="invalid_value", param=where)


def anthropic_refusal(problem: Problem) -> Refusal:
    # `messages[0].role` is written `messages.0.role`.
    where = problem.where.replace("[", ".").replace("]", "") or "body"
    match problem.wrong:
        case Wrong.SYNTAX:
            return Refusal(400, "The request body is not valid JSON.")
        case Wrong.UNKNOWN:
            return Refusal(400, f"{where}: Extra inputs are not permitted")
        case Wrong.MISSING:
            return Refusal(400, f"{where}: Field required")
        case Wrong.INVALID:
            return Refusal(400, f"{where}: {problem.why}")


def _problem_in(said: str) -> Problem:
    """Read msgspec's message, e.g. "Expected `str`, got `int` - at `$.model`"."""
    found = WHERE.search(said)
    parent = found[1].removeprefix("$").removeprefix(".") if found else ""
    why = WHERE.sub("", said)
    if unknown := UNKNOWN_FIELD.search(said):
        return Problem(Wrong.UNKNOWN, _join(parent, unknown[1]), why)
    if missing := MISSING_FIELD.search(said):
        return Problem(Wrong.MISSING, _join(parent, missing[1]), why)
    return Problem(Wrong.INVALID, parent, why)


def _join(parent: str, name: str) -> str:
    return f"{parent}.{name}" if parent else name
