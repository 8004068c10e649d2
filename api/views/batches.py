"""`/v1/batches`: OpenAI's batches, extended with inline requests, pause and resume, and results at any time."""

from django.http import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, PolymorphicProxySerializer, extend_schema
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response

from api import examples
from api.authentication import identity_of
from api.errors import TooManyUnverifiedUploads
from api.openapi import error_responses
from api.pagination import page_schema, paginate
from api.request_body.json_parser import BatchJSONParser
from api.request_body.preauthentication import is_preauthentication_pass
from api.request_ids import request_id_of
from api.serializers.batches import BatchEstimateOut, BatchIn, BatchOut, BatchQuery, estimate_to_wire
from api.serializers.jobs import read_idempotency_key
from api.streaming_response import streaming_response
from api.views.jobs import IDEMPOTENCY_KEY
from api.views.resource import Resource
from jobs.batches.cancel import cancel
from jobs.batches.create import create
from jobs.batches.estimate import estimate
from jobs.batches.pause import pause, resume
from jobs.batches.read import find_batch, list_batches, view_of, views_of
from jobs.batches.results import result_lines
from jobs.batches.retry import retry_failed
from jobs.errors import (
    BatchEnded,
    BatchNotFound,
    BatchNotRetryable,
    FileNotFound,
    InvalidBatch,
    InvalidFile,
    PausedByOperator,
    UnreadableFile,
)
from jobs.models import Batch
from tenants.access import TokenScope
from tenants.errors import IdempotencyConflict, ModelNotAllowed

RESULTS_COMPLETE_HEADER = "X-Results-Complete"
IDEMPOTENT_REPLAYED = OpenApiParameter(
    "Idempotent-Replayed",
    location=OpenApiParameter.HEADER,
    type=str,
    response=[200],
    description="`true`: the batch was created by an earlier request with this key.",
)
RESULTS_COMPLETE = OpenApiParameter(
    RESULTS_COMPLETE_HEADER,
    location=OpenApiParameter.HEADER,
    type=str,
    response=[200],
    description="`true`: the batch has finished, and there is a line per `custom_id`. `false`: more lines will follow.",
)


@extend_schema(tags=["Batches"])
class BatchList(Resource):
    scopes = {"POST": TokenScope.JOBS_WRITE, "GET": TokenScope.JOBS_READ}
    parser_classes = [BatchJSONParser]

    @extend_schema(
        operation_id="create_batch",
        summary="Create a batch",
        description="Either with a file, as OpenAI's SDKs do, which is validated after this response; or with the "
        "`requests` themselves, which are validated before it. After a 200 the batch is durable: it will finish, even "
        "after crashes.",
        request=BatchIn,
        parameters=[IDEMPOTENCY_KEY, IDEMPOTENT_REPLAYED],
        responses={
            200: PolymorphicProxySerializer(
                "BatchOrEstimate", serializers=[BatchOut, BatchEstimateOut], resource_type_field_name=None
            ),
            **error_responses(
                InvalidBatch,
                FileNotFound,
                InvalidFile,
                UnreadableFile,
                IdempotencyConflict,
                TooManyUnverifiedUploads,
                body=True,
            ),
        },
        examples=[
            OpenApiExample("requests", examples.INLINE_BATCH, request_only=True),
            OpenApiExample("file", examples.FILE_BATCH, request_only=True),
            OpenApiExample("cost estimate", examples.DRY_RUN_BATCH, request_only=True),
            OpenApiExample("in progress", examples.BATCH, response_only=True, status_codes=["200"]),
            OpenApiExample("estimate", examples.ESTIMATE, response_only=True, status_codes=["200"]),
        ],
    )
    def post(self, request: Request) -> Response:
        if is_preauthentication_pass(request._request):
            return Response(status=status.HTTP_204_NO_CONTENT)
        body = BatchIn(data=request.data)
        body.is_valid(raise_exception=True)
        key = read_idempotency_key(request.headers)
        identity = identity_of(request)
        submission = body.to_submission(identity, key, request_id_of(request._request))
        if body.is_dry_run:
            estimates = estimate(identity.site, submission)
            return Response(estimate_to_wire(body.validated_data["endpoint"], estimates))
        created = create(identity.site, submission)
        return _batch_response(created.batch, {} if created.created else {"Idempotent-Replayed": "true"})

    @extend_schema(
        operation_id="list_batches",
        summary="List batches, newest first",
        parameters=[BatchQuery],
        responses={200: page_schema("BatchPage", BatchOut), **error_responses(BatchNotFound, query=True)},
    )
    def get(self, request: Request) -> Response:
        query = BatchQuery(data=request.query_params.dict())
        query.is_valid(raise_exception=True)
        site, params = identity_of(request).site, query.validated_data
        page = paginate(lambda limit: list_batches(site, after=params.get("after"), limit=limit), params["limit"])
        return Response(page.to_wire(BatchOut, views_of(page.rows)))


