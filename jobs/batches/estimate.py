"""What a batch would take and cost, before anything is stored or called."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from core import clock
from inference import routing
from inference.routing import Target
from jobs.batches.create import BatchSubmission, find_input_file, rules_of
from jobs.batches.requests import BatchRequestReader, ParsedMember
from jobs.files.read import iter_lines
from metering.cost import compute_cost
from metering.prices import price_for
from providers.catalogue import PriceEntry
from providers.token_estimation import estimate_input_tokens
from providers.types import ChatRequest, InferenceRequest, Usage
from tenants.models import Site


@dataclass(slots=True)
class ModelEstimate:
    """What the requests for one model would take. Money is in pico-USD."""

    model: str
    #: The first of the model's route.
    target: Target = field(repr=False)
    #: The target's; None where nobody knows it.
    price: PriceEntry | None = field(repr=False)
    requests: int = 0
    input_tokens: int = 0
    #: As far as the requests bound their answers.
    max_output_tokens: int = 0
    #: Requests that do not.
    unbounded: int = 0
    #: For the input alone, and with answers as long as they may be.
    low_pico_usd: int = 0
    high_pico_usd: int = 0

    def add(self, request: InferenceRequest) -> None:
        input_tokens = estimate_input_tokens(request)
        longest = _max_output_tokens(request)
        self.requests += 1
        self.input_tokens += input_tokens
        self.max_output_tokens += longest or 0
        self.unbounded += longest is None
        if self.price is not None:
            tier = self.target.tier_of(request)
            self.low_pico_usd += compute_cost(Usage(input_tokens), self.price.rates, tier)
            self.high_pico_usd += compute_cost(Usage(input_tokens, longest or 0), self.price.rates, tier)


def _max_output_tokens(request: InferenceRequest) -> int | None:
    """Return how many tokens the answers of a request may have; None where it does not say."""
    if not isinstance(request, ChatRequest):
        return 0
    return None if request.max_tokens is None else request.max_tokens * request.choice_count


def estimate(site: Site, wanted: BatchSubmission) -> list[ModelEstimate]:
    """Read all requests as if the batch were made, and return what they would take, model by model.

    Raises:
        InvalidBatch: they cannot be taken, whether they are here or in the file.
        FileMissing, UnfitFile, UnreadableFile: the file is not there, or not for batches.
    """
    reader = BatchRequestReader(rules_of(site, wanted))
    found: dict[str, ModelEstimate] = {}
    for read in _read(reader, site, wanted):
        model = read.member.model
        if model not in found:
            target = min(routing.get_routing().targets_for(model), key=_target_rank)
            found[model] = ModelEstimate(model, target, _price_of(target))
        found[model].add(read.request)
    reader.check()
    return list(found.values())


def _read(reader: BatchRequestReader, site: Site, wanted: BatchSubmission) -> Iterable[ParsedMember]:
    if wanted.input_file_id is None:
        return reader.read_list(wanted.requests)
    return reader.read_lines(iter_lines(find_input_file(site, wanted.input_file_id)))


def _price_of(target: Target) -> PriceEntry | None:
    provider = target.provider
    return price_for(provider.name, provider.price_list, target.upstream_model, clock.now())


def _target_rank(target: Target) -> tuple[bool, int, int]:
    return not target.provider.api_key, target.position, -target.weight
