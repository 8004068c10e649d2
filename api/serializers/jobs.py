"""JSON of jobs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError

from api.serializers.strict import (
    ConstantField,
    JSONObjectField,
    MetadataField,
    StrictChoiceField,
    StrictDateTimeField,
    StrictIntegerField,
    StrictSerializer,
)
from core.ids import to_public
from jobs.models import Attempt, Batch, Job, JobKind, JobState
from jobs.priorities import PRIORITIES, priority_name
from jobs.read import WITHOUT_BATCH, AttemptHistory, JobFilter
from jobs.submit import JobSubmission
from metering.cost import format_usd_full
from metering.models import UsageEvent
from tenants.authentication import Identity

MAX_ATTEMPTS = 10
MAX_PAGE_SIZE = 100


@dataclass(frozen=True, slots=True)
class JobDetails:
    """A job with its billed call, and in the detailed form with attempts and result."""

    job: Job
    billed: UsageEvent | None
    attempts: tuple[AttemptHistory, ...] = ()
    result: dict[str, Any] | None = None


# In


@extend_schema_field(
    {
        "description": "The request in the wire format of its kind: the body of OpenAI's `/v1/chat/completions` "
        "(chat), Anthropic's `/v1/messages` (messages) or OpenAI's `/v1/embeddings` (embeddings), without `stream`.",
        "anyOf": [
            {"$ref": "#/components/schemas/OpenAIChatBody"},
            {"$ref": "#/components/schemas/AnthropicMessagesBody"},
            {"$ref": "#/components/schemas/OpenAIEmbeddingBody"},
        ],
    }
)
class WireBodyField(JSONObjectField):
    """The body of a live request, which `jobs.submit` parses."""


class JobIn(StrictSerializer[Any]):
    """A request to run in the background."""

    kind = StrictChoiceField(choices=JobKind.choices, help_text="The wire format of `body` and of the result.")
    body = WireBodyField()
    metadata = MetadataField(required=False)
    priority = StrictChoiceField(choices=list(PRIORITIES), default="normal")
    max_attempts = StrictIntegerField(required=False, allow_null=True, min_value=1, max_value=MAX_ATTEMPTS)
    available_at = StrictDateTimeField(
        required=False, allow_null=True, help_text="The job is not started before this time."
    )
    expires_at = StrictDateTimeField(
        required=False, allow_null=True, help_text="If the job has not started by this time, it expires."
    )


def to_submission(
    data: Mapping[str, Any], identity: Identity, idempotency_key: str | None, request_id: str
) -> JobSubmission:
    """Return validated data of `JobIn` as the input of `jobs.submit`."""
    return JobSubmission(
        kind=JobKind(data["kind"]),
        body=data["body"],
        metadata=data.get("metadata", {}),
        idempotency_key=idempotency_key,
        idempotency_scope=identity.idempotency_scope,
        priority=PRIORITIES[data["priority"]],
        max_attempts=data.get("max_attempts"),
        available_at=data.get("available_at"),
        expires_at=data.get("expires_at"),
        request_id=request_id,
        grant=identity.grant,
    )


def read_idempotency_key(headers: Mapping[str, str]) -> str | None:
    """Return the header Idempotency-Key, or None. Raises DRF's `ValidationError`."""
    key = headers.get("Idempotency-Key")
    if key is None or (1 <= len(key) <= 255 and key.isascii() and key.isprintable()):
        return key
    detail = ErrorDetail("Must be 1 to 255 printable ASCII characters.", code="invalid")
    raise ValidationError({"Idempotency-Key": [detail]})


class JobQuery(StrictSerializer[Any]):
    """Filter and pagination of the list."""

    state = serializers.ChoiceField(choices=JobState.choices, required=False)
    kind = serializers.ChoiceField(choices=JobKind.choices, required=False)
    model = serializers.CharField(required=False, max_length=200)
    idempotency_key = serializers.CharField(required=False, max_length=255)
    batch_id = serializers.CharField(
        required=False,
        max_length=64,
        help_text=f"The batch that the jobs belong to; `{WITHOUT_BATCH}`: jobs without a batch.",
    )
    created_after = serializers.DateTimeField(required=False)
    created_before = serializers.DateTimeField(required=False)
    after = serializers.CharField(required=False, max_length=64, help_text="`last_id` of the previous page.")
    limit = serializers.IntegerField(required=False, default=20, min_value=1, max_value=MAX_PAGE_SIZE)

    def to_filter(self, identity: Identity) -> JobFilter:
        filters = {name: value for name, value in self.validated_data.items() if name not in ("after", "limit")}
        return JobFilter(**filters, idempotency_scope=identity.idempotency_scope)


# Out


class JobErrorOut(serializers.Serializer[Any]):
    code = serializers.CharField()
    message = serializers.CharField()


class JobUsageOut(serializers.Serializer[UsageEvent]):
    """Tokens of the billed call. Cached tokens are part of the input, reasoning tokens of the output."""

    input_tokens = serializers.IntegerField()
    output_tokens = serializers.IntegerField()
    total_tokens = serializers.SerializerMethodField()
    cached_input_tokens = serializers.IntegerField()

    def get_total_tokens(self, event: UsageEvent) -> int:
        return event.input_tokens + event.output_tokens


