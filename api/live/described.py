"""The live addresses in the OpenAPI document: no view of Django's answers them, so this writes it for them."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from api.errors import PASSED_ON, TABLE, Problem, code_of, row_of
from api.live import shapes
from api.live.addresses import LIVE, Live
from api.live.edges import Wire, status_for
from api.schema import SECURED, TITLES
from providers.dialects import anthropic_wire, openai_wire
from providers.dialects.envelope import EnvelopeBody

Schema: TypeAlias = dict[str, Any]

JSON, EVENTS, TEXT = "application/json", "text/event-stream", "text/plain"

#: Our code for what a provider refuses, whatever its status.
REFUSED = "rejected"
LIVE_TITLES = {
    429: "A limit is reached; come back after `Retry-After` seconds",
    502: "The provider failed, or the process that served the stream was lost",
    504: "The provider took too long",
    529: "The provider is overloaded",
}

TAGS = [
    {"name": "Live", "description": "Answers as they are typed, in the dialects of OpenAI and Anthropic."},
    {"name": "Streams", "description": "What is typed can be read by somebody else, and again. Also over `/v1/ws`."},
]


def add_live(result: Schema, generator: Any, request: Any, public: bool) -> Schema:
    """Put the live addresses into the document (a postprocessing hook of drf-spectacular)."""
    for section, found in COMPONENTS.items():
        result["components"].setdefault(section, {}).update(found)
    schemas = _Schemas()
    for live in LIVE:
        result["paths"].setdefault(live.path, {})[live.method.lower()] = _operation(live, schemas)
    result["components"]["schemas"].update(schemas.components)
    result["tags"] = [*TAGS, *result.get("tags", ())]
    return result


class _Schemas:
    """Looks up how a struct is referred to."""

    def __init__(self) -> None:
        self._known: dict[Any, Schema] = {}
        self.components: dict[str, Schema] = {}
        for prefix, structs in _structs().items():
            template = f"#/components/schemas/{prefix}{{name}}"
            found, components = msgspec.json.schema_components(structs, ref_template=template)
            self._known.update(zip(structs, found, strict=True))
            self.components.update({f"{prefix}{name}": schema for name, schema in components.items()})

    def of(self, kinds: Any) -> Schema:
        found = [self._known[kind] for kind in _members(kinds)]
        return found[0] if len(found) == 1 else {"anyOf": found}


def _structs() -> Mapping[str, Sequence[Any]]:
    """Return all structs by the prefix of their names: two dialects have words in common."""
    wires = {
        "OpenAI": (openai_wire.ChatBody, openai_wire.EmbeddingBody, EnvelopeBody),
        "Anthropic": (anthropic_wire.MessagesBody, anthropic_wire.CountBody),
    }
    answers = {kind: None for live in LIVE if live.answer is not None for kind in _members(live.answer)}
    return {**wires, "Live": (*answers, shapes.OpenAIError, shapes.AnthropicError)}


def _members(kinds: Any) -> tuple[Any, ...]:
    return getattr(kinds, "__args__", None) or (kinds,)


def _operation(live: Live, schemas: _Schemas) -> Schema:
    operation: Schema = {"operationId": live.name, "summary": live.summary, "tags": [live.tag]}
    if live.description:
        operation["description"] = live.description
    if live.parameters:
        operation["parameters"] = [{"$ref": f"#/components/parameters/{name}"} for name in live.parameters]
    if live.body is not None:
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": schemas.of(live.body)}}}
    if not live.is_open:
        operation["security"] = SECURED
    return {**operation, "responses": {**_answers(live, schemas), **_refusals(live, schemas)}}


def _answers(live: Live, schemas: _Schemas) -> Schema:
    content: Schema = {} if live.answer is None else {JSON: {"schema": schemas.of(live.answer)}}
    if live.streams:
        content[EVENTS] = {"schema": {"type": "string"}}
    answer = {
        "description": "",
        "headers": _headers(live),
        "content": content or {TEXT: {"schema": {"type": "string"}}},
    }
    # What is canceled may have ended before.
    statuses = (200, 202) if live.name == "cancel_stream" else (live.status,)
    return {str(status): answer for status in statuses}


def _headers(live: Live) -> Schema:
    names = ["X-Request-ID", "X-Nightdesk-Overhead-Ms", "Server-Timing"]
    if "CacheControl" in live.parameters:
        names.append("X-Cache")
    if "IdempotencyKey" in live.parameters:
        names.append("Idempotent-Replayed")
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _refusals(live: Live, schemas: _Schemas) -> Schema:
    codes: dict[int, set[str]] = defaultdict(set)
    for error in live.errors:
        for status, code in _told(live.wire, error):
            codes[status].add(code)
    kinds: Any = shapes.AnthropicError if live.wire is Wire.ANTHROPIC else shapes.OpenAIError
    if "AnthropicVersion" in live.parameters and live.wire is not Wire.ANTHROPIC:
        kinds = shapes.OpenAIError | shapes.AnthropicError
    content = {JSON: {"schema": schemas.of(kinds)}}
    return {
        str(status): {"description": _describe(status, codes[status]), "content": content} for status in sorted(codes)
    }


def _told(wire: Wire, error: type[BaseException]) -> Iterator[tuple[int, str]]:
    """Yield as which status and code an error is told, and all that are of its kind."""
    row, code = row_of(error), code_of(error)
    if row is not TABLE[Exception]:
        for status in (row.status, *PASSED_ON.get(error, ())):
            yield status_for(wire, Problem(status, row.type, code, "")), code
    for kind in error.__subclasses__():
        yield from _told(wire, kind)


def _describe(status: int, codes: set[str]) -> str:
    title = LIVE_TITLES.get(status) or TITLES[status]
    if REFUSED in codes:
        title += ", or the provider refuses it"
    # Without a code of its own: a base class, or one that says more each time.
    named = sorted(codes - {"None", "error"})
    return f"{title} ({', '.join(named)})" if named else title


def _header_in(name: str, description: str, **schema: Any) -> Schema:
    return {"name": name, "in": "header", "description": description, "schema": {"type": "string", **schema}}


def _query(name: str, description: str, **schema: Any) -> Schema:
    return {"name": name, "in": "query", "description": description, "schema": {"type": "string", **schema}}


def _in_path(name: str, description: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "description": description, "schema": {"type": "string"}}


def _header_out(description: str, **schema: Any) -> Schema:
    return {"description": description, "schema": {"type": "string", **schema}}


COMPONENTS: Mapping[str, Schema] = {
    "parameters": {
        "IdempotencyKey": _header_in(
            "Idempotency-Key", "Your name for this request. With another body: 422.", minLength=1, maxLength=255
        ),
        "XClientRequestID": _header_in("X-Client-Request-ID", "The same; comes back in the answer.", maxLength=255),
        "CacheControl": _header_in("Cache-Control", "`no-store` or `no-cache`: ask the provider, and keep nothing."),
        "XNightdeskContinue": _header_in(
            "X-Nightdesk-Continue",
            "`true`: should the stream be cut, let the next provider go on. One event then bears "
            '`"nightdesk": {"continued_by": "<provider>"}`.',
            enum=["true"],
        ),
        "XTicketOrigin": _header_in("X-Ticket-Origin", "The origin whose pages may use the ticket."),
        "AnthropicVersion": _header_in("anthropic-version", "Anthropic's, such as `2023-06-01`."),
        "AnthropicBeta": _header_in("anthropic-beta", "Anthropic's; a provider of its dialect sees it."),
        "LastEventID": _header_in("Last-Event-ID", "The `id` of the last event that you have."),
        "After": _query("after", "The same, where no header can be sent; or its number alone."),
        "Dialect": _query(
            "dialect",
            "Whose body this is, and whose events will be. Without it: `anthropic` if `anthropic-version` is sent.",
            enum=["openai", "anthropic", "wordpress", "envelope"],
        ),
        "Limit": _query("limit", "Anthropic's form: models in a page.", type="integer", minimum=1, maximum=1000),
        "AfterID": _query("after_id", "Anthropic's form: the page after this model."),
        "BeforeID": _query("before_id", "Anthropic's form: the page before this model."),
        "StreamID": _in_path("stream_id", "`stm_…`"),
        "JobID": _in_path("job_id", "`job_…`"),
        "Model": _in_path("model", "A name of the list; it may hold slashes."),
    },
    "headers": {
        "X-Request-ID": _header_out("`req_…`: also in the desk's logs and accounts."),
        "X-Nightdesk-Overhead-Ms": _header_out("What the desk itself took until the answer began.", type="number"),
        "Server-Timing": _header_out("`desk` and `upstream`, in milliseconds."),
        "X-Cache": _header_out("Whether the answer was kept; absent where nobody looked.", enum=["HIT", "MISS"]),
        "Idempotent-Replayed": _header_out("`true`: an earlier request with the same key had asked.", enum=["true"]),
    },
}
