"""The model list, and single models, in the caller's dialect."""

from collections.abc import Mapping
from typing import Any

import msgspec

from simulator.catalogue import (
    ALWAYS_THINKING,
    ANTHROPIC_MODELS,
    CREATED_AT,
    CREATED_UNIX_SECONDS,
    KNOWN_MODELS,
    OPENAI_MODELS,
    Model,
    is_missing,
    model_for,
)
from simulator.errors import ApiError, Dialect

YES = {"supported": True}
NO = {"supported": False}


def list_models(dialect: Dialect, query: Mapping[str, str]) -> bytes:
    if dialect == Dialect.ANTHROPIC:
        return msgspec.json.encode(_anthropic_page(query))
    return msgspec.json.encode({"object": "list", "data": [_openai_model(model) for model in OPENAI_MODELS]})


def retrieve_model(dialect: Dialect, name: str) -> bytes:
    if is_missing(name):
        raise model_not_found(dialect, name)
    model = model_for(name)
    return msgspec.json.encode(_anthropic_model(model) if dialect == Dialect.ANTHROPIC else _openai_model(model))


def model_not_found(dialect: Dialect, name: str) -> ApiError:
    match dialect:
        case Dialect.ANTHROPIC:
            return ApiError(404, f"model: {name}")
        case Dialect.AZURE:
            return ApiError(404)
        case _:
            message = f"The model `{name}` does not exist or you do not have access to it."
            return ApiError(404, message, code="model_not_found")


def _openai_model(model: Model) -> dict[str, Any]:
    owner = "system" if model.id in KNOWN_MODELS else "simulator"
    return {
        "id": model.id,
        "object": "model",
        "created": CREATED_UNIX_SECONDS,
        "owned_by": owner,
        "shutdown_date": None,
    }


def _anthropic_page(query: Mapping[str, str]) -> dict[str, Any]:
    """One page of Anthropic's models: `limit` of them, after or before an id."""
    limit = query.get("limit", "20")
    if not limit.isdecimal() or not 1 <= int(limit) <= 1000:
        raise ApiError(400, "limit: Input should be between 1 and 1000")
    names = [model.id for model in ANTHROPIC_MODELS]
    start = _position(names, query.get("after_id"), -1) + 1
    end = _position(names, query.get("before_id"), len(names))
    found = ANTHROPIC_MODELS[start:end][: int(limit)]
    return {
        "data": [_anthropic_model(model) for model in found],
        "first_id": found[0].id if found else None,
        "last_id": found[-1].id if found else None,
        "has_more": start + len(found) < end,
    }


def _position(names: list[str], name: str | None, default: int) -> int:
    if name is None:
        return default
    if name not in names:
        raise ApiError(400, f"{name} is not a model of this list")
    return names.index(name)


def _anthropic_model(model: Model) -> dict[str, Any]:
    return {
        "type": "model",
        "id": model.id,
        "display_name": model.id.replace("-", " ").title(),
        "created_at": CREATED_AT,
        "lifecycle": "active",
        "max_input_tokens": model.context,
        "max_tokens": model.max_output,
        "capabilities": _capabilities(model),
        "deprecated_at": None,
        "retires_at": None,
        "line": None,
    }


def _capabilities(model: Model) -> dict[str, Any]:
    levels = dict.fromkeys(("low", "medium", "high", "xhigh", "max"), YES)
    thinking = {
        "adaptive": YES,
        "enabled": YES,
        "disabled": NO if model.id in ALWAYS_THINKING else YES,
        "between_tools": NO,
    }
    return {
        "batch": NO,
        "citations": NO,
        "code_execution": NO,
        "context_management": {"supported": False},
        "effort": {"supported": True, **levels},
        "image_input": YES,
        "pdf_input": YES,
        "server_tools": {"supported": False, "code_execution": NO, "web_search": NO},
        "structured_outputs": YES,
        "thinking": {"supported": True, "types": thinking},
    }
