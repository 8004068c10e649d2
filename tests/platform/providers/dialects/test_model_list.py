"""Lists of models in both dialects."""

from datetime import date
from typing import Any

import pytest

from providers.catalogue import find_model
from providers.dialects.model_list import (
    ListedModel,
    encode_anthropic_model,
    encode_anthropic_models,
    encode_openai_model,
    encode_openai_models,
    model_not_found_error,
)
from providers.invalid_request import InvalidRequest

TODAY = date(2026, 11, 22)
FIVE = [ListedModel(name, "nightdesk") for name in "abcde"]
GPT_5 = ListedModel("gpt-5", "openai", find_model("openai", "gpt-5"))


def test_openai_s_list_has_the_known_facts_of_a_model() -> None:
    assert encode_openai_models([FIVE[0], GPT_5]) == {
        "object": "list",
        "data": [
            {"id": "a", "object": "model", "created": 0, "owned_by": "nightdesk", "shutdown_date": None},
            {
                "id": "gpt-5",
                "object": "model",
                "created": 0,
                "owned_by": "openai",
                "shutdown_date": "2026-12-11",
                "kind": "chat",
                "context_window": 400_000,
                "max_output_tokens": 128_000,
            },
        ],
    }
    assert encode_openai_model(GPT_5)["id"] == "gpt-5"


@pytest.mark.parametrize(
    ("query", "names", "has_more"),
    [
        ({}, "abcde", False),
        ({"limit": "2"}, "ab", True),
        ({"limit": "2", "after_id": "b"}, "cd", True),
        ({"limit": "2", "after_id": "d"}, "e", False),
        ({"limit": "2", "before_id": "d"}, "bc", True),
        ({"limit": "9", "before_id": "d"}, "abc", False),
        ({"after_id": "a", "before_id": "d", "limit": "1"}, "b", True),
        ({"after_id": "e"}, "", False),
    ],
)
def test_anthropic_s_list_has_pages(query: dict[str, str], names: str, has_more: bool) -> None:
    page = encode_anthropic_models(FIVE, query, today=TODAY)

    assert "".join(model["id"] for model in page["data"]) == names
    assert (page["first_id"], page["last_id"]) == ((names[0], names[-1]) if names else (None, None))
    assert page["has_more"] is has_more


@pytest.mark.parametrize(
    ("query", "param"),
    [({"limit": limit}, "limit") for limit in ("0", "1001", "x", "-1", "²", "")]
    + [({"after_id": "x"}, "after_id"), ({"before_id": "x"}, "before_id")],
)
def test_invalid_paging_parameters_are_rejected(query: dict[str, str], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        encode_anthropic_models(FIVE, query, today=TODAY)

    assert caught.value.param == param


@pytest.mark.parametrize(("today", "lifecycle"), [(date(2026, 12, 10), "deprecated"), (date(2026, 12, 11), "retired")])
def test_anthropic_s_model_has_its_lifecycle(today: date, lifecycle: str) -> None:
    model: Any = encode_anthropic_model(GPT_5, today=today)

    assert (model["lifecycle"], model["retires_at"]) == (lifecycle, "2026-12-11T00:00:00Z")
    assert (model["max_input_tokens"], model["max_tokens"]) == (272_000, 128_000)


def test_model_not_found_error_names_the_model() -> None:
    fault = model_not_found_error("gpt-9")

    assert (fault.status, fault.code) == (404, "model_not_found")
    assert "`gpt-9`" in fault.message