class ProviderCallOut(serializers.Serializer[UsageEvent]):
    """One HTTP exchange with a provider."""

    call = serializers.IntegerField()
    provider = serializers.CharField()
    upstream_model = serializers.CharField()
    outcome = serializers.CharField()
    http_status = serializers.IntegerField(allow_null=True)
    error_kind = serializers.SerializerMethodField()
    error_code = serializers.SerializerMethodField()
    billable = serializers.BooleanField(help_text="True for the one call whose response is the result.")
    estimated = serializers.BooleanField(help_text="The provider reported no usage; the tokens are an estimate.")
    input_tokens = serializers.IntegerField()
    output_tokens = serializers.IntegerField()
    tier = serializers.CharField(help_text="The price tier: as the provider reports it, or else as requested.")
    cost_usd = serializers.SerializerMethodField()
    started_at = StrictDateTimeField()
    duration_ms = serializers.IntegerField(allow_null=True)

    def get_error_kind(self, event: UsageEvent) -> str | None:
        return event.error_kind or None

    def get_error_code(self, event: UsageEvent) -> str | None:
        return event.error_code or None

    def get_cost_usd(self, event: UsageEvent) -> str | None:
        return cost_of(event)


class AttemptOut(serializers.Serializer[AttemptHistory]):
    """One worker's attempt at the job. In progress while `ended_at` is null."""

    number = serializers.IntegerField(source="attempt.number")
    outcome = serializers.SerializerMethodField()
    started_at = StrictDateTimeField(source="attempt.started_at")
    ended_at = StrictDateTimeField(source="attempt.ended_at", allow_null=True)
    error = serializers.SerializerMethodField()
    calls = ProviderCallOut(many=True)

    def get_outcome(self, history: AttemptHistory) -> str | None:
        return history.attempt.outcome or None

    @extend_schema_field(JobErrorOut(allow_null=True))
    def get_error(self, history: AttemptHistory) -> dict[str, str] | None:
        return to_error(history.attempt)


class JobSummaryOut(serializers.Serializer[JobDetails]):
    """A job without its result and attempts."""

    id = serializers.CharField(source="job.public_id")
    object = ConstantField("job")
    kind = serializers.ChoiceField(source="job.kind", choices=JobKind.choices)
    state = serializers.ChoiceField(source="job.state", choices=JobState.choices)
    model = serializers.CharField(source="job.model")
    queue = serializers.CharField(source="job.queue")
    priority = serializers.SerializerMethodField()
    metadata = MetadataField(source="job.metadata")
    idempotency_key = serializers.CharField(source="job.idempotency_key", allow_null=True)
    created_at = StrictDateTimeField(source="job.created_at")
    available_at = StrictDateTimeField(source="job.available_at")
    expires_at = StrictDateTimeField(source="job.expires_at", allow_null=True)
    finished_at = StrictDateTimeField(source="job.finished_at", allow_null=True)
    erased_at = StrictDateTimeField(
        source="job.erased_at",
        allow_null=True,
        help_text="When body and result were erased, at the end of their retention period.",
    )
    attempt = serializers.IntegerField(source="job.attempt", help_text="Number of attempts started.")
    max_attempts = serializers.IntegerField(source="job.max_attempts")
    retry_of = serializers.SerializerMethodField()
    batch_id = serializers.SerializerMethodField(help_text="The batch that the job belongs to.")
    custom_id = serializers.SerializerMethodField()
    error = serializers.SerializerMethodField()
    usage = JobUsageOut(source="billed", allow_null=True)
    cost_usd = serializers.SerializerMethodField(
        help_text="Billed cost, as an exact decimal. Null if nothing was billed or no price is known."
    )

    @extend_schema_field(serializers.ChoiceField(choices=list(PRIORITIES)))
    def get_priority(self, view: JobDetails) -> str:
        return priority_name(view.job.priority)

    def get_retry_of(self, view: JobDetails) -> str | None:
        return to_public(Job.ID_PREFIX, view.job.retry_of_id) if view.job.retry_of_id else None

    def get_batch_id(self, view: JobDetails) -> str | None:
        return to_public(Batch.ID_PREFIX, view.job.batch_id) if view.job.batch_id else None

    def get_custom_id(self, view: JobDetails) -> str | None:
        return view.job.custom_id or None

    @extend_schema_field(JobErrorOut(allow_null=True))
    def get_error(self, view: JobDetails) -> dict[str, str] | None:
        return to_error(view.job)

    def get_cost_usd(self, view: JobDetails) -> str | None:
        return cost_of(view.billed) if view.billed else None


class JobOut(JobSummaryOut):
    """A job with its attempts and result."""

    result = JSONObjectField(
        allow_null=True,
        help_text="The response in the wire format of the job's kind, once it succeeded and until it is erased.",
    )
    attempts = AttemptOut(many=True)


def cost_of(event: UsageEvent) -> str | None:
    """Return the cost of a call as a decimal; None if no price is known (the row then has 0)."""
    return format_usd_full(event.cost_pico_usd) if event.price_version else None


def to_error(row: Job | Attempt) -> dict[str, str] | None:
    return {"code": row.error_code, "message": row.error_message} if row.error_code else None
