"""What the simulated provider refuses, and how each dialect says so.

* Refusal         one request is answered with an error status and the dialect's error body
  + RateLimited   because its limits are used up; carries how they stand
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from simulator.limits import Standing


class Dialect(StrEnum):
    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    AZURE = "azure"


class Refusal(Exception):
    """The request is answered with an error.

    What is None is filled in by the dialect's table for the status; an empty `code` means that there is none.
    """

    def __init__(
        self,
        status: int,
        message: str | None = None,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.retry_after = retry_after


class RateLimited(Refusal):
    """The request has to wait for its rate limits."""

    def __init__(self, standing: Standing, model: str) -> None:
        level = standing.requests if standing.lacking == "requests" else standing.tokens
        unit = "requests per min (RPM)" if standing.lacking == "requests" else "tokens per min (TPM)"
        super().__init__(
            429,
            f"Rate limit reached for {model} in organization org-simulator on {unit}: Limit {level.limit}, "
            f"Used {level.limit - level.remaining}. Please try again in {standing.wait:.3g}s.",
            retry_after=standing.wait,
        )
        self.standing = standing


@dataclass(frozen=True, slots=True)
class Standard:
    """What a provider says for a status when there is nothing more particular to say."""

    type: str
    code: str | None
    message: str


OPENAI: dict[int, Standard] = {
    400: Standard("invalid_request_error", None, "Invalid request."),
    401: Standard(
        "invalid_request_error",
        "invalid_api_key",
        "Incorrect API key provided. You can find your API key at https://platform.openai.com/account/api-keys.",
    ),
    403: Standard(
        "invalid_request_error",
        "unsupported_country_region_territory",
        "Country, region, or territory not supported.",
    ),
    404: Standard(
        "invalid_request_error", "model_not_found", "The model does not exist or you do not have access to it."
    ),
    408: Standard("server_error", "request_timeout", "Request timed out."),
    409: Standard("conflict", None, "The resource is locked by another request."),
    413: Standard("invalid_request_error", None, "Request body too large."),
    422: Standard("invalid_request_error", None, "The request could not be processed."),
    429: Standard(
        "requests",
        "rate_limit_exceeded",
        "Rate limit reached in organization org-simulator on requests per min (RPM). Please try again later.",
    ),
    500: Standard("server_error", None, "The server had an error while processing your request. Sorry about that!"),
    502: Standard("server_error", None, "Bad gateway."),
    503: Standard(
        "service_unavailable_error",
        "server_is_overloaded",
        "The server is currently overloaded. Please try again later.",
    ),
    504: Standard("server_error", None, "The upstream server timed out."),
}

ANTHROPIC: dict[int, Standard] = {
    400: Standard("invalid_request_error", None, "Invalid request."),
    401: Standard("authentication_error", None, "invalid x-api-key"),
    402: Standard("billing_error", None, "There is an issue with your billing or payment information."),
    403: Standard("permission_error", None, "Your API key does not have permission to use the specified resource."),
    404: Standard("not_found_error", None, "The requested resource could not be found."),
    408: Standard("timeout_error", None, "Request timed out."),
    409: Standard("conflict_error", None, "The resource is in conflict with another request."),
    413: Standard("request_too_large", None, "Request exceeds the maximum size."),
    422: Standard("invalid_request_error", None, "The request could not be processed."),
    429: Standard(
        "rate_limit_error", None, "This request would exceed your organization's rate limit. Please try again later."
    ),
    500: Standard("api_error", None, "Internal server error"),
    503: Standard("api_error", None, "Service unavailable"),
    504: Standard("timeout_error", None, "Request timed out"),
    529: Standard("overloaded_error", None, "Overloaded"),
}

#: Azure's own gateway answers these; everything else comes from the model behind it and looks like OpenAI's.
AZURE: dict[int, Standard] = {
    401: Standard(
        "",
        "401",
        "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an "
        "active subscription and use a correct regional API endpoint for your resource.",
    ),
    403: Standard("", "403", "Public access is disabled. Please configure private endpoint."),
    404: Standard(
        "",
        "DeploymentNotFound",
        "The API deployment for this resource does not exist. If you created the deployment within the last 5 minutes, "
        "please wait a moment and try again.",
    ),
    429: Standard("", "429", "Requests have exceeded call rate limit of your current OpenAI S0 pricing tier."),
}

OPENAI_TYPES: dict[str, str] = {
    "slow_down": "rate_limit_error",
    **dict.fromkeys(
        (
            "insufficient_quota",
            "credit_balance_exhausted",
            "organization_spend_limit_exceeded",
            "project_spend_limit_exceeded",
            "organization_usage_limit_exceeded",
        ),
        "insufficient_quota",
    ),
}

SPEND_CODES = frozenset(
    [code for code, kind in OPENAI_TYPES.items() if kind == "insufficient_quota"]
    + ["enforced_spend_limit_reached", "contract_spend_limit_reached"]
)

CONTENT_FILTER = {
    "code": "ResponsibleAIPolicyViolation",
    "content_filter_result": {
        "hate": {"filtered": False, "severity": "safe"},
        "self_harm": {"filtered": False, "severity": "safe"},
        "sexual": {"filtered": False, "severity": "safe"},
        "violence": {"filtered": True, "severity": "medium"},
        "jailbreak": {"filtered": False, "detected": False},
    },
}

NO_KEY: dict[Dialect, str] = {
    Dialect.OPENAI: (
        "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth "
        "(i.e. Authorization: Bearer YOUR_KEY)."
    ),
    Dialect.ANTHROPIC: "x-api-key header is required",
    Dialect.AZURE: AZURE[401].message,
}

SPENT: dict[Dialect, tuple[str, str]] = {
    Dialect.OPENAI: (
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details.",
    ),
    Dialect.ANTHROPIC: (
        "enforced_spend_limit_reached",
        "Your organization has reached its spend limit.",
    ),
    Dialect.AZURE: (
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details.",
    ),
}


def error_body(dialect: Dialect, refusal: Refusal, request_id: str) -> bytes:
    """The error as the body of a response."""
    return msgspec.json.encode(_error(dialect, refusal, request_id))


def error_frame(dialect: Dialect, refusal: Refusal, request_id: str) -> bytes:
    """The error as an event inside a stream."""
    name = b"event: error\n" if dialect == Dialect.ANTHROPIC else b""
    return name + b"data: " + error_body(dialect, refusal, request_id) + b"\n\n"


def retry_after_of(refusal: Refusal) -> float | None:
    """Seconds for Retry-After: providers send it when a rate is exceeded, never when the money is."""
    if refusal.retry_after is not None:
        return refusal.retry_after
    return 1.0 if refusal.status == 429 and refusal.code not in SPEND_CODES else None


def overloaded(dialect: Dialect) -> Refusal:
    return Refusal(529 if dialect == Dialect.ANTHROPIC else 503)


def _error(dialect: Dialect, refusal: Refusal, request_id: str) -> dict[str, Any]:
    match dialect:
        case Dialect.ANTHROPIC:
            return {"type": "error", "error": _anthropic_error(refusal), "request_id": request_id}
        case Dialect.AZURE if refusal.code == "content_filter":
            return {"error": _content_filter_error(refusal)}
        case Dialect.AZURE if refusal.status in AZURE and refusal.code is None:
            standard = AZURE[refusal.status]
            return {"error": {"code": standard.code, "message": refusal.message or standard.message}}
        case _:
            return {"error": _openai_error(refusal)}


def _openai_error(refusal: Refusal) -> dict[str, Any]:
    standard = OPENAI.get(refusal.status) or OPENAI[500 if refusal.status >= 500 else 400]
    code = standard.code if refusal.code is None else refusal.code or None
    return {
        "message": refusal.message or standard.message,
        "type": OPENAI_TYPES.get(code or "", _lacking(refusal) or standard.type),
        "param": refusal.param,
        "code": code,
    }


def _lacking(refusal: Refusal) -> str | None:
    return refusal.standing.lacking if isinstance(refusal, RateLimited) else None


def _anthropic_error(refusal: Refusal) -> dict[str, Any]:
    standard = ANTHROPIC.get(refusal.status) or ANTHROPIC[500 if refusal.status >= 500 else 400]
    error: dict[str, Any] = {"type": standard.type, "message": refusal.message or standard.message}
    if refusal.code in {entry.type for entry in ANTHROPIC.values()}:
        error["type"] = refusal.code
    elif refusal.code is not None:
        error["details"] = {"error_code": refusal.code}
    return error


def _content_filter_error(refusal: Refusal) -> dict[str, Any]:
    message = (
        "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. "
        "Please modify your prompt and retry."
    )
    return {
        "code": "content_filter",
        "status": 400,
        "message": refusal.message or message,
        "param": "prompt",
        "type": None,
        "innererror": CONTENT_FILTER,
    }
