"""Decides whether a caller may make a request, and which targets could serve it.

The one place for such rules: live requests, jobs, batch members and retries all call `permit`. Pure, and the cheap
checks come first. A new rule (a budget, retrieval, tools) belongs here.
"""

from dataclasses import dataclass, replace

from django.conf import settings

from inference.errors import RequestTooLong, UnknownModel
from inference.routing import Routing, Target, filter_capable
from providers.catalogue import find_model
from providers.invalid_request import InvalidRequest
from providers.token_estimation import estimate_input_tokens
from providers.types import ChatRequest, InferenceRequest
from tenants.access import check_model
from tenants.grant import Grant
from tenants.models import Site


@dataclass(frozen=True, slots=True)
class Permitted:
    """A request that its caller may make."""

    #: With its answers bounded as the grant bounds them.
    request: InferenceRequest
    #: Those that can do all that the request asks for, in no order; some may have no key.
    targets: tuple[Target, ...]
    #: Estimated.
    input_tokens: int
    #: Of all answers together. None: nothing bounds them.
    max_output_tokens: int | None


def permit(
    request: InferenceRequest, site: Site, grant: Grant, routing: Routing, *, provider: str | None = None
) -> Permitted:
    """Return the request as the caller may make it. `provider` restricts the targets to one provider.

    Raises:
        InvalidRequest: it asks for more output tokens or a dearer tier than the grant allows, or no target can do it.
        ModelNotAllowed: the site, or the grant, may not use the model.
        UnknownModel: no target serves the model.
        RequestTooLong: it has too many messages, or is longer than the context of every target.
    """
    _check_message_count(request)
    request = _bounded(request, grant)
    check_model(site, request.model, grant.only_model)
    targets = filter_capable(_served_by(provider, routing.targets_for(request.model), request.model), request)
    input_tokens = estimate_input_tokens(request)
    _check_context(request, targets, input_tokens)
    return Permitted(request, targets, input_tokens, max_output_tokens(request))


def max_output_tokens(request: InferenceRequest) -> int | None:
    """Return how many tokens the answers of a request may have together. None: it does not say."""
    if not isinstance(request, ChatRequest):
        return 0
    return None if request.max_tokens is None else request.max_tokens * request.choice_count


def _check_message_count(request: InferenceRequest) -> None:
    if isinstance(request, ChatRequest) and len(request.messages) > settings.MAX_MESSAGES:
        raise RequestTooLong(f"At most {settings.MAX_MESSAGES} messages; this has {len(request.messages)}.", "messages")


def _bounded(request: InferenceRequest, grant: Grant) -> InferenceRequest:
    """Hold a request to its grant. Answers that the request does not bound get the bound of the grant."""
    if not isinstance(request, ChatRequest):
        return request
    if not grant.allows_premium_tiers and (refusal := request.premium_tier_refusal) is not None:
        raise refusal
    if grant.max_tokens is None:
        return request
    # Of each answer, for all of them may be as long.
    longest = grant.max_tokens // request.choice_count
    if longest == 0 or (request.max_tokens or 0) > longest:
        raise InvalidRequest(
            f"Your token allows at most {grant.max_tokens} tokens; request at most that.", "max_tokens"
        )
    return replace(request, max_tokens=longest) if request.max_tokens is None else request


def _served_by(provider: str | None, targets: tuple[Target, ...], model: str) -> tuple[Target, ...]:
    if provider is None:
        return targets
    found = tuple(target for target in targets if target.provider.name == provider)
    if not found:
        raise UnknownModel(model)
    return found


def _check_context(request: InferenceRequest, targets: tuple[Target, ...], input_tokens: int) -> None:
    """Refuse what fits into the context of no target. A model that the catalogue does not know takes anything."""
    models = [find_model(target.provider.price_list, target.upstream_model) for target in targets]
    longest = max((model.max_input for model in models if model), default=0)
    if longest and None not in models and input_tokens > longest:
        raise RequestTooLong(
            f"This model's maximum context length is {longest} tokens. Your request has about {input_tokens}.",
            "messages" if isinstance(request, ChatRequest) else "input",
        )
