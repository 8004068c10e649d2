"""The errors of the simulated provider, and how each dialect encodes them.

* ApiError        one request is answered with an error status and the dialect's error body
  + RateLimited   the rate limits are exhausted; carries their status
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from simulator.rate_limits import RateLimitStatus


class Dialect(StrEnum):
    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    AZURE = "azure"


class ApiError(Exception):
    """The request is answered with an error.

    A field that is None gets the dialect's default for the status; an empty `code` means that there is none.
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


class RateLimited(ApiError):
    """A rate limit is exhausted."""

    def __init__(self, rate_limit_status: RateLimitStatus, model: str) -> None:
        level = rate_limit_status.requests if rate_limit_status.exhausted == "requests" else rate_limit_status.tokens
        unit = "requests per min (RPM)" if rate_limit_status.exhausted == "requests" else "tokens per min (TPM)"
        super().__init__(
            429,
            f"Rate limit reached for {model} in organization org-simulator on {unit}: Limit {level.limit}, "
            f"Used {level.limit - level.remaining}. Please try again in {rate_limit_status.wait_seconds:.3g}s.",
            retry_after=rate_limit_status.wait_seconds,
        )
        self.rate_limit_status = rate_limit_status


@dataclass(frozen=True, slots=True)
class DefaultError:
    """What a provider sends for a status without a more specific error."""

    type: str
    code: str | None
    message: str


OPENAI_ERRORS: dict[int, DefaultError] = {
    400: DefaultError("invalid_request_error", None, "Invalid request."),
    401: DefaultError(
        "invalid_request_error",
        "invalid_api_key",
        "Incorrect API key provided. You can find your API key at https://platform.openai.com/account/api-keys.",
    ),
    403: DefaultError(
        "invalid_request_error",
        "unsupported_country_region_territory",
        "Country, region, or territory not supported.",
    ),
    404: DefaultError(
        "invalid_request_error", "model_not_found", "The model does not exist or you do not have access to it."
    ),
    408: DefaultError("server_error", "request_timeout", "Request timed out."),
    409: DefaultError("conflict", None, "The resource is locked by another request."),
    413: DefaultError("invalid_request_error", None, "Request body too large."),
    422: DefaultError("invalid_request_error", None, "The request could not be processed."),
    429: DefaultError(
        "requests",
        "rate_limit_exceeded",
        "Rate limit reached in organization org-simulator on requests per min (RPM). Please try again later.",
    ),
    500: DefaultError("server_error", None, "The server had an error while processing your request. Sorry about that!"),
    502: DefaultError("server_error", None, "Bad gateway."),
    503: DefaultError(
        "service_unavailable_error",
        "server_is_overloaded",
        "The server is currently overloaded. Please try again later.",
    ),
    504: DefaultError("server_error", None, "The upstream server timed out."),
}

ANTHROPIC_ERRORS: dict[int, DefaultError] = {
    400: DefaultError("invalid_request_error", None, "Invalid request."),
    401: DefaultError("authentication_error", None, "invalid x-api-key"),
    402: DefaultError("billing_error", None, "There is an issue with your billing or payment information."),
    403: DefaultError("permission_error", None, "Your API key does not have permission to use the specified resource."),
    404: DefaultError("not_found_error", None, "The requested resource could not be found."),
    408: DefaultError("timeout_error", None, "Request timed out."),
    409: DefaultError("conflict_error", None, "The resource is in conflict with another request."),
    413: DefaultError("request_too_large", None, "Request exceeds the maximum size."),
    422: DefaultError("invalid_request_error", None, "The request could not be processed."),
    429: DefaultError(
        "rate_limit_error", None, "This request would exceed your organization's rate limit. Please try again later."
    ),
    500: DefaultError("api_error", None, "Internal server error"),
    503: DefaultError("api_error", None, "Service unavailable"),
    504: DefaultError("timeout_error", None, "Request timed out"),
    529: DefaultError("overloaded_error", None, "Overloaded"),
}

