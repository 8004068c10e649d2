"""An error as each dialect writes it, in a body or in a stream (wire formats, 1.2 and 10)."""

from dataclasses import dataclass

import msgspec


@dataclass(frozen=True, slots=True)
class ErrorPayload:
    """One error for the caller. `type` and `code` are OpenAI's words; Anthropic's follows from the status."""

    status: int
    type: str
    code: str | None
    message: str
    param: str | None = None


#: Anthropic's words for a status. In a stream, whose status is 200, they are all that says what went wrong.
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


def encode_openai_error(fault: ErrorPayload) -> bytes:
    """Return the body, or the data of a frame, that says so in OpenAI's dialect."""
    return msgspec.json.encode(
        {"error": {"message": fault.message, "type": fault.type, "param": fault.param, "code": fault.code}}
    )


def encode_anthropic_error(fault: ErrorPayload, request_id: str | None = None) -> bytes:
    """Return the body, or the data of a frame, that says so in Anthropic's dialect."""
    details = {"details": {"error_code": fault.code}} if fault.code else {}
    error = {"type": anthropic_error_type(fault.status), "message": fault.message, **details}
    return msgspec.json.encode({"type": "error", "error": error, "request_id": request_id})


def anthropic_error_type(status: int) -> str:
    return _ANTHROPIC_TYPES.get(status) or ("api_error" if status >= 500 else "invalid_request_error")
