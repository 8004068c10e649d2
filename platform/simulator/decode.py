"""Decodes a request body into its struct, and reports validation errors in the provider's wording."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

import msgspec

from simulator.errors import ApiError

Body = TypeVar("Body", bound=msgspec.Struct)

UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(.+?)`")
MISSING_FIELD = re.compile(r"Object missing required field `(.+?)`")
WHERE = re.compile(r" - at `(.+)`$")


class ProblemKind(StrEnum):
    SYNTAX = "syntax"
    UNKNOWN = "unknown"
    MISSING = "missing"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class DecodeProblem:
    """The kind of problem, its path (`messages[0].role`) and its reason. The value itself is never repeated."""

    kind: ProblemKind
    path: str
    reason: str


class PeekedFields(msgspec.Struct):
    """The two fields every request is journaled with."""

    model: Any = None
    stream: Any = None


_peek = msgspec.json.Decoder(PeekedFields)


def peek_model_and_stream(body: bytes) -> tuple[str, bool]:
    """The model and the stream flag, as far as the body can be read at all."""
    try:
        found = _peek.decode(body)
    except (ValueError, RecursionError):  # msgspec's errors and UnicodeDecodeError are ValueErrors
        return "", False
    return (found.model if isinstance(found.model, str) else ""), found.stream is True


def decoder_for(kind: type[Body], to_api_error: Callable[[DecodeProblem], ApiError]) -> Callable[[bytes], Body]:
    """A decoder that raises only `ApiError`."""
    decoder = msgspec.json.Decoder(kind)

    def decode(body: bytes) -> Body:
        try:
            return decoder.decode(body)
        except msgspec.ValidationError as error:
            raise to_api_error(_problem_in(str(error))) from error
        except (ValueError, RecursionError) as error:
            raise to_api_error(DecodeProblem(ProblemKind.SYNTAX, "", str(error))) from error

    return decode


def to_openai_error(problem: DecodeProblem) -> ApiError:
    path = problem.path or "body"
    match problem.kind:
        case ProblemKind.SYNTAX:
            return ApiError(
                400,
                "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP "
                "library correctly. The API expects a JSON payload, but what was sent was not valid JSON.)",
            )
        case ProblemKind.UNKNOWN:
            return ApiError(400, f"Unrecognized request argument supplied: {path}")
        case ProblemKind.MISSING:
            message = f"Missing required parameter: '{path}'."
            return ApiError(400, message, code="missing_required_parameter", param=path)
        case ProblemKind.INVALID:
            return ApiError(400, f"Invalid value for '{path}': {problem.reason}.", code="invalid_value", param=path)


def to_anthropic_error(problem: DecodeProblem) -> ApiError:
    # `messages[0].role` is written `messages.0.role`.
    path = problem.path.replace("[", ".").replace("]", "") or "body"
    match problem.kind:
        case ProblemKind.SYNTAX:
            return ApiError(400, "The request body is not valid JSON.")
        case ProblemKind.UNKNOWN:
            return ApiError(400, f"{path}: Extra inputs are not permitted")
        case ProblemKind.MISSING:
            return ApiError(400, f"{path}: Field required")
        case ProblemKind.INVALID:
            return ApiError(400, f"{path}: {problem.reason}")


def _problem_in(said: str) -> DecodeProblem:
    """Read msgspec's message, e.g. "Expected `str`, got `int` - at `$.model`"."""
    found = WHERE.search(said)
    parent = found[1].removeprefix("$").removeprefix(".") if found else ""
    reason = WHERE.sub("", said)
    if unknown := UNKNOWN_FIELD.search(said):
        return DecodeProblem(ProblemKind.UNKNOWN, _join(parent, unknown[1]), reason)
    if missing := MISSING_FIELD.search(said):
        return DecodeProblem(ProblemKind.MISSING, _join(parent, missing[1]), reason)
    return DecodeProblem(ProblemKind.INVALID, parent, reason)


def _join(parent: str, name: str) -> str:
    return f"{parent}.{name}" if parent else name
