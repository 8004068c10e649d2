"""JSON of errors, for the OpenAPI document only. `api.error_responses` writes it."""

from typing import Any

from rest_framework import serializers


class ErrorItemOut(serializers.Serializer[Any]):
    """One error of a batch."""

    code = serializers.CharField()
    message = serializers.CharField()
    param = serializers.CharField(allow_null=True)
    line = serializers.IntegerField(allow_null=True, help_text="Line of the input file, counted from 1.")


class ErrorDetailOut(serializers.Serializer[Any]):
    """The error."""

    type = serializers.CharField(help_text="The kind of error, like `invalid_request_error`.")
    code = serializers.CharField(help_text="Stable, for programs.")
    message = serializers.CharField(help_text="For people; the wording may change.")
    param = serializers.CharField(allow_null=True, help_text="The part of the request that is wrong.")
    request_id = serializers.CharField(help_text="Also in the header X-Request-ID, and on every log line.")
    errors = ErrorItemOut(  # type: ignore[assignment] # DRF takes fields off the class
        many=True, required=False, help_text="For a batch: all errors, up to a hundred."
    )


class ErrorOut(serializers.Serializer[Any]):
    """Every error of this API."""

    error = ErrorDetailOut()
