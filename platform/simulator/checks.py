"""What a provider checks before it reads the request closely: address, key, size, and its own load."""

from hashlib import blake2b

from simulator.asked import Asked
from simulator.calls import Call, Endpoint, Surface
from simulator.catalogue import KNOWN, model_for
from simulator.controls import Controls
from simulator.errors import NO_KEY, SPENT, Dialect, Refusal

#: Keys that begin like this are refused; every other one is good.
BAD_KEY = b"sk-bad"
SPENT_KEY = b"sk-quota"
FORBIDDEN_KEY = b"sk-forbidden"


def refuse_surface(surface: Surface, call: Call) -> Endpoint:
    """The endpoint. Refusal if there is none, or the body is more than it takes."""
    if surface.endpoint is None:
        raise _unknown_url(surface.dialect, call)
    if surface.is_dated and "api-version" not in call.query:
        raise Refusal(404, "Resource not found")
    if call.is_too_large:
        raise Refusal(413)
    return surface.endpoint


def refuse_key(dialect: Dialect, key: bytes) -> None:
    if not key:
        raise Refusal(401, NO_KEY[dialect], code=None if dialect != Dialect.OPENAI else "")
    if key.startswith(BAD_KEY):
        raise Refusal(401, _bad_key_message(key) if dialect == Dialect.OPENAI else None)
    if key.startswith(FORBIDDEN_KEY):
        raise Refusal(403)
    if key.startswith(SPENT_KEY):
        code, message = SPENT[dialect]
        raise Refusal(429, message, code=code)


def refuse_size(asked: Asked, dialect: Dialect, controls: Controls) -> None:
    """Refuse a prompt longer than the context, and more output than the model can give."""
    model = model_for(asked.model)
    context = controls.context or model.context
    if asked.input_tokens > context:
        raise _too_long(asked, dialect, context)
    if asked.model in KNOWN and (asked.max_tokens or 0) > model.max_output:
        raise _too_much(asked, dialect, model.max_output)


def is_overloaded(body_sha256: str, attempt: int, percent: int) -> bool:
    """Chance, but the same every time: a retry of the same body is another throw of the dice."""
    if not percent:
        return False
    thrown = blake2b(f"{body_sha256} {attempt}".encode(), digest_size=4).digest()
    return int.from_bytes(thrown) % 100 < percent


def _unknown_url(dialect: Dialect, call: Call) -> Refusal:
    match dialect:
        case Dialect.ANTHROPIC:
            return Refusal(404, "Not found")
        case Dialect.AZURE:
            return Refusal(404, "Resource not found")
        case _:
            message = f"Unknown request URL: {call.method} {call.path}. Please check the URL for typos."
            return Refusal(404, message, code="unknown_url")


def _bad_key_message(key: bytes) -> str:
    """Only the prefix everybody knows is shown of it, and the last two characters."""
    shown = f"{BAD_KEY.decode()}***{key[-2:].decode('latin-1')}" if len(key) > 16 else f"{BAD_KEY.decode()}***"
    return (
        f"Incorrect API key provided: {shown}. You can find your API key at "
        "https://platform.openai.com/account/api-keys."
    )


def _too_long(asked: Asked, dialect: Dialect, context: int) -> Refusal:
    if dialect == Dialect.ANTHROPIC:
        return Refusal(400, f"prompt is too long: {asked.input_tokens} tokens > {context} maximum")
    return Refusal(
        400,
        f"This model's maximum context length is {context} tokens. However, your messages resulted in "
        f"{asked.input_tokens} tokens. Please reduce the length of the messages.",
        code="context_length_exceeded",
        param="messages",
    )


def _too_much(asked: Asked, dialect: Dialect, most: int) -> Refusal:
    wanted = asked.max_tokens
    if dialect == Dialect.ANTHROPIC:
        message = (
            f"max_tokens: {wanted} > {most}, which is the maximum allowed number of output tokens for {asked.model}"
        )
        return Refusal(400, message)
    return Refusal(
        400,
        f"max_tokens is too large: {wanted}. This model supports at most {most} completion tokens, "
        f"whereas you provided {wanted}.",
        code="invalid_value",
        param="max_tokens",
    )
