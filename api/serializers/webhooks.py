"""JSON of webhook endpoints and deliveries."""

from typing import Any

from rest_framework import serializers

from api.serializers.strict import ConstantField, StrictDateTimeField, StrictSerializer, StrictStringField
from webhooks.event_types import EVENT_TYPES
from webhooks.models import Delivery, DeliveryState, Endpoint

MAX_PAGE_SIZE = 100


# In


class WebhookEndpointIn(StrictSerializer[Any]):
    """A new webhook endpoint."""

    url = StrictStringField(max_length=2000)
    description = StrictStringField(max_length=200, required=False, default="", allow_blank=True)
    event_types = serializers.ListField(
        child=StrictStringField(max_length=60),
        required=False,
        default=list,
        max_length=len(EVENT_TYPES),
        help_text=f"The event types to subscribe to; empty means all. Known types: {', '.join(EVENT_TYPES)}.",
    )


class PageQuery(StrictSerializer[Any]):
    """Pagination of a list."""

    after = serializers.CharField(required=False, max_length=64, help_text="`last_id` of the previous page.")
    limit = serializers.IntegerField(required=False, default=20, min_value=1, max_value=MAX_PAGE_SIZE)


class DeliveryQuery(PageQuery):
    """Filter and pagination of the list."""

    state = serializers.ChoiceField(choices=DeliveryState.choices, required=False)
    endpoint = serializers.CharField(required=False, max_length=64)
    event_type = serializers.CharField(required=False, max_length=60)


# Out


class WebhookEndpointOut(serializers.Serializer[Endpoint]):
    """A webhook endpoint."""

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


class NewWebhookEndpointOut(WebhookEndpointOut):
    """A new endpoint with its secret, which is returned only once."""

    secret = serializers.SerializerMethodField(help_text="`whsec_…`: store it; it cannot be retrieved again.")

    def get_secret(self, endpoint: Endpoint) -> str:
        return str(self.context["secret"])


class WebhookDeliveryOut(serializers.Serializer[Delivery]):
    """The delivery of one event to one endpoint."""

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
