"""`/v1/jobs`: submit, list, read, cancel and retry."""

from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response

from api import examples
from api.authentication import identity_of
from api.openapi import error_responses
from api.pagination import page_schema, paginate
from api.request_ids import request_id_of
from api.serializers.cached import deserialize, serialize
from api.serializers.jobs import (
    JobDetails,
    JobIn,
    JobOut,
    JobQuery,
    JobSummaryOut,
    read_idempotency_key,
    to_submission,
)
from api.views.resource import Resource
from inference.errors import RequestTooLong, UnknownModel
from jobs.cancel import cancel
from jobs.errors import (
    BatchNotFound,
    ErasedPayload,
    InvalidBody,
    JobEnded,
    JobNotFound,
    JobNotRetryable,
)
from jobs.models import Job
from jobs.read import billed_calls_of, find_job, history_of, list_jobs, result_of
from jobs.retry import retry
from jobs.submit import submit
from tenants.access import TokenScope
from tenants.errors import IdempotencyConflict, ModelNotAllowed

IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    location=OpenApiParameter.HEADER,
    type={"type": "string", "minLength": 1, "maxLength": 255},
    description="Repeating a request with the same key returns the first result; nothing is created twice.",
)
IDEMPOTENT_REPLAYED = OpenApiParameter(
    "Idempotent-Replayed",
    location=OpenApiParameter.HEADER,
    type=str,
    response=[202],
    description="`true`: the job was created by an earlier request with this key.",
)


@extend_schema(tags=["Jobs"])
class JobList(Resource):
    scopes = {"POST": TokenScope.JOBS_WRITE, "GET": TokenScope.JOBS_READ}

    @extend_schema(
        operation_id="create_job",
        summary="Submit a job",
        description="After a 202 the job is durable: even after crashes it finishes, is billed once, and sends its "
        "webhook.",
        request=JobIn,
        parameters=[IDEMPOTENCY_KEY, IDEMPOTENT_REPLAYED],
        responses={
            202: JobOut,
            **error_responses(
                InvalidBody, UnknownModel, ModelNotAllowed, RequestTooLong, IdempotencyConflict, body=True
            ),
        },
        examples=[
            OpenApiExample("chat", examples.CHAT_JOB, request_only=True),
            OpenApiExample("messages", examples.MESSAGES_JOB, request_only=True),
            OpenApiExample("embeddings", examples.EMBEDDINGS_JOB, request_only=True),
            OpenApiExample("queued", examples.QUEUED_JOB, response_only=True, status_codes=["202"]),
        ],
    )
    def post(self, request: Request) -> Response:
        data = deserialize(JobIn, request.data)
        key = read_idempotency_key(request.headers)
        identity = identity_of(request)
        submitted = submit(identity.site, to_submission(data, identity, key, request_id_of(request._request)))
        # The same response both times, so that a caller that lost the first one can simply repeat the request.
        if submitted.created:
            # A new job has no attempts to look up.
            return Response(serialize(JobOut, JobDetails(submitted.job, None)), status.HTTP_202_ACCEPTED)
        return _job_response(submitted.job, status.HTTP_202_ACCEPTED, {"Idempotent-Replayed": "true"})

    @extend_schema(
        operation_id="list_jobs",
        summary="List jobs, newest first",
        parameters=[JobQuery],
        responses={
            200: page_schema("JobPage", JobSummaryOut),
            **error_responses(JobNotFound, BatchNotFound, query=True),
        },
    )
    def get(self, request: Request) -> Response:
        query = JobQuery(data=request.query_params.dict())
        query.is_valid(raise_exception=True)
        identity, after = identity_of(request), query.validated_data.get("after")
        job_filter = query.to_filter(identity)
        page = paginate(
            lambda limit: list_jobs(identity.site, job_filter, after=after, limit=limit), query.validated_data["limit"]
        )
        billed = billed_calls_of(page.rows)
        views = [JobDetails(job, billed.get(job.id)) for job in page.rows]
        return Response(page.to_wire(JobSummaryOut, views))


@extend_schema(tags=["Jobs"])
class JobDetail(Resource):
    scopes = {"GET": TokenScope.JOBS_READ}

    @extend_schema(
        operation_id="get_job",
        summary="Read a job with its attempts, usage, cost and result",
        responses={200: JobOut, **error_responses(JobNotFound)},
        examples=[OpenApiExample("succeeded", examples.SUCCEEDED_JOB, response_only=True, status_codes=["200"])],
    )
    def get(self, request: Request, job_id: str) -> Response:
        return _job_response(find_job(identity_of(request).site, job_id))


@extend_schema(tags=["Jobs"])
class CancelJob(Resource):
    scopes = {"POST": TokenScope.JOBS_WRITE}

    @extend_schema(
        operation_id="cancel_job",
        summary="Cancel a job",
        description="A queued job is canceled immediately. Its worker stops a running one, unless it ends first.",
        request=None,
        responses={200: JobOut, **error_responses(JobNotFound, JobEnded)},
    )
    def post(self, request: Request, job_id: str) -> Response:
        return _job_response(cancel(identity_of(request).site, job_id))


@extend_schema(tags=["Jobs"])
class RetryJob(Resource):
    scopes = {"POST": TokenScope.JOBS_WRITE}

    @extend_schema(
        operation_id="retry_job",
        summary="Retry a job that finished without success",
        description="Creates a new job with the same request; `retry_of` names the old one, which does not change.",
        request=None,
        responses={
            202: JobOut,
            **error_responses(
                JobNotFound, JobNotRetryable, ErasedPayload, InvalidBody, UnknownModel, ModelNotAllowed, RequestTooLong
            ),
        },
    )
    def post(self, request: Request, job_id: str) -> Response:
        identity = identity_of(request)
        job = retry(identity.site, job_id, identity.grant, request_id_of(request._request))
        return _job_response(job, status.HTTP_202_ACCEPTED)


def _job_response(job: Job, status_code: int = status.HTTP_200_OK, headers: dict[str, str] | None = None) -> Response:
    history = history_of(job)
    view = JobDetails(job, history.billed, history.attempts, result_of(job))
    return Response(serialize(JobOut, view), status_code, headers=headers)
