"""Capabilities of models by family."""

import pytest

from providers.capabilities import REASONING_EFFORTS, Capabilities, capabilities_of, clamp_reasoning_effort
from providers.catalogue import list_models


def of(vendor: str, name: str) -> Capabilities:
    return capabilities_of(vendor, name, "chat")


@pytest.mark.parametrize("name", ["gpt-6-astra", "gpt-6.1-sol"])
def test_some_models_always_reason(name: str) -> None:
    assert "none" not in of("openai", name).efforts
    assert of("openai", name).tools_require_effort_none


@pytest.mark.parametrize("name", ["gpt-5.6-sol", "gpt-5.6-luna", "gpt-6-sol", "gpt-6-luna", "gpt-6.1-terra"])
def test_some_models_call_tools_only_without_reasoning(name: str) -> None:
    assert of("openai", name).efforts[0] == "none"
    assert of("openai", name).tools_require_effort_none
    assert of("openai", name).sampling == "without_effort"


@pytest.mark.parametrize(
    ("name", "forced", "optional"),
    [
        ("claude-sonnet-5-5", False, True),
        ("claude-opus-5-5", False, False),
        ("claude-fable-5-1", True, False),
        ("claude-opus-5", True, True),
        ("claude-haiku-5-5", True, True),
        ("claude-sonnet-4-6", True, True),
    ],
)
def test_forced_tools_and_thinking_differ(name: str, forced: bool, optional: bool) -> None:
    assert (of("anthropic", name).forced_tools, of("anthropic", name).thinking_optional) == (forced, optional)


@pytest.mark.parametrize(
    ("name", "sampling"),
    [
        ("claude-sonnet-5", "never"),
        ("claude-sonnet-5-5", "never"),
        ("claude-opus-4-8", "never"),
        ("claude-haiku-4-5", "always"),
        ("claude-opus-4-6", "always"),
        ("claude-sonnet-4-20250514", "always"),
    ],
)
def test_models_accept_temperature_until_the_fifth_generation(name: str, sampling: str) -> None:
    assert of("anthropic", name).sampling == sampling


def test_azure_models_have_the_capabilities_of_openai_models() -> None:
    assert of("azure", "gpt-5") == of("openai", "gpt-5") != of("nobody", "gpt-5")


def test_an_embedding_model_has_no_chat_capabilities() -> None:
    embedding = capabilities_of("openai", "text-embedding-3-small", "embedding")

    assert (embedding.tools, embedding.images, embedding.structured_output) == (False, False, False)


def test_efforts_of_every_model_are_known_and_ordered() -> None:
    for model in list_models():
        order = [REASONING_EFFORTS.index(effort) for effort in model.capabilities.efforts]
        assert order == sorted(order)


@pytest.mark.parametrize(
    ("requested", "efforts", "sent"),
    [
        ("high", ("low", "medium", "high"), "high"),
        ("max", ("low", "medium", "high"), "high"),
        ("none", ("low", "medium"), "low"),
        ("minimal", ("none", "low"), "none"),
        ("high", (), None),
        (None, ("low",), None),
    ],
)
def test_the_effort_is_clamped_to_the_strongest_accepted_one(
    requested: str | None, efforts: tuple[str, ...], sent: str | None
) -> None:
    assert clamp_reasoning_effort(requested, efforts) == sent
