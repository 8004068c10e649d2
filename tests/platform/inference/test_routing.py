"""The targets of a request, and their order."""

import random
from collections import Counter
from typing import Any

import pytest
from django.db import connection
from pytest_django import Settings

from core.database_threads import DatabaseThreadPool
from inference import routing
from inference.errors import UnknownModel
from inference.routing import ProviderSpec, Target, filter_capable, order_targets
from providers.dialects import openai
from providers.invalid_request import InvalidRequest
from providers.types import Dialect
from tests.factories import make_provider, make_route


def target(name: str, position: int = 1, weight: int = 1) -> Target:
    return Target(ProviderSpec(name, Dialect.OPENAI, "http://x", "sk"), "m", position, weight)


def names(targets: Any) -> list[str]:
    return [each.provider.name for each in targets]


def test_lower_positions_come_first_whatever_their_weight() -> None:
    targets = [target("third", 3, 100), target("first", 1), target("second", 2, 50)]

    assert names(order_targets(targets, random.Random(1))) == ["first", "second", "third"]


SENT = {"model": "m", "messages": [{"role": "user", "content": "x"}], "n": 2}


def test_an_untranslatable_request_is_routed_to_its_dialect_only() -> None:
    speaking = tuple(
        Target(ProviderSpec(dialect, dialect, "http://x", "sk"), "m")
        for dialect in (Dialect.ANTHROPIC, Dialect.AZURE, Dialect.OPENAI)
    )
    plain = openai.decode_chat({**SENT, "n": 1, "metadata": {"k": "v"}})

    assert names(filter_capable(speaking, openai.decode_chat(SENT))) == ["azure", "openai"]
    assert names(filter_capable(speaking, plain)) == ["anthropic", "azure", "openai"]
    with pytest.raises(InvalidRequest) as caught:
        filter_capable(speaking[:1], openai.decode_chat(SENT))
    assert (caught.value.param, caught.value.code) == ("n", "unsupported_parameter")


def test_targets_of_one_position_share_the_load_by_weight() -> None:
    rng = random.Random(1)
    targets = [target("big", weight=3), target("small", weight=1)]

    firsts = Counter(names(order_targets(targets, rng))[0] for _ in range(4_000))

    assert 0.71 < firsts["big"] / 4_000 < 0.79


def test_every_target_is_listed_once() -> None:
    targets = [target(name, position) for name, position in (("a", 1), ("b", 1), ("c", 2))]

    assert sorted(names(order_targets(targets, random.Random(5)))) == ["a", "b", "c"]


def test_a_route_lists_its_targets_in_order(db: None) -> None:
    make_route("desk", (make_provider("one"), "gpt-4o-mini"), (make_provider("two"), "claude-haiku-4-5"))

    targets = routing.load_routing().targets_for("desk")

    assert [(t.provider.name, t.upstream_model, t.position) for t in targets] == [
        ("one", "gpt-4o-mini", 1),
        ("two", "claude-haiku-4-5", 2),
    ]
    assert targets[0].provider.api_key == "sk-test"


def test_a_key_in_the_settings_makes_that_vendor_s_models_available_by_name(db: None, settings: Settings) -> None:
    settings.OPENAI_API_KEY, settings.ANTHROPIC_API_KEY = "sk-real", "sk-ant-real"
    loaded = routing.load_routing()

    assert names(loaded.targets_for("gpt-4o-mini")) == ["openai"]
    assert names(loaded.targets_for("claude-haiku-4-5")) == ["anthropic"]


def test_the_simulator_never_stands_in_for_a_real_provider(db: None, settings: Settings) -> None:
    make_provider("sim-openai")
    with pytest.raises(UnknownModel):
        routing.load_routing().targets_for("gpt-4o-mini")

    settings.OPENAI_API_KEY = "sk-real"
    assert names(routing.load_routing().targets_for("gpt-4o-mini")) == ["openai"]


def test_a_route_takes_precedence_over_the_price_list(db: None, settings: Settings) -> None:
    settings.OPENAI_API_KEY = "sk-real"
    make_route("gpt-4o-mini", (make_provider("mine"), "gpt-4o-mini"))

    assert names(routing.load_routing().targets_for("gpt-4o-mini")) == ["mine"]


def test_disabled_providers_and_routes_serve_nothing(db: None) -> None:
    off = make_provider("off", is_active=False)
    make_route("desk", (off, "m"))
    hidden = make_route("hidden", (make_provider("on"), "m"))
    hidden.is_active = False
    hidden.save()

    for model in ("desk", "hidden", "never-heard-of"):
        with pytest.raises(UnknownModel):
            routing.load_routing().targets_for(model)


def test_the_routing_is_cached_until_it_is_invalidated(db: None, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(2):
        routing.get_routing()
        routing.get_routing()

    make_route("desk", (make_provider("new"), "m"))
    routing.invalidate_cache()
    assert names(routing.get_routing().targets_for("desk")) == ["new"]


@pytest.mark.django_db(transaction=True)
async def test_an_event_loop_reads_the_routing_in_a_thread() -> None:
    threads = DatabaseThreadPool("test", 1)
    try:
        first = await routing.get_routing_async(threads)
        assert await routing.get_routing_async(threads) is first
    finally:
        threads.close()


def test_an_undecryptable_key_disables_its_own_provider_only(db: None) -> None:
    broken, good = make_provider("broken"), make_provider("good")
    make_route("desk", (broken, "m"), (good, "m"))
    with connection.cursor() as cursor:
        cursor.execute("UPDATE inference_provideraccount SET api_key = 'x' WHERE name = 'broken'")

    targets = routing.load_routing().targets_for("desk")

    assert [(target.provider.name, target.provider.api_key) for target in targets] == [
        ("broken", None),
        ("good", "sk-test"),
    ]


def test_a_spec_does_not_show_its_key() -> None:
    assert "sk-secret" not in repr(ProviderSpec("x", Dialect.OPENAI, "http://x", "sk-secret"))
