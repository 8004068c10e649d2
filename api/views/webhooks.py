"""`/v1/webhook-endpoints` and `/v1/deliveries`."""

from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response

from api import examples
from api.authentication import identity_of
from api.errors import ResourceNotFound
from api.openapi import error_responses
from api.pagination import page_schema, paginate, read_public_id, rows_after
from api.serializers.webhooks import (
    DeliveryQuery,
    NewWebhookEndpointOut,
    PageQuery,
    WebhookDeliveryOut,
    WebhookEndpointIn,
    WebhookEndpointOut,
)
from api.views.resource import Resource
from tenants.access import TokenScope
from webhooks.endpoints import create_endpoint, list_endpoints
from webhooks.errors import TooManyEndpoints, UnknownEventType, UnsafeUrl
from webhooks.models import Delivery, Endpoint


@extend_schema(tags=["Webhooks"])
class EndpointList(Resource):
    scopes = {"POST": TokenScope.WEBHOOKS_WRITE, "GET": TokenScope.WEBHOOKS_READ}

    @extend_schema(
        operation_id="create_webhook_endpoint",
        summary="Create a webhook endpoint",
        request=WebhookEndpointIn,
        responses={
            201: NewWebhookEndpointOut,
            **error_responses(UnsafeUrl, UnknownEventType, TooManyEndpoints, body=True),
        },
        examples=[
            OpenApiExample("all events", examples.ENDPOINT, request_only=True),
            OpenApiExample("created", examples.NEW_ENDPOINT, response_only=True, status_codes=["201"]),
        ],
    )
    def post(self, request: Request) -> Response:
        body = WebhookEndpointIn(data=request.data)
        body.is_valid(raise_exception=True)
        endpoint, secret = create_endpoint(identity_of(request).site, **body.validated_data)
        created = NewWebhookEndpointOut(endpoint, context={"secret": secret}).data
        return Response(created, status.HTTP_201_CREATED)

    @extend_schema(
        operation_id="list_webhook_endpoints",
        summary="List endpoints, newest first",
        parameters=[PageQuery],
        responses={
            200: page_schema("WebhookEndpointPage", WebhookEndpointOut),
            **error_responses(ResourceNotFound, query=True),
        },
    )
    def get(self, request: Request) -> Response:
        query = PageQuery(data=request.query_params.dict())
        query.is_valid(raise_exception=True)
        rows = rows_after(
            list_endpoints(identity_of(request).site), Endpoint.ID_PREFIX, query.validated_data.get("after")
        )
        page = paginate(lambda limit: list(rows[:limit]), query.validated_data["limit"])
        return Response(page.to_wire(WebhookEndpointOut))


@extend_schema(tags=["Webhooks"])
class EndpointDetail(Resource):
    scopes = {"GET": TokenScope.WEBHOOKS_READ}

    @extend_schema(
        operation_id="get_webhook_endpoint",
        summary="Read an endpoint",
        responses={200: WebhookEndpointOut, **error_responses(ResourceNotFound)},
    )
    def get(self, request: Request, endpoint_id: str) -> Response:
        row_id = read_public_id(Endpoint.ID_PREFIX, endpoint_id)
        endpoint = list_endpoints(identity_of(request).site).filter(id=row_id).first()
        if endpoint is None:
            raise ResourceNotFound("There is no such resource of this site.")
        return Response(WebhookEndpointOut(endpoint).data)


@extend_schema(tags=["Webhooks"])
class DeliveryList(Resource):
    scopes = {"GET": TokenScope.WEBHOOKS_READ}

    @extend_schema(
        operation_id="list_deliveries",
        summary="List deliveries, newest first",
        parameters=[DeliveryQuery],
        responses={
            200: page_schema("WebhookDeliveryPage", WebhookDeliveryOut),
            **error_responses(ResourceNotFound, query=True),
        },
    )
    def get(self, request: Request) -> Response:
        query = DeliveryQuery(data=request.query_params.dict())
        query.is_valid(raise_exception=True)
        params = query.validated_data
        rows = rows_after(identity_of(request).site.deliveries.all(), Delivery.ID_PREFIX, params.get("after"))
        if "state" in params:
            rows = rows.filter(state=params["state"])
        if "event_type" in params:
            rows = rows.filter(event__type=params["event_type"])
        if "endpoint" in params:
            rows = rows.filter(endpoint_id=read_public_id(Endpoint.ID_PREFIX, params["endpoint"]))
        page = paginate(lambda limit: list(rows.select_related("event", "endpoint")[:limit]), params["limit"])
        return Response(page.to_wire(WebhookDeliveryOut))
