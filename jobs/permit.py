"""Asks `inference.permit` for the body of a job: one submitted, one of a batch, or one that is retried."""

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
    """A body that may become a job."""

    #: To be stored: as it came, or with the bound that the grant sets on its answers.
    body: Mapping[str, Any]
    permitted: Permitted

    @property
    def request(self) -> InferenceRequest:
        return self.permitted.request

    @property
    def provider(self) -> str:
        """Of the first target with a key: see `Job.provider`."""
        return first_provider(self.permitted.targets)


def permit_body(site: Site, grant: Grant, kind: str, body: Mapping[str, Any]) -> PermittedBody:
    """Return a body as its caller may submit it.

    Raises:
        InvalidBody: it is not a valid request of its kind, no target can do it, or it exceeds what the grant allows.
        ModelNotAllowed: the site, or the grant, may not use the model.
        UnknownModel: no target serves the model.
        RequestTooLong: it is longer than the model takes.
    """
    request = to_request(kind, body)
    try:
        permitted = permit(request, site, grant, routing.get_routing())
    except InvalidRequest as error:
        raise InvalidBody(error.message, error.param) from error
    return PermittedBody(_with_bound_of(permitted.request, request, body), permitted)


def _with_bound_of(permitted: InferenceRequest, asked: InferenceRequest, body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Write a bound that the permit added into the body, so that every attempt keeps to it."""
    if permitted is asked or not isinstance(permitted, ChatRequest):
        return body
    # The dialects that leave `max_tokens` out are OpenAI's, and there this is its name today.
    return {
        **{name: value for name, value in body.items() if name != "max_tokens"},
        "max_completion_tokens": permitted.max_tokens,
    }
