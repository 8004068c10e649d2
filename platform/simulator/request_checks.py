"""Checks that a provider makes before it parses the request: path, key, size, and its own load."""

from hashlib import blake2b

from simulator.calls import ApiSurface, Call, Endpoint
from simulator.catalogue import KNOWN_MODELS, model_for
from simulator.controls import Controls
from simulator.errors import MISSING_KEY_MESSAGES, QUOTA_ERRORS, ApiError, Dialect
from simulator.neutral_request import NeutralRequest

#: Keys with these prefixes are rejected; all others are accepted.
INVALID_KEY_PREFIX = b"sk-bad"
QUOTA_KEY_PREFIX = b"sk-quota"
FORBIDDEN_KEY_PREFIX = b"sk-forbidden"


def require_endpoint(surface: ApiSurface, call: Call) -> Endpoint:
    """Return the endpoint. Raises `ApiError` if there is none, or the body is too large."""
    if surface.endpoint is None:
        raise _unknown_url(surface.dialect, call)
    if surface.is_dated and "api-version" not in call.query:
        raise ApiError(404, "Resource not found")
    if call.is_too_large:
        raise ApiError(413)
    return surface.endpoint


def check_api_key(dialect: Dialect, key: bytes) -> None:
    if not key:
        raise ApiError(401, MISSING_KEY_MESSAGES[dialect], code=None if dialect != Dialect.OPENAI else "")
    if key.startswith(INVALID_KEY_PREFIX):
        raise ApiError(401, _invalid_key_message(key) if dialect == Dialect.OPENAI else None)
    if key.startswith(FORBIDDEN_KEY_PREFIX):
        raise ApiError(403)
    if key.startswith(QUOTA_KEY_PREFIX):
        code, message = QUOTA_ERRORS[dialect]
        raise ApiError(429, message, code=code)


def check_token_limits(request: NeutralRequest, dialect: Dialect, controls: Controls) -> None:
    """Reject a prompt that exceeds the context window, and a limit on output tokens that exceeds the model's."""
    model = model_for(request.model)
    context = controls.context or model.context
    if request.input_tokens > context:
        raise _prompt_too_long(request, dialect, context)
    if request.model in KNOWN_MODELS and (request.max_tokens or 0) > model.max_output:
        raise _output_too_long(request, dialect, model.max_output)


def is_overloaded(body_sha256: str, attempt: int, percent: int) -> bool:
    """Decide deterministically from body and attempt, so that a retry of the same body may get another result."""
    if not percent:
        return False
    thrown = blake2b(f"{body_sha256} {attempt}".encode(), digest_size=4).digest()
    return int.from_bytes(thrown) % 100 < percent


def _unknown_url(dialect: Dialect, call: Call) -> ApiError:
    match dialect:
        case Dialect.ANTHROPIC:
            return ApiError(404, "Not found")
        case Dialect.AZURE:
            return ApiError(404, "Resource not found")
        case _:
            message = f"Unknown request URL: {call.method} {call.path}. Please check the URL for typos."
            return ApiError(404, message, code="unknown_url")


def _invalid_key_message(key: bytes) -> str:
    """Return the message for a wrong key. It shows only the well-known prefix and the last two characters."""
    shown = (
        f"{INVALID_KEY_PREFIX.decode()}***{key[-2:].decode('latin-1')}"
        if len(key) > 16
        else f"{INVALID_KEY_PREFIX.decode()}***"
    )
    return (
        f"Incorrect API key provided: {shown}. You can find your API key at "
        "https://platform.openai.com/account/api-keys."
    )


def _prompt_too_long(request: NeutralRequest, dialect: Dialect, context: int) -> ApiError:
    if dialect == Dialect.ANTHROPIC:
        return ApiError(400, f"prompt is too long: {request.input_tokens} tokens > {context} maximum")
    return ApiError(
        400,
        f"This model's maximum context length is {context} tokens. However, your messages resulted in "
        f"{request.input_tokens} tokens. Please reduce the length of the messages.",
        code="context_length_exceeded",
        param="messages",
    )


def _output_too_long(request: NeutralRequest, dialect: Dialect, most: int) -> ApiError:
    wanted = request.max_tokens
    if dialect == Dialect.ANTHROPIC:
        message = (
            f"max_tokens: {wanted} > {most}, which is the maximum allowed number of output tokens for {request.model}"
        )
        return ApiError(400, message)
    return ApiError(
        400,
        f"max_tokens is too large: {wanted}. This model supports at most {most} completion tokens, "
        f"whereas you provided {wanted}.",
        code="invalid_value",
        param="max_tokens",
    )
