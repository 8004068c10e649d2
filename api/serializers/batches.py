"""JSON of batches: OpenAI's fields and our own."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from django.conf import settings
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError

from api.serializers.errors import ErrorItemOut
from api.serializers.files import UnixSecondsField
from api.serializers.jobs import MAX_ATTEMPTS
from api.serializers.strict import (
    ConstantField,
    MetadataField,
    StrictBooleanField,
    StrictChoiceField,
    StrictIntegerField,
    StrictSerializer,
    StrictStringField,
)
from core.ids import to_public
from jobs.batches.create import BatchSubmission, parse_window
from jobs.batches.estimate import ModelEstimate
from jobs.batches.read import BatchView
from jobs.batches.requests import ENDPOINT_OF, ENDPOINTS, MAX_MEMBERS
from jobs.models import Batch, BatchState, File
from jobs.priorities import PRIORITIES, priority_name
from metering.cost import format_usd_full
from tenants.authentication import Identity

MAX_PAGE_SIZE = 100
MIN_PROGRESS_SECONDS, MAX_PROGRESS_SECONDS = 5, 86_400
MIN_RETENTION_SECONDS, MAX_RETENTION_SECONDS = 3600, 2_592_000


# In


@extend_schema_field(
    {
        "type": "array",
        "minItems": 1,
        "description": f"The requests themselves, instead of a file: at most {MAX_MEMBERS:,}, and at most "
        "MAX_BATCH_BODY_BYTES (32 MiB) in total.",
        "items": {
            "type": "object",
            "required": ["custom_id", "body"],
            "additionalProperties": False,
            "properties": {
                "custom_id": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 200,
                    "description": "Your name for the request, unique in the batch. The results carry it.",
                },
                # Same as the body of a job, which describes it in full. One full schema is enough for schema tests.
                "body": {
                    "type": "object",
                    "description": "The request body of the endpoint, without `stream`: an OpenAIChatBody, an "
                    "OpenAIEmbeddingBody or an AnthropicMessagesBody.",
                },
                "method": {"type": "string", "const": "POST"},
                "url": {"type": "string", "enum": list(ENDPOINTS)},
            },
        },
    }
)
class InlineRequestsField(serializers.Field[list[msgspec.Raw], Any, list[msgspec.Raw], Any]):
    """A list of raw requests, which `jobs.batches.requests` parses."""

    def to_internal_value(self, data: Any) -> list[msgspec.Raw]:
        if not isinstance(data, list) or not all(isinstance(item, msgspec.Raw) for item in data):
            raise ValidationError("Must be an array of requests.")
        return data


@extend_schema_field({"type": "string", "pattern": "^[1-9][0-9]{0,2}[hd]$", "default": "24h", "examples": ["24h"]})
class CompletionWindowField(StrictStringField):
    """The completion window: how long the batch may take."""

    def to_internal_value(self, data: Any) -> str:
        text = super().to_internal_value(data)
        if parse_window(text) is None:
            raise ValidationError("Must be from '1h' to '7d', such as '24h'.")
        return text


class OutputExpiryIn(StrictSerializer[Any]):
    """Retention of the output files."""

    anchor = StrictChoiceField(choices=["created_at"])
    seconds = StrictIntegerField(min_value=MIN_RETENTION_SECONDS, max_value=MAX_RETENTION_SECONDS)


class BatchIn(StrictSerializer[Any]):
    """Many requests to run. Send `input_file_id`, as OpenAI's SDKs do, or the `requests` themselves."""

    endpoint = StrictChoiceField(choices=list(ENDPOINTS), help_text="The endpoint that each request is for.")
    input_file_id = StrictStringField(
        max_length=64, required=False, allow_null=True, help_text="A file of purpose `batch`."
    )
    requests = InlineRequestsField(required=False)
    completion_window = CompletionWindowField(required=False, default="24h")
    metadata = MetadataField(required=False, allow_null=True)
    output_expires_after = OutputExpiryIn(required=False, allow_null=True)
    priority = StrictChoiceField(choices=list(PRIORITIES), default="normal")
    max_attempts = StrictIntegerField(required=False, allow_null=True, min_value=1, max_value=MAX_ATTEMPTS)
    progress_seconds = StrictIntegerField(
        required=False,
        allow_null=True,
        min_value=MIN_PROGRESS_SECONDS,
        max_value=MAX_PROGRESS_SECONDS,
        help_text="Send `batch.progress` webhooks, at most one per this many seconds.",
    )
    dry_run = StrictBooleanField(default=False, help_text="Store nothing; return an estimate of tokens and cost.")

    def validate(self, attrs: Mapping[str, Any]) -> Mapping[str, Any]:
        if (attrs.get("input_file_id") is None) == ("requests" not in attrs):
            detail = ErrorDetail("Send either input_file_id or requests.", code="required")
            raise ValidationError({"input_file_id": [detail]})
        return attrs

    @property
    def is_dry_run(self) -> bool:
        return bool(self.validated_data["dry_run"])

    def to_submission(self, identity: Identity, idempotency_key: str | None, request_id: str) -> BatchSubmission:
        data: Mapping[str, Any] = self.validated_data
        return BatchSubmission(
            kind=ENDPOINTS[data["endpoint"]],
            input_file_id=data.get("input_file_id"),
            requests=data.get("requests", ()),
            completion_window=data["completion_window"],
            metadata=data.get("metadata") or {},
            priority=PRIORITIES[data["priority"]],
            max_attempts=data.get("max_attempts"),
            progress_seconds=data.get("progress_seconds"),
            output_expires_seconds=(data.get("output_expires_after") or {}).get("seconds"),
            idempotency_key=idempotency_key,
            idempotency_scope=identity.idempotency_scope,
            request_id=request_id,
            grant=identity.grant,
        )


