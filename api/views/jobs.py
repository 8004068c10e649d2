"""`/v1/jobs`: submit, list, read, cancel and retry."""

from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response

from api import examples
from api.authentication import identity_of
from api.pages import page_of, page_schema
from api.request_ids import id_of
from api.schema import refusals
from api.serializers.jobs import (
    JobIn,
    JobOut,
    JobQuery,
    JobSummaryOut,
    JobView,
    read_idempotency_key,
    to_submission,
)
from api.serializers.shared import read, write
from api.views.resource import Resource
from inference.errors import RequestTooLong, UnknownModel
from jobs.cancel import cancel
from jobs.errors import (
    BatchMissing,
    ErasedPayload,
    IdempotencyConflict,
    InvalidBody,
    JobEnded,
    JobNotFound,
    NotReplayable,
)
from jobs.models import Job
from jobs.read import account_of, billed_of, find_job, list_jobs, result_of
from jobs.replay import replay
from jobs.submit import submit
from tenants.errors import ModelNotAllowed
from tenants.limits import Scope

IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    location=OpenApiParameter.HEADER,
    type={"type": "string", "minLength": 1, "maxLength": 255},
    description="The same key with the same request gives the same job, and never a second one.",
)
REPLAYED = OpenApiParameter(
    "Idempotent-Replayed",
    location=OpenApiParameter.HEADER,
    type=str,
    response=[202],
    description="`true`: the job was there already.",
)


@extend_schema(tags=["Jobs"])
class Jobs(Resource):
    scopes = {"POST": Scope.JOBS_WRITE, "GET": Scope.JOBS_READ}

    @extend_schema(
        operation_id="create_job",
        summary="Submit a task",
        description="After a 202 the job will end, whatever happens here: it is done, billed once, and reported.",
        request=JobIn,
        parameters=[IDEMPOTENCY_KEY, REPLAYED],
        responses={
            202: JobOut,
            **refusals(InvalidBody, UnknownModel, ModelNotAllowed, RequestTooLong, IdempotencyConflict, body=True),
        },
        examples=[
            OpenApiExample("chat", examples.CHAT_JOB, request_only=True),
            OpenApiExample("messages", examples.MESSAGES_JOB, request_only=True),
            OpenApiExample("embeddings", examples.EMBEDDINGS_JOB, request_only=True),
            OpenApiExample("queued", examples.QUEUED_JOB, response_only=True, status_codes=["202"]),
        ],
    )
    def post(self, request: Request) -> Response:
        wanted = read(JobIn, request.data)
        key = read_idempotency_key(request.headers)
        identity = identity_of(request)
        submitted = submit(identity.site, to_submission(wanted, identity, key, id_of(request._request)))
        # The same answer both times: a caller that lost the first must not have to know.
        if submitted.created:
            # Nothing was done for it yet, so there is nothing to look up.
            return Response(write(JobOut, JobView(submitted.job, None)), status.HTTP_202_ACCEPTED)
        return _in_full(submitted.job, status.HTTP_202_ACCEPTED, {"Idempotent-Replayed": "true"})

    @extend_schema(
        operation_id="list_jobs",
        summary="List jobs, newest first",
        parameters=[JobQuery],
        responses={200: page_schema("JobPage", JobSummaryOut), **refusals(JobNotFound, BatchMissing, query=True)},
    )
    def get(self, request: Request) -> Response:
        wanted = JobQuery(data=request.query_params.dict())
        wanted.is_valid(raise_exception=True)
        site, after = identity_of(request).site, wanted.validated_data.get("after")
        page = page_of(
            lambda limit: list_jobs(site, wanted.to_filter(), after=after, limit=limit), wanted.validated_data["limit"]
        )
        billed = billed_of(page.rows)
        views = [JobView(job, billed.get(job.id)) for job in page.rows]
        return Response(page.to_wire(JobSummaryOut, views))


@extend_schema(tags=["Jobs"])
class OneJob(Resource):
    scopes = {"GET": Scope.JOBS_READ}

    @extend_schema(
        operation_id="get_job",
        summary="Read a job with its attempts, usage, cost and result",
        responses={200: JobOut, **refusals(JobNotFound)},
        examples=[OpenApiExample("succeeded", examples.SUCCEEDED_JOB, response_only=True, status_codes=["200"])],
    )
    def get(self, request: Request, job_id: str) -> Response:
        return _in_full(find_job(identity_of(request).site, job_id))


@extend_schema(tags=["Jobs"])
class CancelJob(Resource):
    scopes = {"POST": Scope.JOBS_WRITE}

    @extend_schema(
        operation_id="cancel_job",
        summary="Cancel a job",
        description="A queued job is canceled at once. A running one is told to stop; it may still succeed.",
        request=None,
        responses={200: JobOut, **refusals(JobNotFound, JobEnded)},
    )
    def post(self, request: Request, job_id: str) -> Response:
        return _in_full(cancel(identity_of(request).site, job_id))


@extend_schema(tags=["Jobs"])
class RetryJob(Resource):
    scopes = {"POST": Scope.JOBS_WRITE}

    @extend_schema(
        operation_id="retry_job",
        summary="Try a job again that ended without success",
        description="Makes a new job with the same request; `replay_of` names the old one, which does not change.",
        request=None,
        responses={
            202: JobOut,
            **refusals(
                JobNotFound, NotReplayable, ErasedPayload, InvalidBody, UnknownModel, ModelNotAllowed, RequestTooLong
            ),
        },
    )
    def post(self, request: Request, job_id: str) -> Response:
        identity = identity_of(request)
        job = replay(identity.site, job_id, identity.grant, id_of(request._request))
        return _in_full(job, status.HTTP_202_ACCEPTED)


def _in_full(job: Job, status_code: int = status.HTTP_200_OK, headers: dict[str, str] | None = None) -> Response:
    account = account_of(job)
    view = JobView(job, account.billed, account.attempts, result_of(job))
    return Response(write(JobOut, view), status_code, headers=headers)
