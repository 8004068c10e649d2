"""OpenAPI document of the REST API: authentication and errors. (`api.live.openapi` adds the live endpoints.)"""

from collections import defaultdict
from functools import cache
from typing import Any

import msgspec
from django.db import OperationalError
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.utils import OpenApiResponse
from rest_framework.exceptions import UnsupportedMediaType, ValidationError

from api.errors import BodyTimeout, BodyTooLarge, MalformedBody, StorageFull, code_of, mapping_for
from api.serializers.errors import ErrorOut
from tenants.errors import Forbidden, Unauthenticated

#: Errors of every authenticated resource.
COMMON_ERRORS = (Unauthenticated, Forbidden, OperationalError)
BODY_ERRORS = (ValidationError, MalformedBody, BodyTooLarge, BodyTimeout, UnsupportedMediaType, StorageFull)
QUERY_ERRORS = (ValidationError,)

STATUS_DESCRIPTIONS = {
    400: "The request is malformed",
    401: "Missing or invalid credentials",
    403: "Not allowed for this site or this token",
    404: "Not found, or not this site's",
    408: "Timed out reading the request body",
    409: "Not possible in this state",
    413: "The body is too large",
    415: "Unsupported content type",
    422: "The idempotency key was used for another request",
    503: "A required service is unavailable; retry after `Retry-After` seconds",
    507: "Storage is full; nothing was stored",
}

#: Alternatives: one of these is required.
SECURITY: list[dict[str, list[Any]]] = [
    {"bearer": []},
    {"apiKey": []},
    {name: [] for name in ("siteId", "timestamp", "nonce", "signature")},
]


def error_responses(
    *errors: type[BaseException], body: bool = False, query: bool = False, public: bool = False
) -> dict[int, OpenApiResponse]:
    """Describe the responses for these errors, and for those of a request body, a query and authentication."""
    possible = [
        *errors,
        *(() if public else COMMON_ERRORS),
        *(BODY_ERRORS if body else ()),
        *(QUERY_ERRORS if query else ()),
    ]
    codes: dict[int, set[str]] = defaultdict(set)
    for error in possible:
        codes[mapping_for(error).status].update({code_of(leaf) for leaf in (error.__subclasses__() or [error])})
    return {status: OpenApiResponse(ErrorOut, _describe(status, codes[status])) for status in sorted(codes)}


def _describe(status: int, codes: set[str]) -> str:
    return STATUS_DESCRIPTIONS[status] + (f" ({', '.join(sorted(codes))})" if codes else "")


@cache
def openapi_json() -> bytes:
    """Return the document as JSON. It is the same for every caller, and generated once."""
    return msgspec.json.encode(_generate())


def _generate() -> dict[str, Any]:
    generator = SchemaGenerator()  # type: ignore[no-untyped-call] # its half-typed classes are all so
    document: dict[str, Any] = generator.get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    return document


class SiteAuthenticationScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """The three ways to authenticate."""

    target_class = "api.authentication.SiteAuthentication"
    name = ["bearer", "apiKey", "siteId", "timestamp", "nonce", "signature"]  # noqa: RUF012 (drf-spectacular's way)

    def get_security_definition(self, auto_schema: Any) -> list[dict[str, Any]]:
        return [
            {
                "type": "http",
                "scheme": "bearer",
                "description": "An API key (`nd_…`); or a JWT: HS256 with the site's secret, `sub` = slug, "
                "`exp` within an hour; optional `scope`, `model`, `max_tokens`, `origin`; or a token of `/v1/tokens`.",
            },
            _header("x-api-key", "An API key (`nd_…`)."),
            _header("X-Site-ID", "Signed request: the site's id or slug."),
            _header("X-Timestamp", "Signed request: unix seconds, at most 60 s from now."),
            _header("X-Nonce", "Signed request: 8 to 128 printable characters, used once."),
            _header(
                "X-Signature",
                "Signed request: `v1=` and the hex HMAC-SHA256, under the site's secret, of these six lines joined by "
                "single line feeds: `v1`, timestamp, nonce, METHOD, path with query as sent, hex SHA-256 of the body.",
            ),
        ]

    def get_security_requirement(self, auto_schema: Any) -> list[dict[str, list[Any]]]:
        return SECURITY


def _header(name: str, description: str) -> dict[str, str]:
    return {"type": "apiKey", "in": "header", "name": name, "description": description}
