"""Is it alive, is it ready, and what can it do: no proof of identity needed."""

from django.conf import settings
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from api.errors import ResourceNotFound
from api.schema import document, refusals
from api.views.resource import Resource
from core.reachability import broker_answers, redis_answers
from jobs.leases import live_workers

#: The docs page runs Swagger UI from this desk, and reaches nothing else.
DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Open(Resource):
    """A resource for anybody."""

    authentication_classes = []
    permission_classes = []


class HealthOut(serializers.Serializer[dict[str, str]]):
    status = serializers.CharField(help_text="`ok`")


class ReadinessOut(serializers.Serializer[dict[str, str]]):
    status = serializers.CharField(help_text="`ok` or `degraded`")
    postgres = serializers.CharField(help_text="`ok`")
    redis = serializers.CharField(help_text="`ok` or `unreachable`")
    broker = serializers.CharField(help_text="`ok` or `unreachable`: what carries doorbells; Redis, if nothing else")
    workers = serializers.IntegerField(help_text="Worker processes that live. Without one, jobs wait.")


@extend_schema(tags=["Operations"])
class Health(Open):
    @extend_schema(operation_id="healthz", summary="Is the process alive?", responses={200: HealthOut})
    def get(self, request: Request) -> Response:
        return Response({"status": "ok"})


@extend_schema(tags=["Operations"])
class Readiness(Open):
    @extend_schema(
        operation_id="readyz",
        summary="Can it take work?",
        description="Postgres must answer. Without Redis, broker or workers jobs are accepted: that is `degraded`.",
        responses={200: ReadinessOut, **refusals(OperationalError, anybody=True)},
    )
    def get(self, request: Request) -> Response:
        workers = len(live_workers())
        redis = redis_answers(settings.REDIS_URL)
        broker = (
            redis if settings.CELERY_BROKER_URL == settings.REDIS_URL else broker_answers(settings.CELERY_BROKER_URL)
        )
        return Response(
            {
                "status": "ok" if workers and redis and broker else "degraded",
                "postgres": "ok",
                "redis": _word_for(redis),
                "broker": _word_for(broker),
                "workers": workers,
            }
        )


class OpenAPIDocument(Open):
    @extend_schema(exclude=True)
    def get(self, request: Request) -> HttpResponse:
        return HttpResponse(document(), content_type="application/json", headers={"Cache-Control": "max-age=60"})


class Nowhere(Open):
    """Every other address under the API's prefixes."""

    @extend_schema(exclude=True)
    def initial(self, request: Request, *args: object, **kwargs: object) -> None:
        raise ResourceNotFound("There is nothing at this address. GET /v1/openapi.json lists what there is.")


def docs(request: HttpRequest) -> HttpResponse:
    """Show the OpenAPI document to people."""
    page = render(request, "api/docs.html")
    page["Content-Security-Policy"] = DOCS_POLICY
    return page


def _word_for(answers: bool) -> str:
    return "ok" if answers else "unreachable"