class BatchQuery(StrictSerializer[Any]):
    """Pagination of the list."""

    after = serializers.CharField(required=False, max_length=64, help_text="`last_id` of the previous page.")
    limit = serializers.IntegerField(required=False, default=20, min_value=1, max_value=MAX_PAGE_SIZE)


# Out


class ErrorListOut(serializers.Serializer[Any]):
    object = ConstantField("list")
    data = ErrorItemOut(many=True)  # type: ignore[assignment] # DRF takes fields off the class


class RequestCountsOut(serializers.Serializer[Any]):
    """Counts as OpenAI defines them. `failed` counts all without a response: the lines of the error file."""

    total = serializers.IntegerField(source="batch.total")
    completed = serializers.IntegerField(source="counts.succeeded")
    failed = serializers.IntegerField(source="counts.unsuccessful")


class BatchCountsOut(serializers.Serializer[Any]):
    """The requests by the state of their jobs."""

    queued = serializers.IntegerField()
    running = serializers.IntegerField()
    succeeded = serializers.IntegerField()
    failed = serializers.IntegerField()
    canceled = serializers.IntegerField()
    expired = serializers.IntegerField()


class InputTokenDetailsOut(serializers.Serializer[Any]):
    cached_tokens = serializers.IntegerField(source="cached_input_tokens")


class OutputTokenDetailsOut(serializers.Serializer[Any]):
    reasoning_tokens = serializers.IntegerField()


class BatchUsageOut(serializers.Serializer[Any]):
    """Tokens of the billed calls so far."""

    input_tokens = serializers.IntegerField()
    input_tokens_details = InputTokenDetailsOut(source="*")
    output_tokens = serializers.IntegerField()
    output_tokens_details = OutputTokenDetailsOut(source="*")
    total_tokens = serializers.SerializerMethodField()

    def get_total_tokens(self, usage: Any) -> int:
        return int(usage.input_tokens + usage.output_tokens)


class BatchOut(serializers.Serializer[BatchView]):
    """A batch: OpenAI's fields first, then our own."""

    id = serializers.CharField(source="batch.public_id")
    object = ConstantField("batch")
    endpoint = serializers.SerializerMethodField()
    errors = serializers.SerializerMethodField(  # type: ignore[assignment] # DRF takes fields off the class
        help_text="Why its input file was rejected: the first hundred errors."
    )
    input_file_id = serializers.SerializerMethodField(help_text="Null if the requests were sent inline.")
    completion_window = serializers.CharField(source="batch.completion_window")
    status = serializers.ChoiceField(source="batch.state", choices=BatchState.choices)
    output_file_id = serializers.SerializerMethodField(
        help_text="Successful results. Null until the batch finishes, or if there are none."
    )
    error_file_id = serializers.SerializerMethodField(
        help_text="Requests that did not succeed. Null until the batch finishes, or if there are none."
    )
    created_at = UnixSecondsField(source="batch.created_at")
    in_progress_at = UnixSecondsField(source="batch.in_progress_at", allow_null=True)
    expires_at = UnixSecondsField(source="batch.expires_at")
    finalizing_at = UnixSecondsField(source="batch.finalizing_at", allow_null=True)
    completed_at = UnixSecondsField(source="batch.completed_at", allow_null=True)
    failed_at = UnixSecondsField(source="batch.failed_at", allow_null=True)
    expired_at = UnixSecondsField(source="batch.expired_at", allow_null=True)
    cancelling_at = UnixSecondsField(source="batch.cancelling_at", allow_null=True)
    cancelled_at = UnixSecondsField(source="batch.cancelled_at", allow_null=True)
    request_counts = RequestCountsOut(source="*")
    metadata = MetadataField(source="batch.metadata")
    model = serializers.SerializerMethodField(help_text="Null if the requests are for several models.")
    usage = BatchUsageOut()

    counts = BatchCountsOut()
    cost_usd = serializers.SerializerMethodField(
        help_text="Billed so far, as an exact decimal. Null if no price is known."
    )
    priority = serializers.SerializerMethodField()
    max_attempts = serializers.IntegerField(source="batch.max_attempts")
    progress_seconds = serializers.IntegerField(source="batch.progress_seconds", allow_null=True)
    paused = serializers.BooleanField(source="is_paused")
    retry_of = serializers.SerializerMethodField()
    results_url = serializers.SerializerMethodField()

    @extend_schema_field(serializers.ChoiceField(choices=list(ENDPOINTS)))
    def get_endpoint(self, view: BatchView) -> str:
        return ENDPOINT_OF[view.batch.kind]  # type: ignore[index] # the column holds no other

    @extend_schema_field(ErrorListOut(allow_null=True))
    def get_errors(self, view: BatchView) -> dict[str, Any] | None:
        return {"object": "list", "data": view.batch.errors} if view.batch.errors else None

    def get_input_file_id(self, view: BatchView) -> str | None:
        return _file_id(view.batch.input_file_id)

    def get_output_file_id(self, view: BatchView) -> str | None:
        return _file_id(view.batch.output_file_id)

    def get_error_file_id(self, view: BatchView) -> str | None:
        return _file_id(view.batch.error_file_id)

    def get_model(self, view: BatchView) -> str | None:
        return view.batch.model or None

    def get_cost_usd(self, view: BatchView) -> str | None:
        return _usd(view.usage.cost_pico_usd)

    @extend_schema_field(serializers.ChoiceField(choices=list(PRIORITIES)))
    def get_priority(self, view: BatchView) -> str:
        return priority_name(view.batch.priority)

    def get_retry_of(self, view: BatchView) -> str | None:
        return to_public(Batch.ID_PREFIX, view.batch.retry_of_id) if view.batch.retry_of_id else None

    def get_results_url(self, view: BatchView) -> str:
        return f"{settings.BASE_URL}/v1/batches/{view.batch.public_id}/results"


