"""Adds the live operations to the OpenAPI document, because drf-spectacular sees only Django's views."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from api.errors import ERROR_TABLE, PASSTHROUGH_STATUSES, ApiProblem, code_of, mapping_for
from api.live import response_schemas
from api.live.openapi_operations import LIVE_OPERATIONS, LiveOperation
from api.live.wire_formats import WireFormat, status_for
from api.openapi import SECURITY, STATUS_DESCRIPTIONS
from providers.dialects import anthropic_wire, openai_wire
from providers.dialects.envelope import EnvelopeBody

Schema: TypeAlias = dict[str, Any]

JSON, EVENTS, TEXT = "application/json", "text/event-stream", "text/plain"

#: Our code for a request that the provider rejects, whatever its status.
REJECTED = "rejected"
LIVE_TITLES = {
    429: "Rate limit exceeded; retry after `Retry-After` seconds",
    502: "The provider failed, or the process that served the stream was lost",
    504: "The provider did not answer in time",
    529: "The provider is overloaded",
}

TAGS = [
    {"name": "Live", "description": "Complete and streamed answers, in the dialects of OpenAI and Anthropic."},
    {"name": "Streams", "description": "Streams that other clients can read and resume; also over `/v1/ws`."},
]


def add_live_operations(result: Schema, generator: Any, request: Any, public: bool) -> Schema:
    """Add the live operations to the document (a postprocessing hook of drf-spectacular)."""
    for section, found in COMPONENTS.items():
        result["components"].setdefault(section, {}).update(found)
    schemas = _SchemaRegistry()
    for live_operation in LIVE_OPERATIONS:
        result["paths"].setdefault(live_operation.path, {})[live_operation.method.lower()] = _operation(
            live_operation, schemas
        )
    result["components"]["schemas"].update(schemas.components)
    result["tags"] = [*TAGS, *result.get("tags", ())]
    return result


class _SchemaRegistry:
    """Maps structs to references to their schemas."""

    def __init__(self) -> None:
        self._known: dict[Any, Schema] = {}
        self.components: dict[str, Schema] = {}
        for prefix, structs in _structs().items():
            template = f"#/components/schemas/{prefix}{{name}}"
            found, components = msgspec.json.schema_components(structs, ref_template=template)
            prefixed = {f"{prefix}{name}": schema for name, schema in components.items()}
            found, prefixed = _without_doubled(prefix, (found, prefixed))
            self._known.update(zip(structs, found, strict=True))
            self.components.update(prefixed)

    def of(self, kinds: Any) -> Schema:
        found = [self._known[kind] for kind in _union_members(kinds)]
        return found[0] if len(found) == 1 else {"anyOf": found}


def _without_doubled(prefix: str, schemas: Any) -> Any:
    """Rename `OpenAIOpenAIUserMessage` to `OpenAIUserMessage`: some structs have the prefix in their own name."""
    return msgspec.json.decode(msgspec.json.encode(schemas).replace(f"{prefix}{prefix}".encode(), prefix.encode()))


def _structs() -> Mapping[str, Sequence[Any]]:
    """Return all structs by the prefix of their schema names, because two dialects share words."""
    wires = {
        "OpenAI": (openai_wire.ChatBody, openai_wire.EmbeddingBody, EnvelopeBody),
        "Anthropic": (anthropic_wire.MessagesBody, anthropic_wire.CountTokensBody),
    }
    answers = {
        kind: None
        for live_operation in LIVE_OPERATIONS
        if live_operation.response is not None
        for kind in _union_members(live_operation.response)
    }
    return {**wires, "Live": (*answers, response_schemas.OpenAIError, response_schemas.AnthropicError)}


def _union_members(kinds: Any) -> tuple[Any, ...]:
    return getattr(kinds, "__args__", None) or (kinds,)


def _operation(live_operation: LiveOperation, schemas: _SchemaRegistry) -> Schema:
    operation: Schema = {
        "operationId": live_operation.name,
        "summary": live_operation.summary,
        "tags": [live_operation.tag],
    }
    if live_operation.description:
        operation["description"] = live_operation.description
    if live_operation.parameters:
        operation["parameters"] = [{"$ref": f"#/components/parameters/{name}"} for name in live_operation.parameters]
    if live_operation.body is not None:
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": schemas.of(live_operation.body)}}}
    if not live_operation.is_public:
        operation["security"] = SECURITY
    return {
        **operation,
        "responses": {**_success_responses(live_operation, schemas), **_error_responses(live_operation, schemas)},
    }


def _success_responses(live_operation: LiveOperation, schemas: _SchemaRegistry) -> Schema:
    content: Schema = {} if live_operation.response is None else {JSON: {"schema": schemas.of(live_operation.response)}}
    if live_operation.streams:
        content[EVENTS] = {"schema": {"type": "string"}}
    answer = {
        "description": "",
        "headers": _headers(live_operation),
        "content": content or {TEXT: {"schema": {"type": "string"}}},
    }
    # 200: the stream had already ended.
    statuses = (200, 202) if live_operation.name == "cancel_stream" else (live_operation.status,)
    return {str(status): answer for status in statuses}


def _headers(live_operation: LiveOperation) -> Schema:
    names = ["X-Request-ID", "X-Nightdesk-Overhead-Ms", "Server-Timing"]
    if "CacheControl" in live_operation.parameters:
        names.append("X-Cache")
    if "IdempotencyKey" in live_operation.parameters:
        names.append("Idempotent-Replayed")
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _error_responses(live_operation: LiveOperation, schemas: _SchemaRegistry) -> Schema:
    codes: dict[int, set[str]] = defaultdict(set)
    for error in live_operation.errors:
        for status, code in _statuses_and_codes(live_operation.wire, error):
            codes[status].add(code)
    kinds: Any = (
        response_schemas.AnthropicError if live_operation.wire is WireFormat.ANTHROPIC else response_schemas.OpenAIError
    )
    if "AnthropicVersion" in live_operation.parameters and live_operation.wire is not WireFormat.ANTHROPIC:
        kinds = response_schemas.OpenAIError | response_schemas.AnthropicError
    content = {JSON: {"schema": schemas.of(kinds)}}
    return {
        str(status): {"description": _describe(status, codes[status]), "content": content} for status in sorted(codes)
    }


def _statuses_and_codes(wire: WireFormat, error: type[BaseException]) -> Iterator[tuple[int, str]]:
    """Yield the statuses and codes of an error class and of its subclasses."""
    row, code = mapping_for(error), code_of(error)
    if row is not ERROR_TABLE[Exception]:
        for status in (row.status, *PASSTHROUGH_STATUSES.get(error, ())):
            yield status_for(wire, ApiProblem(status, row.type, code, "")), code
    for kind in error.__subclasses__():
        yield from _statuses_and_codes(wire, kind)


def _describe(status: int, codes: set[str]) -> str:
    title = LIVE_TITLES.get(status) or STATUS_DESCRIPTIONS[status]
    if REJECTED in codes:
        title += ", or the provider rejects it"
    # "None" and "error" are base classes, and classes whose instances carry a code.
    named = sorted(codes - {"None", "error"})
    return f"{title} ({', '.join(named)})" if named else title


def _request_header(name: str, description: str, **schema: Any) -> Schema:
    return {"name": name, "in": "header", "description": description, "schema": {"type": "string", **schema}}


def _query_parameter(name: str, description: str, **schema: Any) -> Schema:
    return {"name": name, "in": "query", "description": description, "schema": {"type": "string", **schema}}


def _path_parameter(name: str, description: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "description": description, "schema": {"type": "string"}}


def _response_header(description: str, **schema: Any) -> Schema:
    return {"description": description, "schema": {"type": "string", **schema}}


COMPONENTS: Mapping[str, Schema] = {
    "parameters": {
        "IdempotencyKey": _request_header(
            "Idempotency-Key",
            "Identifies this request: a retry with the same body gets the same answer; with another body, 422.",
            minLength=1,
            maxLength=255,
        ),
        "XClientRequestID": _request_header(
            "X-Client-Request-ID", "The same as Idempotency-Key; returned in the response.", maxLength=255
        ),
        "CacheControl": _request_header("Cache-Control", "`no-store` or `no-cache`: do not use the response cache."),
        "XNightdeskContinue": _request_header(
            "X-Nightdesk-Continue",
            "`true`: if the stream is cut, the next provider continues it. One event then has "
            '`"nightdesk": {"continued_by": "<provider>"}`.',
            enum=["true"],
        ),
        "XTicketOrigin": _request_header("X-Ticket-Origin", "The origin whose pages may use the ticket."),
        "AnthropicVersion": _request_header("anthropic-version", "Anthropic's API version, such as `2023-06-01`."),
        "AnthropicBeta": _request_header("anthropic-beta", "Forwarded to providers of Anthropic's dialect."),
        "LastEventID": _request_header("Last-Event-ID", "Resume after the event with this `id`."),
        "After": _query_parameter(
            "after", "The same as Last-Event-ID, for clients that cannot send headers; the number alone also works."
        ),
        "Dialect": _query_parameter(
            "dialect",
            "The dialect of the body and the events. Default: `anthropic` with `anthropic-version`, else `openai`.",
            enum=["openai", "anthropic", "wordpress", "envelope"],
        ),
        "Limit": _query_parameter(
            "limit", "Anthropic's dialect: models per page.", type="integer", minimum=1, maximum=1000
        ),
        "AfterID": _query_parameter("after_id", "Anthropic's dialect: the page after this model."),
        "BeforeID": _query_parameter("before_id", "Anthropic's dialect: the page before this model."),
        "StreamID": _path_parameter("stream_id", "`stm_…`"),
        "JobID": _path_parameter("job_id", "`job_…`"),
        "Model": _path_parameter("model", "A name from the list of models; it may contain slashes."),
    },
    "headers": {
        "X-Request-ID": _response_header("`req_…`: also in the gateway's logs and usage records."),
        "X-Nightdesk-Overhead-Ms": _response_header(
            "Time the gateway itself added before the response began.", type="number"
        ),
        "Server-Timing": _response_header("`nightdesk` and `upstream`, in milliseconds."),
        "X-Cache": _response_header("Cache hit or miss; absent if the cache was not consulted.", enum=["HIT", "MISS"]),
        "Idempotent-Replayed": _response_header(
            "`true`: the response belongs to an earlier request with the same key.", enum=["true"]
        ),
    },
}
