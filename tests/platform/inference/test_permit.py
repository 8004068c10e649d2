"""`permit` by itself: limits of the output, estimates of the input, and restrictions of a newer version."""

import pytest

from inference.errors import RequestTooLong
from inference.permit import permit
from inference.routing import ProviderSpec, Routing, Target
from providers.invalid_request import InvalidRequest
from providers.types import ChatMessage, ChatRequest, Dialect, EmbeddingRequest, InferenceRequest, Role, TextPart
from tenants.errors import ModelNotAllowed
from tenants.grant import UNRESTRICTED, Grant
from tenants.models import Site

SITE = Site(slug="bakery", name="Bakery")
PROVIDER = ProviderSpec("openai", Dialect.OPENAI, "https://api.test/v1", "sk-1", price_list="openai")
#: gpt-4o-mini has a context window of 128,000 tokens.
ROUTING = Routing((PROVIDER,), {"mini": (Target(PROVIDER, "gpt-4o-mini"),), "embed": (Target(PROVIDER, "unknown"),)})


def chat(text: str = "Hello.", *, max_tokens: int | None = None, choices: int = 1) -> ChatRequest:
    messages = (ChatMessage(Role.USER, (TextPart(text),)),)
    return ChatRequest("mini", messages, max_tokens=max_tokens, choice_count=choices)


@pytest.mark.parametrize(
    ("request_", "limit", "per_choice", "total"),
    [
        (chat(), None, None, None),
        (chat(max_tokens=50, choices=2), None, 50, 100),
        (chat(max_tokens=50, choices=2), 100, 50, 100),
        (chat(), 100, 100, 100),
        (chat(choices=3), 100, 33, 99),
    ],
)
def test_the_grant_limits_the_output_of_all_choices_together(
    request_: ChatRequest, limit: int | None, per_choice: int | None, total: int | None
) -> None:
    permitted = permit(request_, SITE, Grant(max_tokens=limit), ROUTING)

    assert isinstance(permitted.request, ChatRequest)
    assert (permitted.request.max_tokens, permitted.max_output_tokens) == (per_choice, total)


@pytest.mark.parametrize("request_", [chat(max_tokens=101), chat(max_tokens=51, choices=2), chat(choices=101)])
def test_a_request_above_the_limit_of_its_grant_is_refused(request_: ChatRequest) -> None:
    with pytest.raises(InvalidRequest, match="at most 100 output tokens"):
        permit(request_, SITE, Grant(max_tokens=100), ROUTING)


@pytest.mark.parametrize(("characters", "is_refused"), [(410_000, False), (768_000, False), (780_000, True)])
def test_only_a_request_that_surely_exceeds_the_context_is_refused(characters: int, is_refused: bool) -> None:
    """English has more than four characters a token, and a request of 410,000 fits; six a token is a lower bound."""
    request = chat("a" * (characters - 30))

    if is_refused:
        with pytest.raises(RequestTooLong, match="maximum context length is 128000"):
            permit(request, SITE, UNRESTRICTED, ROUTING)
    else:
        assert permit(request, SITE, UNRESTRICTED, ROUTING).input_tokens > characters // 4


@pytest.mark.parametrize("tier", ["priority", "Priority", "scale", {}, 1])
def test_an_embedding_request_in_a_premium_tier_is_refused(tier: object) -> None:
    request = EmbeddingRequest("embed", ("text",), extra_fields={"service_tier": tier})

    with pytest.raises(InvalidRequest, match="does not allow this service_tier"):
        permit(request, SITE, Grant(allows_premium_tiers=False), ROUTING)
    assert permit(request, SITE, UNRESTRICTED, ROUTING).request is request


@pytest.mark.parametrize("request_", [chat(), EmbeddingRequest("embed", ("text",))])
def test_nothing_is_permitted_under_a_restriction_of_a_newer_version(request_: InferenceRequest) -> None:
    with pytest.raises(ModelNotAllowed, match="does not know"):
        permit(request_, SITE, Grant(unknown=(("max_budget", 5),)), ROUTING)
