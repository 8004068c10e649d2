"""The one body of all errors, for the OpenAPI document. `api.error_responses` writes it."""

from typing import Any

from rest_framework import serializers


class ErrorItemOut(serializers.Serializer[Any]):
    """One of many."""

    code = serializers.CharField()
    message = serializers.CharField()
    param = serializers.CharField(allow_null=True)
    line = serializers.IntegerField(allow_null=True, help_text="In the file, counted from 1.")


class ErrorDetailOut(serializers.Serializer[Any]):
    """What is wrong."""

    type = serializers.CharField(help_text="The kind of error, like `invalid_request_error`.")
    code = serializers.CharField(help_text="Stable, for programs.")
    message = serializers.CharField(help_text="For people; the wording may change.")
    param = serializers.CharField(allow_null=True, help_text="Which part of the request it is about.")
    request_id = serializers.CharField(help_text="Also in the header X-Request-ID, and on every log line.")
    errors = ErrorItemOut(  # type: ignore[assignment] # DRF takes fields off the class
        many=True, required=False, help_text="Of a batch: everything that is wrong, up to a hundred."
    )


class ErrorOut(serializers.Serializer[Any]):
    """Every error of this API."""

    error = ErrorDetailOut()
