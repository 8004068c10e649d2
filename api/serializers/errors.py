"""The one body of all errors, for the OpenAPI document. `api.errors` writes it."""

from typing import Any

from rest_framework import serializers


class ErrorDetailOut(serializers.Serializer[Any]):
    """What is wrong."""

    type = serializers.CharField(help_text="The kind of error, like `invalid_request_error`.")
    code = serializers.CharField(help_text="Stable, for programs.")
    message = serializers.CharField(help_text="For people; the wording may change.")
    param = serializers.CharField(allow_null=True, help_text="Which part of the request it is about.")
    request_id = serializers.CharField(help_text="Also in the header X-Request-ID, and on every log line.")


class ErrorOut(serializers.Serializer[Any]):
    """Every error of this API."""

    error = ErrorDetailOut()
