"""One serializer for all requests, where making a new one would be most of the work.

DRF copies every field for each new serializer, which takes longer than to store a job. A serializer that is made
without data keeps nothing of what it reads and writes, so threads may share it.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

from rest_framework.serializers import Serializer

I = TypeVar("I")  # noqa: E741 (the instance that is written)


def deserialize(kind: type[Serializer[Any]], data: Any) -> Mapping[str, Any]:
    """Return the data as this kind of serializer reads it. Raises DRF's `ValidationError`."""
    found: Mapping[str, Any] = _serializer_for(kind).run_validation(data)
    return found


def serialize(kind: type[Serializer[I]], instance: I) -> Mapping[str, Any]:
    """Return the instance as this kind of serializer shows it. It must not need a context."""
    return _serializer_for(kind).to_representation(instance)


@cache
def _serializer_for(kind: type[Serializer[Any]]) -> Serializer[Any]:
    return kind()
