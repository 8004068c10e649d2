"""Estimates the tokens and the cost of a batch, without storing it or calling a provider."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from core import clock
from inference import routing
from inference.permit import max_output_tokens
from inference.routing import Target
from jobs.batches.create import BatchSubmission, find_input_file, rules_of
from jobs.batches.requests import BatchRequestReader, ParsedMember
from jobs.files.read import iter_lines
from metering.cost import compute_cost
from metering.prices import price_for
from providers.catalogue import PriceEntry
from providers.token_estimation import estimate_input_tokens
from providers.types import InferenceRequest, Usage
from tenants.models import Site


@dataclass(slots=True)
class ModelEstimate:
    """The estimate for the requests of one model. Money is in pico-USD."""

    model: str
    #: The first target of the model's route.
    target: Target = field(repr=False)
    #: The price of that target; None if it is unknown.
    price: PriceEntry | None = field(repr=False)
    requests: int = 0
    input_tokens: int = 0
    #: The sum of the requests' limits on output tokens.
    max_output_tokens: int = 0
    #: Requests without such a limit.
    unbounded: int = 0
    #: The cost of the input alone, and with answers of the maximum length.
    low_pico_usd: int = 0
    high_pico_usd: int = 0

    def add(self, request: InferenceRequest) -> None:
        input_tokens = estimate_input_tokens(request)
        output_tokens = max_output_tokens(request)
        self.requests += 1
        self.input_tokens += input_tokens
        self.max_output_tokens += output_tokens or 0
        self.unbounded += output_tokens is None
        if self.price is not None:
            tier = self.target.tier_of(request)
            self.low_pico_usd += compute_cost(Usage(input_tokens), self.price.rates, tier)
            self.high_pico_usd += compute_cost(Usage(input_tokens, output_tokens or 0), self.price.rates, tier)


def estimate(site: Site, submission: BatchSubmission) -> list[ModelEstimate]:
    """Read all requests as if the batch were created, and return an estimate for each model.

    Raises:
        InvalidBatch: some requests are invalid, posted or in the file.
        FileNotFound, InvalidFile, UnreadableFile: the file does not exist, or is not an input file of batches.
    """
    reader = BatchRequestReader(rules_of(site, submission))
    estimates: dict[str, ModelEstimate] = {}
    for parsed in _read(reader, site, submission):
        model = parsed.member.model
        if model not in estimates:
            target = min(routing.get_routing().targets_for(model), key=_target_rank)
            estimates[model] = ModelEstimate(model, target, _price_of(target))
        estimates[model].add(parsed.request)
    reader.check()
    return list(estimates.values())


def _read(reader: BatchRequestReader, site: Site, submission: BatchSubmission) -> Iterable[ParsedMember]:
    if submission.input_file_id is None:
        return reader.read_list(submission.requests)
    return reader.read_lines(iter_lines(find_input_file(site, submission.input_file_id)))


def _price_of(target: Target) -> PriceEntry | None:
    provider = target.provider
    return price_for(provider.name, provider.price_list, target.upstream_model, clock.now())


def _target_rank(target: Target) -> tuple[bool, int, int]:
    return not target.provider.api_key, target.position, -target.weight
