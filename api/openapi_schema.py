"""How drf-spectacular describes views and serializers in the OpenAPI document (DRF's DEFAULT_SCHEMA_CLASS)."""

from typing import Any

from drf_spectacular.openapi import AutoSchema


class ApiSchema(AutoSchema):
    """Takes texts of operations from `extend_schema` alone, and names components without `In` and `Out`.

    Docstrings of views are for developers of this code, so they are not published.
    """

    def get_description(self) -> str:  # type: ignore[override] # drf-spectacular changes the signature of DRF
        return ""

    def get_serializer_name(self, serializer: Any, direction: Any) -> str:
        """Return `Job` for `JobOut`. A request body, `JobIn`, becomes `JobRequest` (COMPONENT_SPLIT_REQUEST)."""
        name = type(serializer).__name__
        return name.removesuffix("In") if direction == "request" else name.removesuffix("Out")
