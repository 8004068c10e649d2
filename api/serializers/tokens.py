"""JSON of narrow tokens and tickets."""

import re
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError

from api.serializers.strict import (
    ConstantField,
    StrictDateTimeField,
    StrictIntegerField,
    StrictSerializer,
    StrictStringField,
)
from core.ids import InvalidId, from_public
from tenants.access import TokenScope
from tenants.minted_jwts import MintedJwt
from tenants.narrow_tokens import GRANTABLE_SCOPES, MAX_LIFETIME_SECONDS, NarrowToken, TokenRequest
from tenants.tickets import ReadableKind

ORIGIN_HELP = "The one origin, like `https://example.com`, whose pages may use it; it must be an origin of the site."
DEFAULT_SECONDS = 600
USER_PATTERN = re.compile(r"[\x20-\x7e]{1,128}")


# In


class TokenIn(StrictSerializer[Any]):
    """The restrictions of a new token."""

    scope = StrictStringField(
        max_length=400,
        help_text=f"The scopes of the token, separated by spaces, out of {', '.join(GRANTABLE_SCOPES)}.",
    )
    model = StrictStringField(
        max_length=200, required=False, allow_null=True, help_text="The only model that it may be used for."
    )
    max_tokens = StrictIntegerField(
        min_value=1,
        max_value=2**31 - 1,
        required=False,
        allow_null=True,
        help_text="The maximum of output tokens per request.",
    )
    origin = StrictStringField(
        max_length=255,
        required=False,
        allow_null=True,
        help_text=f"{ORIGIN_HELP} Without an origin, only servers can use it.",
    )
    expires_in = StrictIntegerField(
        min_value=1,
        max_value=MAX_LIFETIME_SECONDS,
        required=False,
        default=DEFAULT_SECONDS,
        help_text="Lifetime in seconds.",
    )

    user = StrictStringField(
        min_length=1,
        max_length=128,
        required=False,
        allow_null=True,
        # Names that differ only in spaces are different users.
        trim_whitespace=False,
        help_text="Your name for the user, such as a visitor's id. Tokens of the same user may follow and cancel each "
        "other's streams. Without it, only the token itself may follow and cancel its streams.",
    )

    def validate_user(self, text: str | None) -> str | None:
        if text is not None and not USER_PATTERN.fullmatch(text):
            raise ValidationError("Must be 1 to 128 printable ASCII characters.")
        return text

    def validate_scope(self, text: str) -> frozenset[TokenScope]:
        words = text.split()
        unknown = [word for word in words if word not in GRANTABLE_SCOPES]
        if unknown or not words:
            known = ", ".join(GRANTABLE_SCOPES)
            raise ValidationError(
                f"Must be scopes out of {known}, separated by spaces; got {(unknown or [''])[0][:60]!r}."
            )
        return frozenset(map(TokenScope, words))

    def to_token_request(self) -> TokenRequest:
        data: Mapping[str, Any] = self.validated_data
        return TokenRequest(
            data["scope"],
            data["expires_in"],
            data.get("model"),
            data.get("max_tokens"),
            data.get("origin"),
            data.get("user"),
        )


class TicketIn(StrictSerializer[Any]):
    """The stream or job that a new ticket reads."""

    stream = StrictStringField(
        max_length=64, required=False, help_text="The id of a stream, `stm_…`. Send either this or `job`."
    )
    job = StrictStringField(max_length=64, required=False, help_text="The id of a job, `job_…`.")
    origin = StrictStringField(
        max_length=255,
        required=False,
        allow_null=True,
        help_text=f"{ORIGIN_HELP} Without an origin, only servers and Nightdesk's own pages can use it.",
    )

    def validate_stream(self, text: str) -> str:
        try:
            from_public("stm", text)
        except InvalidId as error:
            raise ValidationError("Must be the id of a stream, stm_….") from error
        return text

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("stream" in attrs) == ("job" in attrs):
            raise ValidationError({"stream": [ErrorDetail("Send either stream or job.", code="required")]})
        return attrs

    @property
    def target(self) -> tuple[ReadableKind, str]:
        data: Mapping[str, Any] = self.validated_data
        return (ReadableKind.STREAM, data["stream"]) if "stream" in data else (ReadableKind.JOB, data["job"])


# Out


class TokenOut(serializers.Serializer[NarrowToken]):
    """A new token and its restrictions."""

    id = serializers.CharField()
    object = ConstantField("token")
    token = serializers.CharField(
        source="minted.text", help_text="Returned only once. Use it as `Authorization: Bearer …`."
    )
    scope = serializers.SerializerMethodField()
    model = serializers.CharField(source="granted.model", allow_null=True)
    max_tokens = serializers.IntegerField(source="granted.max_tokens", allow_null=True)
    origin = serializers.CharField(source="granted.origin", allow_null=True)
    user = serializers.CharField(source="granted.user", allow_null=True)
    expires_at = StrictDateTimeField(source="minted.expires_at_utc")

    def get_scope(self, token: NarrowToken) -> str:
        return " ".join(sorted(token.granted.scopes))


class TicketOut(serializers.Serializer[Any]):
    """A new ticket and the URL that it opens."""

    object = ConstantField("ticket")
    ticket = serializers.CharField(help_text="Returned only once. Use it as `Authorization: Bearer …`, never in a URL.")
    events_url = serializers.CharField()
    expires_at = StrictDateTimeField(
        help_text="The last moment to open the stream. Streams that are open then continue."
    )


def ticket_to_wire(kind: ReadableKind, public_id: str, ticket: MintedJwt) -> Mapping[str, Any]:
    """Return the JSON of a ticket."""
    body: Mapping[str, Any] = TicketOut(
        {"ticket": ticket.text, "events_url": events_url(kind, public_id), "expires_at": ticket.expires_at_utc}
    ).data
    return body


def events_url(kind: ReadableKind, public_id: str) -> str:
    """Return the URL of the events of a stream or job."""
    return f"{settings.BASE_URL}/v1/{kind.value}s/{public_id}/events"
