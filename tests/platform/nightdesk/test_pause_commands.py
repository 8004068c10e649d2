"""The management commands pause and resume."""

import json
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from jobs.models import Pause
from tenants.models import AuditEntry, Site
from tests.factories import make_batch

pytestmark = pytest.mark.django_db


def run(*arguments: str) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


def run_json(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(*arguments, "--json"))
    return found


@pytest.fixture(params=["site", "queue", "batch"])
def named(request: pytest.FixtureRequest, site: Site) -> tuple[str, str]:
    """The target: its kind and its name."""
    names = {"site": "bakery", "queue": "batch", "batch": make_batch(site).public_id}
    return request.param, names[request.param]


def test_pause_and_resume_a_site_a_queue_and_a_batch(named: tuple[str, str]) -> None:
    kind, name = named

    said = run("pause", f"--{kind}", name, "--reason", "too dear")

    assert f"Paused the {kind} {name}: running jobs finish" in said
    assert f"manage.py resume --{kind} {name}" in said
    assert (Pause.objects.get().actor, Pause.objects.get().reason) == ("command line", "too dear")
    assert run("resume", f"--{kind}", name) == f"Resumed the {kind} {name}.\n"
    assert not Pause.objects.exists()
    actions = AuditEntry.objects.order_by("id").values_list("action", flat=True)
    assert list(actions) == [f"{kind}.pause", f"{kind}.resume"]


def test_pause_and_resume_print_json(named: tuple[str, str]) -> None:
    kind, name = named

    first, second = (run_json("pause", f"--{kind}", name, "--reason", reason) for reason in ("one", "two"))
    assert (first["scope"], first["name"], first["by"], first["paused_now"]) == (kind, name, "command line", True)
    assert (second["reason"], second["since"], second["paused_now"]) == ("one", first["since"], False)
    assert run_json("resume", f"--{kind}", name) == {"scope": kind, "name": name, "resumed_now": True}
    assert run_json("resume", f"--{kind}", name)["resumed_now"] is False


def test_a_second_pause_reports_the_first(site: Site) -> None:
    run("pause", "--site", site.public_id, "--reason", "unpaid")

    assert "The site bakery has been paused since 20" in run("pause", "--site", "bakery")
    assert "by command line (unpaid)" in run("pause", "--site", "bakery")
    run("resume", "--site", "bakery")
    assert run("resume", "--site", "bakery") == "The site bakery was not paused.\n"


@pytest.mark.parametrize("command", ["pause", "resume"])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--site", "nobody"], "no site 'nobody'. Pass its slug or its id"),
        (["--queue", "fast"], "no queue 'fast'. Pass default or batch"),
        (["--batch", "batch_1"], "no batch 'batch_1'. Pass its id"),
        ([], "one of the arguments --site --queue --batch is required"),
        (["--site", "bakery", "--queue", "batch"], "not allowed with argument --site"),
    ],
)
def test_an_unknown_target_is_an_error_that_says_what_to_pass(
    site: Site, command: str, arguments: list[str], said: str
) -> None:
    with pytest.raises(CommandError, match=said):
        run(command, *arguments)


def test_an_ended_batch_and_a_too_long_reason_are_errors(site: Site) -> None:
    over = make_batch(site, state="completed")

    with pytest.raises(CommandError, match="it is completed"):
        run("pause", "--batch", over.public_id)
    with pytest.raises(CommandError, match="has 201 characters; at most 200 are allowed"):
        run("pause", "--site", "bakery", "--reason", "r" * 201)
    assert not Pause.objects.exists()
