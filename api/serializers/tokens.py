"""Narrow tokens and tickets on the wire."""

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

ORIGIN_HELP = "The one origin, like `https://example.com`, whose pages may use it: one of the site's."
DEFAULT_SECONDS = 600
USER_PATTERN = re.compile(r"[\x20-\x7e]{1,128}")


# In


class TokenIn(StrictSerializer[Any]):
    """What a token is to be for."""

    scope = StrictStringField(
        max_length=400,
        help_text=f"What it may be used for, in words separated by spaces, of {', '.join(GRANTABLE_SCOPES)}.",
    )
    model = StrictStringField(
        max_length=200, required=False, allow_null=True, help_text="The one model it may be used for."
    )
    max_tokens = StrictIntegerField(
        min_value=1,
        max_value=2**31 - 1,
        required=False,
        allow_null=True,
        help_text="The most output tokens that one request may ask for.",
    )
    origin = StrictStringField(
        max_length=255, required=False, allow_null=True, help_text=f"{ORIGIN_HELP} Without one it is for servers."
    )
    expires_in = StrictIntegerField(
        min_value=1,
        max_value=MAX_LIFETIME_SECONDS,
        required=False,
        default=DEFAULT_SECONDS,
        help_text="How many seconds it can be used.",
    )

    user = StrictStringField(
        min_length=1,
        max_length=128,
        required=False,
        allow_null=True,
        # Two users may differ in a space alone.
        trim_whitespace=False,
        help_text="Who it is for, in your own words, such as a visitor's id: tokens with the same one may follow and "
        "cancel one another's streams. Without it, a token's streams are its own.",
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
            raise ValidationError(f"Must be words of {known}; got {(unknown or [''])[0][:60]!r}.")
        return frozenset(map(TokenScope, words))

    def to_token_request(self) -> TokenRequest:
        given: Mapping[str, Any] = self.validated_data
        return TokenRequest(
            given["scope"],
            given["expires_in"],
            given.get("model"),
            given.get("max_tokens"),
            given.get("origin"),
            given.get("user"),
        )


class TicketIn(StrictSerializer[Any]):
    """What a ticket is to read: a stream or a job."""

    stream = StrictStringField(max_length=64, required=False, help_text="A stream, `stm_…`. Or else:")
    job = StrictStringField(max_length=64, required=False, help_text="A job, `job_…`.")
    origin = StrictStringField(
        max_length=255,
        required=False,
        allow_null=True,
        help_text=f"{ORIGIN_HELP} Without one it is for servers, and for the desk's own pages.",
    )

    def validate_stream(self, text: str) -> str:
        try:
            from_public("stm", text)
        except InvalidId as error:
            raise ValidationError("Must be the id of a stream, stm_….") from error
        return text

    def validate(self, given: dict[str, Any]) -> dict[str, Any]:
        if ("stream" in given) == ("job" in given):
            raise ValidationError({"stream": [ErrorDetail("Give either stream or job.", code="required")]})
        return given

    @property
    def wanted(self) -> tuple[ReadableKind, str]:
        given: Mapping[str, Any] = self.validated_data
        return (ReadableKind.STREAM, given["stream"]) if "stream" in given else (ReadableKind.JOB, given["job"])


# Out


class TokenOut(serializers.Serializer[NarrowToken]):
    """A token, and what it turned out to be for."""

    id = serializers.CharField()
    object = ConstantField("token")
    token = serializers.CharField(source="minted.text", help_text="Shown this once: `Authorization: Bearer …`.")
    scope = serializers.SerializerMethodField()
    model = serializers.CharField(source="wanted.model", allow_null=True)
    max_tokens = serializers.IntegerField(source="wanted.max_tokens", allow_null=True)
    origin = serializers.CharField(source="wanted.origin", allow_null=True)
    user = serializers.CharField(source="wanted.user", allow_null=True)
    expires_at = StrictDateTimeField(source="minted.expires_at_utc")

    def get_scope(self, token: NarrowToken) -> str:
        return " ".join(sorted(token.wanted.scopes))


class TicketOut(serializers.Serializer[Any]):
    """A ticket, and where to show it."""

    object = ConstantField("ticket")
    ticket = serializers.CharField(help_text="Shown this once: `Authorization: Bearer …`, never in an address.")
    events_url = serializers.CharField()
    expires_at = StrictDateTimeField(help_text="Until then it can be opened; what is open may run to its end.")


def ticket_to_wire(what: ReadableKind, public_id: str, ticket: MintedJwt) -> Mapping[str, Any]:
    """Write a ticket down."""
    found: Mapping[str, Any] = TicketOut(
        {"ticket": ticket.text, "events_url": events_url(what, public_id), "expires_at": ticket.expires_at_utc}
    ).data
    return found


def events_url(what: ReadableKind, public_id: str) -> str:
    """Say where the events of a stream or job are."""
    return f"{settings.BASE_URL}/v1/{what.value}s/{public_id}/events"
