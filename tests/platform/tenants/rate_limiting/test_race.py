"""Four processes with fifty clients each compete for one limit: exactly the limit is admitted."""

import random
from functools import partial

from pytest_django.fixtures import Settings

from tenants.rate_limiting.types import AdmissionRequest
from tests.platform.tenants.rate_limiting.contenders import CLIENTS, PROCESSES, race
from tests.platform.tenants.rate_limiting.requests import make_request, request_limit, token_limit

SEEDS = range(20)
REQUESTS = CLIENTS * 2
TOKENS = 7


def limits_of(seed: int) -> tuple[int, int, int]:
    """Return how many requests, tokens and running requests a round allows; some allow more than is sent."""
    chance = random.Random(seed)
    return chance.randint(1, 500), chance.randint(TOKENS, 500 * TOKENS), chance.randint(1, 500)


def requests_of(run: str, seed: int, process: int) -> list[AdmissionRequest]:
    per_minute, per_hour, at_once = limits_of(seed)
    windows = (request_limit(per_minute), token_limit(per_hour, 3600))
    return [
        make_request(f"{run}-{seed}", *windows, tokens=TOKENS, concurrency=at_once, request_id=f"{process}_{n}")
        for n in range(REQUESTS)
    ]


def test_exactly_the_limit_is_admitted_over_all_processes(settings: Settings, shop: str) -> None:
    admitted = race(settings.REDIS_URL, partial(requests_of, shop), SEEDS)

    allowed = [(per_minute, hour // TOKENS, at_once) for per_minute, hour, at_once in map(limits_of, SEEDS)]
    assert admitted == [min(PROCESSES * REQUESTS, *each) for each in allowed]