#: Azure's own gateway answers these; everything else comes from the model behind it and looks like OpenAI's.
AZURE_ERRORS: dict[int, DefaultError] = {
    401: DefaultError(
        "",
        "401",
        "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an "
        "active subscription and use a correct regional API endpoint for your resource.",
    ),
    403: DefaultError("", "403", "Public access is disabled. Please configure private endpoint."),
    404: DefaultError(
        "",
        "DeploymentNotFound",
        "The API deployment for this resource does not exist. If you created the deployment within the last 5 minutes, "
        "please wait a moment and try again.",
    ),
    429: DefaultError("", "429", "Requests have exceeded call rate limit of your current OpenAI S0 pricing tier."),
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

QUOTA_CODES = frozenset(
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

MISSING_KEY_MESSAGES: dict[Dialect, str] = {
    Dialect.OPENAI: (
        "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth "
        "(i.e. Authorization: Bearer YOUR_KEY)."
    ),
    Dialect.ANTHROPIC: "x-api-key header is required",
    Dialect.AZURE: AZURE_ERRORS[401].message,
}

QUOTA_ERRORS: dict[Dialect, tuple[str, str]] = {
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


def error_body(dialect: Dialect, api_error: ApiError, request_id: str) -> bytes:
    """The error as the body of a response."""
    return msgspec.json.encode(_error(dialect, api_error, request_id))


def error_frame(dialect: Dialect, api_error: ApiError, request_id: str) -> bytes:
    """The error as an event inside a stream."""
    name = b"event: error\n" if dialect == Dialect.ANTHROPIC else b""
    return name + b"data: " + error_body(dialect, api_error, request_id) + b"\n\n"


def retry_after_of(api_error: ApiError) -> float | None:
    """Return the seconds for Retry-After. Providers send it for an exceeded rate limit, not for an exhausted quota."""
    if api_error.retry_after is not None:
        return api_error.retry_after
    return 1.0 if api_error.status == 429 and api_error.code not in QUOTA_CODES else None


def overloaded_error(dialect: Dialect) -> ApiError:
    return ApiError(529 if dialect == Dialect.ANTHROPIC else 503)


def _error(dialect: Dialect, api_error: ApiError, request_id: str) -> dict[str, Any]:
    match dialect:
        case Dialect.ANTHROPIC:
            return {"type": "error", "error": _anthropic_error(api_error), "request_id": request_id}
        case Dialect.AZURE if api_error.code == "content_filter":
            return {"error": _content_filter_error(api_error)}
        case Dialect.AZURE if api_error.status in AZURE_ERRORS and api_error.code is None:
            standard = AZURE_ERRORS[api_error.status]
            return {"error": {"code": standard.code, "message": api_error.message or standard.message}}
        case _:
            return {"error": _openai_error(api_error)}


def _openai_error(api_error: ApiError) -> dict[str, Any]:
    standard = OPENAI_ERRORS.get(api_error.status) or OPENAI_ERRORS[500 if api_error.status >= 500 else 400]
    code = standard.code if api_error.code is None else api_error.code or None
    return {
        "message": api_error.message or standard.message,
        "type": OPENAI_TYPES.get(code or "", _exhausted_limit(api_error) or standard.type),
        "param": api_error.param,
        "code": code,
    }


def _exhausted_limit(api_error: ApiError) -> str | None:
    return api_error.rate_limit_status.exhausted if isinstance(api_error, RateLimited) else None


def _anthropic_error(api_error: ApiError) -> dict[str, Any]:
    standard = ANTHROPIC_ERRORS.get(api_error.status) or ANTHROPIC_ERRORS[500 if api_error.status >= 500 else 400]
    error: dict[str, Any] = {"type": standard.type, "message": api_error.message or standard.message}
    if api_error.code in {entry.type for entry in ANTHROPIC_ERRORS.values()}:
        error["type"] = api_error.code
    elif api_error.code is not None:
        error["details"] = {"error_code": api_error.code}
    return error


def _content_filter_error(api_error: ApiError) -> dict[str, Any]:
    message = (
        "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. "
        "Please modify your prompt and retry."
    )
    return {
        "code": "content_filter",
        "status": 400,
        "message": api_error.message or message,
        "param": "prompt",
        "type": None,
        "innererror": CONTENT_FILTER,
    }
