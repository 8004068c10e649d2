"""Shared serializer instances, for requests whose time would mostly go into creating a serializer.

DRF copies every field for each new serializer, which takes longer than storing a job. A serializer that is created
without data keeps no state between calls, so threads may share it.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

from rest_framework.serializers import Serializer

I = TypeVar("I")  # noqa: E741 (the instance that is written)


def deserialize(kind: type[Serializer[Any]], data: Any) -> Mapping[str, Any]:
    """Return the data, validated by this serializer class. Raises DRF's `ValidationError`."""
    validated: Mapping[str, Any] = _serializer_for(kind).run_validation(data)
    return validated


def serialize(kind: type[Serializer[I]], instance: I) -> Mapping[str, Any]:
    """Return the representation of the instance. The serializer class must not need a context."""
    return _serializer_for(kind).to_representation(instance)


@cache
def _serializer_for(kind: type[Serializer[Any]]) -> Serializer[Any]:
    return kind()
