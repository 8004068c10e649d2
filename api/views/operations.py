"""Liveness, readiness, OpenAPI document and docs page: public, without authentication."""

from django.conf import settings
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from api.errors import ResourceNotFound
from api.openapi import error_responses, openapi_json
from api.views.resource import Resource
from core.reachability import is_broker_reachable, is_redis_reachable
from jobs.worker.leases import live_workers

#: The docs page runs Swagger UI from this server and connects to nothing else.
DOCS_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class PublicResource(Resource):
    """A resource without authentication."""

    authentication_classes = []
    permission_classes = []


class HealthOut(serializers.Serializer[dict[str, str]]):
    status = serializers.CharField(help_text="`ok`")


class ReadinessOut(serializers.Serializer[dict[str, str]]):
    status = serializers.CharField(help_text="`ok` or `degraded`")
    postgres = serializers.CharField(help_text="`ok`")
    redis = serializers.CharField(help_text="`ok` or `unreachable`")
    broker = serializers.CharField(help_text="`ok` or `unreachable`: the Celery broker, by default Redis")
    workers = serializers.IntegerField(help_text="Number of live worker processes. Without one, jobs wait.")


@extend_schema(tags=["Operations"])
class Health(PublicResource):
    @extend_schema(operation_id="healthz", summary="Liveness check", responses={200: HealthOut})
    def get(self, request: Request) -> Response:
        return Response({"status": "ok"})


@extend_schema(tags=["Operations"])
class Readiness(PublicResource):
    @extend_schema(
        operation_id="readyz",
        summary="Readiness check",
        description="Postgres is required. Without Redis, broker or workers the status is `degraded`, and jobs are "
        "still accepted.",
        responses={200: ReadinessOut, **error_responses(OperationalError, public=True)},
    )
    def get(self, request: Request) -> Response:
        workers = len(live_workers())
        redis = is_redis_reachable(settings.REDIS_URL)
        broker = (
            redis
            if settings.CELERY_BROKER_URL == settings.REDIS_URL
            else is_broker_reachable(settings.CELERY_BROKER_URL)
        )
        return Response(
            {
                "status": "ok" if workers and redis and broker else "degraded",
                "postgres": "ok",
                "redis": _status_word(redis),
                "broker": _status_word(broker),
                "workers": workers,
            }
        )


class OpenAPIDocument(PublicResource):
    @extend_schema(exclude=True)
    def get(self, request: Request) -> HttpResponse:
        return HttpResponse(openapi_json(), content_type="application/json", headers={"Cache-Control": "max-age=60"})


class UnknownPath(PublicResource):
    """Every other path under the API's prefixes."""

    @extend_schema(exclude=True)
    def initial(self, request: Request, *args: object, **kwargs: object) -> None:
        raise ResourceNotFound("Not found. GET /v1/openapi.json lists all endpoints.")


def docs(request: HttpRequest) -> HttpResponse:
    """Render the OpenAPI document with Swagger UI."""
    page = render(request, "api/docs.html")
    page["Content-Security-Policy"] = DOCS_CSP
    return page


def _status_word(is_reachable: bool) -> str:
    return "ok" if is_reachable else "unreachable"
