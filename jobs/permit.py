"""Permission for the body of a job, from `inference.permit`: submitted, member of a batch, or retried."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inference import routing
from inference.permit import Permitted, permit
from inference.routing import first_provider
from jobs.errors import InvalidBody
from jobs.payload import to_request
from providers.invalid_request import InvalidRequest
from providers.types import ChatRequest, InferenceRequest
from tenants.grant import Grant
from tenants.models import Site


@dataclass(frozen=True, slots=True)
class PermittedBody:
    """A body that its caller may submit as a job."""

    #: What to store: the body as it came, or with the grant's limit on output tokens added.
    body: Mapping[str, Any]
    permitted: Permitted

    @property
    def request(self) -> InferenceRequest:
        return self.permitted.request

    @property
    def provider(self) -> str:
        """The provider of the first target with a key: see `Job.provider`."""
        return first_provider(self.permitted.targets)


def permit_body(site: Site, grant: Grant, kind: str, body: Mapping[str, Any]) -> PermittedBody:
    """Return the body as its caller may submit it.

    Raises:
        InvalidBody: it is not a valid request of its kind, no target is capable of it, or it exceeds the grant.
        ModelNotAllowed: the site, or the grant, may not use the model.
        UnknownModel: no target serves the model.
        RequestTooLong: it exceeds the context window of the model.
    """
    request = to_request(kind, body)
    try:
        permitted = permit(request, site, grant, routing.get_routing())
    except InvalidRequest as error:
        raise InvalidBody(error.message, error.param) from error
    return PermittedBody(_with_token_limit(body, request, permitted.request), permitted)


def _with_token_limit(
    body: Mapping[str, Any], request: InferenceRequest, permitted: InferenceRequest
) -> Mapping[str, Any]:
    """Add the limit on output tokens that the permit added, if any, so that it applies to every attempt."""
    if permitted is request or not isinstance(permitted, ChatRequest):
        return body
    # Only bodies of OpenAI's dialects may omit the limit, and `max_completion_tokens` is its current name there.
    return {
        **{name: value for name, value in body.items() if name != "max_tokens"},
        "max_completion_tokens": permitted.max_tokens,
    }
