"""The models, in the dialect of the caller."""

from datetime import datetime

import anthropic as anthropic_sdk
import openai as openai_sdk
import pytest
from anthropic import Anthropic
from openai import OpenAI


def test_openais_list_has_openais_models(openai: OpenAI) -> None:
    models = list(openai.models.list())

    assert {"gpt-4o-mini", "text-embedding-3-small"} <= {model.id for model in models}
    assert not [model.id for model in models if model.id.startswith("claude")]
    assert {model.object for model in models} == {"model"}


def test_anthropics_list_has_anthropics_models_page_by_page(anthropic: Anthropic) -> None:
    whole = [model.id for model in anthropic.models.list(limit=100)]
    paged = [model.id for model in anthropic.models.list(limit=3)]

    assert "claude-haiku-4-5" in whole
    assert paged == whole
    first = anthropic.models.list(limit=2)
    assert (first.first_id, first.last_id, first.has_more) == (whole[0], whole[1], True)


def test_one_model_is_told_in_each_dialect(openai: OpenAI, anthropic: Anthropic) -> None:
    assert openai.models.retrieve("gpt-4o-mini").owned_by == "system"
    assert openai.models.retrieve("anything").owned_by == "simulator"
    model = anthropic.models.retrieve("claude-haiku-4-5")

    assert (model.type, model.lifecycle, model.max_input_tokens) == ("model", "active", 200_000)
    assert isinstance(model.created_at, datetime)
    assert model.capabilities is not None
    assert model.capabilities.structured_outputs.supported


def test_a_missing_model_is_not_found(openai: OpenAI, anthropic: Anthropic) -> None:
    with pytest.raises(openai_sdk.NotFoundError):
        openai.models.retrieve("missing-one")
    with pytest.raises(anthropic_sdk.NotFoundError):
        anthropic.models.retrieve("missing-one")


def test_a_page_that_makes_no_sense_is_refused(anthropic: Anthropic) -> None:
    with pytest.raises(anthropic_sdk.BadRequestError, match="limit"):
        anthropic.models.list(limit=0)
    with pytest.raises(anthropic_sdk.BadRequestError, match="nobody"):
        anthropic.models.list(after_id="nobody")
