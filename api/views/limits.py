"""`/v1/limits`: the rate limits of a site and their remaining quota."""

from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from api import examples
from api.authentication import identity_of
from api.openapi import error_responses
from api.serializers.limits import LimitsOut, limits_to_wire
from api.views.resource import Resource
from jobs.read import count_running
from tenants.access import TokenScope
from tenants.rate_limiting.status import get_rate_limit_status


@extend_schema(tags=["Limits"])
class LimitsDetail(Resource):
    scopes = {"GET": TokenScope.LIMITS_READ}

    @extend_schema(
        operation_id="get_limits",
        summary="Rate limits and remaining quota",
        description="Reading this consumes no quota. While Redis is unavailable the limits are still returned, "
        "with `remaining` set to `null`.",
        responses={200: LimitsOut, **error_responses()},
        examples=[OpenApiExample("limits", examples.LIMITS, response_only=True, status_codes=["200"])],
    )
    def get(self, request: Request) -> Response:
        site = identity_of(request).site
        body = limits_to_wire(
            get_rate_limit_status(site), max_jobs=site.max_running_jobs, running_jobs=count_running(site)
        )
        return Response(body)
