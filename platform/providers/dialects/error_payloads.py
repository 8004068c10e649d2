"""Errors in each dialect, for a body or a stream (docs/reference/wire-formats.md, 1.2 and 10)."""

from dataclasses import dataclass

import msgspec


@dataclass(frozen=True, slots=True)
class ErrorPayload:
    """One error for the caller. `type` and `code` are OpenAI's; Anthropic's type follows from the status."""

    status: int
    type: str
    code: str | None
    message: str
    param: str | None = None


#: Anthropic's error type by status. In a stream, whose status is 200, only the type tells what went wrong.
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def encode_openai_error(error: ErrorPayload) -> bytes:
    """Return the error as the body, or the data of a frame, of OpenAI's dialect."""
    return msgspec.json.encode(
        {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}
    )


def encode_anthropic_error(error: ErrorPayload, request_id: str | None = None) -> bytes:
    """Return the error as the body, or the data of a frame, of Anthropic's dialect."""
    details = {"details": {"error_code": error.code}} if error.code else {}
    body = {"type": anthropic_error_type(error.status), "message": error.message, **details}
    return msgspec.json.encode({"type": "error", "error": body, "request_id": request_id})


def anthropic_error_type(status: int) -> str:
    return _ANTHROPIC_TYPES.get(status) or ("api_error" if status >= 500 else "invalid_request_error")
