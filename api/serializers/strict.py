"""Strict serializer fields: they accept only the JSON type that they declare, without coercion."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar

from drf_spectacular.drainage import set_override
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError

I = TypeVar("I")  # noqa: E741 (the instance that is serialized)


class StrictSerializer(serializers.Serializer[I]):
    """A serializer that rejects unknown fields instead of ignoring them."""

    def to_internal_value(self, data: Any) -> Any:
        unknown = sorted(set(data) - set(self.fields)) if isinstance(data, Mapping) else []
        if unknown:
            known = ", ".join(sorted(self.fields))
            detail = ErrorDetail(f"Unknown field. Known fields: {known}.", code="unknown")
            raise ValidationError({str(unknown[0])[:60]: [detail]})
        return super().to_internal_value(data)


class StrictStringField(serializers.CharField):
    """A JSON string; numbers are not converted."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            raise ValidationError("Must be a string.")
        return super().to_internal_value(data)


class StrictChoiceField(serializers.ChoiceField):
    """One of a few strings."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str):
            raise ValidationError("Must be a string.")
        if data not in self.choices:
            raise ValidationError(f"Must be one of {', '.join(map(str, self.choices))}.")
        return super().to_internal_value(data)


class StrictIntegerField(serializers.IntegerField):
    """A JSON integer; strings and booleans are not converted."""

    def to_internal_value(self, data: Any) -> int:
        if type(data) is not int:
            raise ValidationError("Must be a whole number.")
        return super().to_internal_value(data)


class StrictBooleanField(serializers.BooleanField):
    """true or false; strings and numbers are not converted."""

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            raise ValidationError("Must be true or false.")
        return data


class StrictDateTimeField(serializers.DateTimeField):
    """A date and time in ISO 8601. It is serialized in UTC, with a `Z`."""

    def to_internal_value(self, value: Any) -> datetime:
        if not isinstance(value, str):
            raise ValidationError("Must be a date and time in ISO 8601, like 2026-11-21T09:00:00Z.")
        return super().to_internal_value(value)


@extend_schema_field({"type": "object", "additionalProperties": True})
class JSONObjectField(serializers.Field[dict[str, Any], Any, dict[str, Any], Any]):
    """A JSON object whose content is not validated here."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict):
            raise ValidationError("Must be an object.")
        return data

    def to_representation(self, value: dict[str, Any]) -> dict[str, Any]:
        return value


MAX_METADATA_PAIRS, MAX_METADATA_KEY_LENGTH, MAX_METADATA_VALUE_LENGTH = 16, 64, 512


@extend_schema_field(
    {
        "type": "object",
        "maxProperties": MAX_METADATA_PAIRS,
        "additionalProperties": {"type": "string", "maxLength": MAX_METADATA_VALUE_LENGTH},
        "description": "Your own key-value data, returned with the job. "
        f"Keys have 1 to {MAX_METADATA_KEY_LENGTH} characters.",
    }
)
class MetadataField(serializers.Field[dict[str, str], Any, dict[str, str], Any]):
    """Key-value pairs of strings."""

    def to_internal_value(self, data: Any) -> dict[str, str]:
        if not isinstance(data, dict) or len(data) > MAX_METADATA_PAIRS:
            raise ValidationError(f"Must be an object of at most {MAX_METADATA_PAIRS} strings.")
        for key, value in data.items():
            if not 1 <= len(key) <= MAX_METADATA_KEY_LENGTH:
                raise ValidationError(f"Keys have 1 to {MAX_METADATA_KEY_LENGTH} characters.")
            if not isinstance(value, str) or len(value) > MAX_METADATA_VALUE_LENGTH:
                raise ValidationError({key: f"Must be a string of at most {MAX_METADATA_VALUE_LENGTH} characters."})
        return data

    def to_representation(self, value: dict[str, str]) -> dict[str, str]:
        return value


class ConstantField(serializers.ReadOnlyField):
    """A constant in every response, like `"object": "job"`."""

    def __init__(self, value: str) -> None:
        super().__init__(source="*")
        self.value = value
        set_override(self, "field", {"type": "string", "const": value})

    def to_representation(self, value: object) -> str:
        return self.value
