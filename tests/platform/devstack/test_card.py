import json
import shlex
import stat
from dataclasses import asdict
from pathlib import Path

import pytest

from devstack.card import Card, SeededSite, make_card, parse_seeded, render, sample_commands, write_card

SEEDED = SeededSite("site_01k", "demo", "s3cret", "nd_abc", "whsec_AAAA", "admin", "pa55word")


@pytest.fixture
def card() -> Card:
    return make_card(
        SEEDED,
        base_url="http://127.0.0.1:8000",
        simulator_url="http://127.0.0.1:9001",
        receiver_url="http://127.0.0.1:9002/",
        database_url="postgresql://d",
        redis_url="redis://r",
    )


def test_the_last_printed_line_is_parsed() -> None:
    assert parse_seeded("a warning\n" + json.dumps(asdict(SEEDED) | {"more": 1}) + "\n") == SEEDED


@pytest.mark.parametrize(
    ("printed", "complaint"),
    [("", "Expecting value"), ("[]", "expected an object, got list"), ('{"site_id": "x"}', "'site_slug' is missing")],
)
def test_other_output_is_an_error(printed: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_seeded(printed)


def test_the_card_file_is_complete_and_private(card: Card, tmp_path: Path) -> None:
    path = tmp_path / "local.json"

    write_card(card, path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    written = json.loads(path.read_text())
    promised = "base_url site_id site_slug site_secret api_key webhook_secret admin_url admin_user admin_password"
    assert set(promised.split()) | {"simulator_url"} <= written.keys()
    assert all(written.values())


def test_the_card_shows_every_address_and_key_and_how_long_it_took(card: Card) -> None:
    shown = render(card, 6.123)

    assert "ready in 6.1 s" in shown
    for name, value in asdict(card).items():
        if name not in ("database_url", "redis_url"):
            assert value in shown, name


def test_the_commands_can_be_pasted(card: Card) -> None:
    commands = [command for _, command in sample_commands(card)]
    stream, submit, webhooks = (shlex.split(commands[place]) for place in (0, 1, 3))

    assert stream[:3] == ["curl", "-sN", "http://127.0.0.1:8000/v1/chat/completions"]
    assert "Authorization: Bearer nd_abc" in stream
    assert json.loads(stream[-1])["stream"] is True
    assert submit[:3] == ["curl", "-s", "http://127.0.0.1:8000/v1/jobs"]
    assert "Authorization: Bearer nd_abc" in submit
    assert json.loads(submit[-1])["kind"] == "chat"
    assert "http://127.0.0.1:8000/v1/jobs/$(curl -s 'http://127.0.0.1:8000/v1/jobs?limit=1'" in commands[2]
    assert webhooks == ["curl", "-s", "http://127.0.0.1:9002/"]
