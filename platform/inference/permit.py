"""Permission of a request: whether its caller may make it, and which targets can serve it.

The only place for such checks: live requests, jobs, batch members and retries all call `permit`. Cheap ones come first.
It is pure, so it can only refuse. Checks belong here; reservations, such as a budget's, belong in the admission (live
requests: `tenants.rate_limiting.admission`) or in the claim (jobs: `jobs.worker.claim`).
"""

from dataclasses import dataclass, replace

from django.conf import settings

from inference.errors import RequestTooLong, UnknownModel
from inference.routing import Routing, Target, filter_capable
from providers.catalogue import find_model
from providers.invalid_request import InvalidRequest
from providers.token_estimation import MAX_OVERESTIMATE, estimate_input_tokens
from providers.types import ChatRequest, InferenceRequest
from tenants.access import check_grant, check_model
from tenants.grant import Grant
from tenants.models import Site


@dataclass(frozen=True, slots=True)
class Permitted:
    """A request that its caller may make."""

    #: With the output limit of the grant, if the caller set none.
    request: InferenceRequest
    #: Those that can serve everything in the request, in no order; some may have no key.
    targets: tuple[Target, ...]
    #: Estimated.
    input_tokens: int
    #: Over all choices. None: no limit.
    max_output_tokens: int | None


def permit(
    request: InferenceRequest, site: Site, grant: Grant, routing: Routing, *, provider: str | None = None
) -> Permitted:
    """Return the permitted request and its targets. `provider` restricts the targets to one provider.

    Raises:
        InvalidRequest: it exceeds the output tokens or the price tier of the grant, or no target can serve it.
        ModelNotAllowed: the site or the grant does not allow the model.
        UnknownModel: no target serves the model.
        RequestTooLong: it has too many messages, or exceeds the context window of every target.
    """
    check_grant(grant)
    _check_message_count(request)
    request = _apply_grant(request, grant)
    check_model(site, grant, request.model)
    targets = filter_capable(_served_by(provider, routing.targets_for(request.model), request.model), request)
    input_tokens = estimate_input_tokens(request)
    _check_context(request, targets, input_tokens)
    return Permitted(request, targets, input_tokens, max_output_tokens(request))


def max_output_tokens(request: InferenceRequest) -> int | None:
    """Return the limit of output tokens of a request over all choices. None: the request sets none."""
    if not isinstance(request, ChatRequest):
        return 0
    return None if request.max_tokens is None else request.max_tokens * request.choice_count


def _check_message_count(request: InferenceRequest) -> None:
    if isinstance(request, ChatRequest) and (count := len(request.messages)) > settings.MAX_MESSAGES:
        raise RequestTooLong(
            f"A request may have at most {settings.MAX_MESSAGES} messages; this one has {count}.", "messages"
        )


def _apply_grant(request: InferenceRequest, grant: Grant) -> InferenceRequest:
    """Apply a grant to a request: check it, and set the grant's output limit if the request has none."""
    if not grant.allows_premium_tiers and (refusal := request.premium_tier_refusal) is not None:
        raise refusal
    if not isinstance(request, ChatRequest):
        return request
    if grant.max_tokens is None:
        return request
    # Per choice: each of them may reach the limit.
    max_tokens = grant.max_tokens // request.choice_count
    if max_tokens == 0 or (request.max_tokens or 0) > max_tokens:
        raise InvalidRequest(
            f"Your token allows at most {grant.max_tokens} output tokens per request, over all choices. Request fewer.",
            "max_tokens",
        )
    return replace(request, max_tokens=max_tokens) if request.max_tokens is None else request


def _served_by(provider: str | None, targets: tuple[Target, ...], model: str) -> tuple[Target, ...]:
    if provider is None:
        return targets
    served = tuple(target for target in targets if target.provider.name == provider)
    if not served:
        raise UnknownModel(model)
    return served


def _check_context(request: InferenceRequest, targets: tuple[Target, ...], input_tokens: int) -> None:
    """Reject a request that surely fits no target's context window. A model unknown to the catalogue has no limit."""
    models = [find_model(target.provider.price_list, target.upstream_model) for target in targets]
    max_input = max((model.max_input for model in models if model), default=0)
    # The provider decides about what may fit: our estimate is high on purpose.
    min_input_tokens = input_tokens // MAX_OVERESTIMATE
    if max_input and None not in models and min_input_tokens > max_input:
        raise RequestTooLong(
            f"This model's maximum context length is {max_input} tokens. Your request has at least {min_input_tokens}.",
            "messages" if isinstance(request, ChatRequest) else "input",
        )