@extend_schema(tags=["Batches"])
class BatchDetail(Resource):
    scopes = {"GET": TokenScope.JOBS_READ}

    @extend_schema(
        operation_id="get_batch",
        summary="Read a batch with its counts, usage and cost so far",
        responses={200: BatchOut, **error_responses(BatchNotFound)},
        examples=[OpenApiExample("completed", examples.COMPLETED_BATCH, response_only=True, status_codes=["200"])],
    )
    def get(self, request: Request, batch_id: str) -> Response:
        return _batch_response(find_batch(identity_of(request).site, batch_id))


@extend_schema(tags=["Batches"])
class BatchResults(Resource):
    scopes = {"GET": TokenScope.JOBS_READ}

    @extend_schema(
        operation_id="get_batch_results",
        summary="Read the results as JSON lines, at any time",
        description="One line per finished request, successful or not, in the order of submission and in OpenAI's "
        "format: either `response` or `error` is set. Once the batch has finished, there is "
        "exactly one line per `custom_id`.",
        parameters=[RESULTS_COMPLETE],
        responses={(200, "application/jsonl"): OpenApiTypes.STR, **error_responses(BatchNotFound)},
        examples=[OpenApiExample("a line", examples.RESULT_LINE, response_only=True, status_codes=["200"])],
    )
    def get(self, request: Request, batch_id: str) -> HttpResponseBase:
        batch = find_batch(identity_of(request).site, batch_id)
        response = streaming_response(request._request, result_lines(batch), "application/jsonl")
        response[RESULTS_COMPLETE_HEADER] = "true" if batch.is_terminal else "false"
        return response


@extend_schema(tags=["Batches"])
class CancelBatch(Resource):
    scopes = {"POST": TokenScope.JOBS_WRITE}

    @extend_schema(
        operation_id="cancel_batch",
        summary="Cancel a batch",
        description="Queued requests are canceled, running ones are stopped by their workers. "
        "Finished ones keep their results and are billed.",
        request=None,
        responses={200: BatchOut, **error_responses(BatchNotFound, BatchEnded)},
    )
    def post(self, request: Request, batch_id: str) -> Response:
        return _batch_response(cancel(identity_of(request).site, batch_id))


@extend_schema(tags=["Batches"])
class PauseBatch(Resource):
    scopes = {"POST": TokenScope.JOBS_WRITE}

    @extend_schema(
        operation_id="pause_batch",
        summary="Pause a batch",
        description="No more of its requests are started; running ones finish. The completion window keeps running.",
        request=None,
        responses={200: BatchOut, **error_responses(BatchNotFound, BatchEnded)},
    )
    def post(self, request: Request, batch_id: str) -> Response:
        return _batch_response(pause(identity_of(request).site, batch_id))


@extend_schema(tags=["Batches"])
class ResumeBatch(Resource):
    scopes = {"POST": TokenScope.JOBS_WRITE}

    @extend_schema(
        operation_id="resume_batch",
        summary="Resume a paused batch",
        description="A batch that the operator paused can only be resumed by the operator.",
        request=None,
        responses={200: BatchOut, **error_responses(BatchNotFound, PausedByOperator)},
    )
    def post(self, request: Request, batch_id: str) -> Response:
        return _batch_response(resume(identity_of(request).site, batch_id))


@extend_schema(tags=["Batches"])
class RetryBatch(Resource):
    scopes = {"POST": TokenScope.JOBS_WRITE}

    @extend_schema(
        operation_id="retry_batch",
        summary="Retry the failed requests of a batch",
        description="Creates a new batch of the requests that failed, expired or were canceled, under the same "
        "`custom_id`s; `retry_of` names the old one, which does not change.",
        request=None,
        responses={200: BatchOut, **error_responses(BatchNotFound, BatchNotRetryable, ModelNotAllowed)},
    )
    def post(self, request: Request, batch_id: str) -> Response:
        identity = identity_of(request)
        return _batch_response(retry_failed(identity.site, batch_id, identity.grant, request_id_of(request._request)))


def _batch_response(batch: Batch, headers: dict[str, str] | None = None) -> Response:
    return Response(BatchOut(view_of(batch)).data, status.HTTP_200_OK, headers=headers)
