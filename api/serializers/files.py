"""JSON of files, as OpenAI defines it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from api.serializers.strict import ConstantField, StrictSerializer
from jobs.files.store import DEFAULT_TTL_SECONDS
from jobs.models import File, FilePurpose

ANCHOR, SECONDS = "expires_after[anchor]", "expires_after[seconds]"
MIN_RETENTION_SECONDS = 3600
MAX_PAGE_SIZE = 10_000

#: The form, for the OpenAPI document: a serializer cannot declare a field with brackets in its name.
FILE_FORM: dict[str, Any] = {
    "type": "object",
    "required": ["file", "purpose"],
    "properties": {
        "file": {
            "type": "string",
            "contentMediaType": "application/octet-stream",
            "description": "JSON lines: one request per line, with `custom_id`, `method`, `url` and `body`.",
        },
        "purpose": {"type": "string", "enum": [FilePurpose.BATCH.value]},
        ANCHOR: {"type": "string", "enum": ["created_at"]},
        SECONDS: {
            "type": "integer",
            "minimum": MIN_RETENTION_SECONDS,
            "maximum": DEFAULT_TTL_SECONDS,
            "description": "How long the file is stored. The default is 30 days.",
        },
    },
}


class FileIn(StrictSerializer[Any]):
    """The fields of the form apart from the file."""

    purpose = serializers.CharField()

    def get_fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = super().get_fields()
        fields[ANCHOR] = serializers.ChoiceField(choices=["created_at"], required=False)
        fields[SECONDS] = serializers.IntegerField(
            min_value=MIN_RETENTION_SECONDS, max_value=DEFAULT_TTL_SECONDS, required=False
        )
        return fields

    def validate_purpose(self, purpose: str) -> str:
        if purpose != FilePurpose.BATCH:
            raise serializers.ValidationError("Must be 'batch': files are stored for batches only.")
        return purpose

    def validate(self, attrs: Mapping[str, Any]) -> Mapping[str, Any]:
        for present, missing in ((ANCHOR, SECONDS), (SECONDS, ANCHOR)):
            if present in attrs and missing not in attrs:
                raise serializers.ValidationError({missing: f"Required together with {present}."}, code="required")
        return attrs

    @property
    def ttl_seconds(self) -> int | None:
        seconds: int | None = self.validated_data.get(SECONDS)
        return seconds


class FileQuery(StrictSerializer[Any]):
    """Filter, order and pagination of the list."""

    purpose = serializers.ChoiceField(choices=FilePurpose.choices, required=False)
    after = serializers.CharField(required=False, max_length=64, help_text="`last_id` of the previous page.")
    limit = serializers.IntegerField(required=False, default=MAX_PAGE_SIZE, min_value=1, max_value=MAX_PAGE_SIZE)
    order = serializers.ChoiceField(
        choices=["desc", "asc"], default="desc", help_text="By creation time; `desc` is newest first."
    )


@extend_schema_field({"type": "integer"})
class UnixSecondsField(serializers.Field[datetime, Any, int, Any]):
    """A time in Unix seconds, as in OpenAI's API."""

    def to_representation(self, value: datetime) -> int:
        return int(value.timestamp())


class FileOut(serializers.Serializer[File]):
    """A file, without its content."""

    id = serializers.CharField(source="public_id")
    object = ConstantField("file")
    bytes = serializers.IntegerField()
    created_at = UnixSecondsField()
    expires_at = UnixSecondsField(allow_null=True)
    filename = serializers.CharField()
    purpose = serializers.ChoiceField(choices=FilePurpose.choices)
    status = ConstantField("processed")


class DeletedFileOut(serializers.Serializer[Any]):
    id = serializers.CharField()
    object = ConstantField("file")
    deleted = serializers.BooleanField()
