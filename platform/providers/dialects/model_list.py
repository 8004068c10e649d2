"""`GET /v1/models` in each dialect (docs/reference/wire-formats.md, 5 and 13)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from providers.catalogue import ModelInfo
from providers.dialects.error_payloads import ErrorPayload
from providers.invalid_request import InvalidRequest
from providers.types import JSONObject

#: Both dialects require a creation time, which the catalogue does not have.
CREATED = 0
CREATED_AT = "1970-01-01T00:00:00Z"

DEFAULT_PAGE_SIZE = 20
MAX_PAGE_SIZE = 1000


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model that the caller may use, by the name to request it by."""

    name: str
    #: The provider's name, or Nightdesk's own if a route leads to several providers.
    owner: str
    #: From the catalogue; None if it does not know the model.
    info: ModelInfo | None = None


def encode_openai_models(models: Sequence[ListedModel]) -> JSONObject:
    return {"object": "list", "data": [encode_openai_model(model) for model in models]}


def encode_openai_model(model: ListedModel) -> JSONObject:
    body: JSONObject = {
        "id": model.name,
        "object": "model",
        "created": CREATED,
        "owned_by": model.owner,
        "shutdown_date": None,
    }
    if (info := model.info) is None:
        return body
    # Not in OpenAI's dialect; clients ignore the fields, and they help a caller to choose a model.
    return {
        **body,
        "shutdown_date": info.shutdown.isoformat() if info.shutdown else None,
        "kind": info.kind,
        "context_window": info.context_window,
        "max_output_tokens": info.max_output,
    }


def encode_anthropic_models(models: Sequence[ListedModel], query: Mapping[str, str], *, today: date) -> JSONObject:
    """Return the page of a query with `limit`, `after_id` and `before_id`, or raise InvalidRequest."""
    limit = _limit(query.get("limit", str(DEFAULT_PAGE_SIZE)))
    names = [model.name for model in models]
    begin = _position(names, query, "after_id", -1) + 1
    end = _position(names, query, "before_id", len(names))
    # The page directly before `before_id`, so that a client can go back page by page.
    backwards = "before_id" in query and "after_id" not in query
    page = range(begin, end)[-limit:] if backwards else range(begin, end)[:limit]
    return {
        "data": [encode_anthropic_model(models[index], today=today) for index in page],
        "first_id": names[page[0]] if page else None,
        "last_id": names[page[-1]] if page else None,
        "has_more": len(page) < end - begin,
    }


def encode_anthropic_model(model: ListedModel, *, today: date) -> JSONObject:
    info = model.info
    return {
        "type": "model",
        "id": model.name,
        "display_name": model.name,
        "created_at": CREATED_AT,
        "lifecycle": _lifecycle(info.shutdown if info else None, today),
        "max_input_tokens": info.max_input if info else None,
        "max_tokens": info.max_output if info else None,
        "capabilities": None,
        "deprecated_at": None,
        "retires_at": _midnight(info.shutdown) if info and info.shutdown else None,
        "line": None,
    }


def model_not_found_error(name: str) -> ErrorPayload:
    message = f"The model `{name}` does not exist or you do not have access to it."
    return ErrorPayload(404, "invalid_request_error", "model_not_found", message, "model")


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 5 and 1 <= int(text) <= MAX_PAGE_SIZE):
        raise InvalidRequest(f"limit: Input should be between 1 and {MAX_PAGE_SIZE}", "limit")
    return int(text)


def _position(names: Sequence[str], query: Mapping[str, str], param: str, default: int) -> int:
    if (name := query.get(param)) is None:
        return default
    if name not in names:
        raise InvalidRequest(f"{param}: no model of this list has this id", param)
    return names.index(name)


def _lifecycle(shutdown: date | None, today: date) -> str:
    if shutdown is None:
        return "active"
    return "deprecated" if today < shutdown else "retired"


def _midnight(day: date) -> str:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