class CostRangeOut(serializers.Serializer[Any]):
    """Exact decimals: the cost with empty responses, and with responses of the maximum length."""

    low = serializers.CharField(allow_null=True)
    high = serializers.CharField(allow_null=True, help_text="Null if a request does not limit its response.")


class ModelEstimateOut(serializers.Serializer[Any]):
    model = serializers.CharField()
    requests = serializers.IntegerField()
    input_tokens = serializers.IntegerField()
    max_output_tokens = serializers.IntegerField(allow_null=True)
    cost_usd = CostRangeOut()


class BatchEstimateOut(serializers.Serializer[Any]):
    """Estimated tokens and cost of a batch. The token estimate errs on the high side."""

    object = ConstantField("batch.estimate")
    endpoint = serializers.ChoiceField(choices=list(ENDPOINTS))
    requests = serializers.IntegerField()
    input_tokens = serializers.IntegerField()
    max_output_tokens = serializers.IntegerField(
        allow_null=True,
        help_text="The sum of the limits of all responses. Null if a request does not limit its response.",
    )
    unbounded_requests = serializers.IntegerField(help_text="Requests without `max_tokens` or an equivalent.")
    cost_usd = CostRangeOut()
    unpriced_models = serializers.ListField(
        child=serializers.CharField(), help_text="Models without a price; not included in the cost."
    )
    models = ModelEstimateOut(many=True)


def estimate_to_wire(endpoint: str, estimates: Sequence[ModelEstimate]) -> dict[str, Any]:
    """Return the JSON of an estimate: the models and their sum."""
    unbounded = sum(model.unbounded for model in estimates)
    priced = [model for model in estimates if model.price is not None]
    low, high = sum(model.low_pico_usd for model in priced), sum(model.high_pico_usd for model in priced)
    is_bounded = not unbounded and len(priced) == len(estimates)
    return {
        "object": "batch.estimate",
        "endpoint": endpoint,
        "requests": sum(model.requests for model in estimates),
        "input_tokens": sum(model.input_tokens for model in estimates),
        "max_output_tokens": None if unbounded else sum(model.max_output_tokens for model in estimates),
        "unbounded_requests": unbounded,
        "cost_usd": {"low": _usd(low) if priced else None, "high": _usd(high) if is_bounded else None},
        "unpriced_models": [model.model for model in estimates if model.price is None],
        "models": [_model_to_wire(model) for model in estimates],
    }


def _model_to_wire(estimate: ModelEstimate) -> dict[str, Any]:
    is_priced = estimate.price is not None
    return {
        "model": estimate.model,
        "requests": estimate.requests,
        "input_tokens": estimate.input_tokens,
        "max_output_tokens": None if estimate.unbounded else estimate.max_output_tokens,
        "cost_usd": {
            "low": _usd(estimate.low_pico_usd) if is_priced else None,
            "high": _usd(estimate.high_pico_usd) if is_priced and not estimate.unbounded else None,
        },
    }


def _usd(pico_usd: int | None) -> str | None:
    return None if pico_usd is None else format_usd_full(pico_usd)


def _file_id(file_id: Any) -> str | None:
    return to_public(File.ID_PREFIX, file_id) if file_id else None
