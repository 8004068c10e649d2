"""What is said of what was found."""

from dataclasses import replace

from tests.bench.gateways.measure import Added
from tests.bench.gateways.systems import DIRECT, LITELLM, NIGHTDESK, PORTKEY
from tests.bench.gateways.table import CacheHits, Findings, Idle, Most, to_report
from tests.bench.report import Report, render


def most(*rates: float) -> Most:
    return Most(rates, [31 * rate for rate in rates], 1.0, 1.0, 0.5)


IDLE = Idle(held=2000, held_after=2000, before_mb=100, peak_mb=300, times_ms=[1, 2])
FAST = Findings(
    plain={DIRECT: most(3000, 2000), NIGHTDESK: most(900, 600), PORTKEY: most(450, 300), LITELLM: most(45, 30)},
    streams={DIRECT: most(700, 700), NIGHTDESK: most(150, 150), LITELLM: most(9, 9)},
    half={NIGHTDESK: Added(375, 1.5, 4.5)},
    half_at_random={NIGHTDESK: Added(375, 1.5, 5.5)},
    common={NIGHTDESK: Added(19, 1.5, 2)},
    first_token={NIGHTDESK: Added(75, 1, 2)},
    idle={500: {NIGHTDESK: IDLE}, 2000: {DIRECT: IDLE, NIGHTDESK: IDLE}},
    cache=CacheHits(1.0, 2.0, 1.0),
)


def verdicts(report: Report) -> dict[str, bool]:
    return {goal.name: goal.met for goal in report.goals}


def test_each_goal_is_judged() -> None:
    assert verdicts(to_report(FAST, [])) == {
        "times LiteLLM": True,
        "times Portkey": True,
        "added p50 at half load": True,
        "added p99 at half load": True,
        "SSE events": True,
        "cache hit, p99": True,
        "2,000 idle streams": True,
    }


def test_memory_of_a_gateway_that_cuts_streams_reaches_no_goal() -> None:
    cut = replace(FAST, idle={2000: {NIGHTDESK: replace(IDLE, held_after=1999)}})

    assert not verdicts(to_report(cut, []))["2,000 idle streams"]


def test_what_did_not_come_from_the_cache_reaches_no_goal() -> None:
    missed = replace(FAST, cache=CacheHits(1.0, 2.0, 0.5))

    assert not verdicts(to_report(missed, []))["cache hit, p99"]


def test_goals_that_cannot_be_judged_are_left_out() -> None:
    alone = replace(FAST, plain={NIGHTDESK: most(900)}, half={}, idle={}, cache=None)
    absent = replace(FAST, plain={LITELLM: most(45)})

    assert set(verdicts(to_report(alone, []))) == {"SSE events"}
    assert verdicts(to_report(absent, [])) == {}


def test_the_table_names_the_systems_in_their_order() -> None:
    lines = render(to_report(FAST, ["LiteLLM 1.2.3"])).splitlines()
    (head,) = (line.split() for line in lines if "LiteLLM" in line and "none" in line)
    (plain,) = (line.split() for line in lines if line.startswith("  plain  "))

    assert head == [DIRECT, NIGHTDESK, PORTKEY, LITELLM]
    assert plain == ["plain", "2,500.0", "750.0", "375.0", "37.5", "requests/s"]
    assert lines[-1] == "  * LiteLLM 1.2.3"
