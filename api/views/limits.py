"""`/v1/limits`: how a site stands with its limits."""

from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from api import examples
from api.authentication import identity_of
from api.schema import refusals
from api.serializers.limits import LimitsOut, limits_to_wire
from api.views.resource import Resource
from jobs.waiting import running_of
from tenants.admission.standing import standing_of
from tenants.limits import Scope


@extend_schema(tags=["Limits"])
class Limits(Resource):
    scopes = {"GET": Scope.LIMITS_READ}

    @extend_schema(
        operation_id="get_limits",
        summary="Your limits, and what is left of them",
        description="Asking uses nothing up. While the desk's fast memory is away the limits are told all the same, "
        "and what is left is `null`.",
        responses={200: LimitsOut, **refusals()},
        examples=[OpenApiExample("limits", examples.LIMITS, response_only=True, status_codes=["200"])],
    )
    def get(self, request: Request) -> Response:
        site = identity_of(request).site
        told = limits_to_wire(standing_of(site), most_jobs=site.max_running_jobs, running_jobs=running_of(site))
        return Response(told)
