"""The types of an ASGI application and of what it is called with."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

ASGIScope: TypeAlias = dict[str, Any]
ASGIMessage: TypeAlias = Mapping[str, Any]
ASGIReceive: TypeAlias = Callable[[], Awaitable[ASGIMessage]]
ASGISend: TypeAlias = Callable[[ASGIMessage], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[ASGIScope, ASGIReceive, ASGISend], Awaitable[None]]
