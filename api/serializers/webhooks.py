"""Webhook endpoints and deliveries on the wire."""

from typing import Any

from rest_framework import serializers

from api.serializers.strict import ConstantField, StrictDateTimeField, StrictSerializer, StrictStringField
from webhooks.event_types import EVENT_TYPES
from webhooks.models import Delivery, DeliveryState, Endpoint

MAX_PAGE_SIZE = 100


# In


class EndpointIn(StrictSerializer[Any]):
    """Where to send events."""

    url = StrictStringField(max_length=2000)
    description = StrictStringField(max_length=200, required=False, default="", allow_blank=True)
    event_types = serializers.ListField(
        child=StrictStringField(max_length=60),
        required=False,
        default=list,
        max_length=len(EVENT_TYPES),
        help_text=f"Which events to send; empty sends all. Known: {', '.join(EVENT_TYPES)}.",
    )


class PageQuery(StrictSerializer[Any]):
    """Which part of a list."""

    after = serializers.CharField(required=False, max_length=64, help_text="`last_id` of the page before.")
    limit = serializers.IntegerField(required=False, default=20, min_value=1, max_value=MAX_PAGE_SIZE)


class DeliveryQuery(PageQuery):
    """Which deliveries to list."""

    state = serializers.ChoiceField(choices=DeliveryState.choices, required=False)
    endpoint = serializers.CharField(required=False, max_length=64)
    event_type = serializers.CharField(required=False, max_length=60)


# Out


class EndpointOut(serializers.Serializer[Endpoint]):
    """Where a site's events go."""

    id = serializers.CharField(source="public_id")
    object = ConstantField("webhook_endpoint")
    url = serializers.CharField()
    description = serializers.CharField()
    event_types = serializers.ListField(child=serializers.CharField())
    is_enabled = serializers.BooleanField()
    disabled_reason = serializers.SerializerMethodField()
    created_at = StrictDateTimeField()

    def get_disabled_reason(self, endpoint: Endpoint) -> str | None:
        return endpoint.disabled_reason or None


class NewEndpointOut(EndpointOut):
    """An endpoint with its secret, which is shown this once."""

    secret = serializers.SerializerMethodField(help_text="`whsec_…`: keep it; it cannot be shown again.")

    def get_secret(self, endpoint: Endpoint) -> str:
        return str(self.context["secret"])


class DeliveryOut(serializers.Serializer[Delivery]):
    """One event on its way to one endpoint."""

    id = serializers.CharField(source="public_id")
    object = ConstantField("webhook_delivery")
    state = serializers.ChoiceField(choices=DeliveryState.choices)
    event_id = serializers.CharField(source="event.public_id")
    event_type = serializers.CharField(source="event.type")
    endpoint_id = serializers.CharField(source="endpoint.public_id")
    attempts = serializers.IntegerField()
    due_at = StrictDateTimeField(allow_null=True)
    last_status = serializers.IntegerField(allow_null=True)
    last_error = serializers.SerializerMethodField()
    created_at = StrictDateTimeField()
    finished_at = StrictDateTimeField(allow_null=True)

    def get_last_error(self, delivery: Delivery) -> str | None:
        return delivery.last_error or None
