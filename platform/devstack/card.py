"""The card that a started desk prints: its URLs, its keys, and commands to paste."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from devstack import private_files

DEMO_MODEL = "nightdesk-demo"


@dataclass(frozen=True, slots=True)
class SeededSite:
    """The demo site and its keys, as `devstack.prepare` prints them."""

    site_id: str
    site_slug: str
    site_secret: str
    api_key: str
    webhook_secret: str
    admin_user: str
    admin_password: str


@dataclass(frozen=True, slots=True)
class Card:
    base_url: str
    docs_url: str
    admin_url: str
    simulator_url: str
    receiver_url: str
    database_url: str | None
    redis_url: str | None
    site_id: str
    site_slug: str
    site_secret: str
    api_key: str
    webhook_secret: str
    admin_user: str
    admin_password: str


def parse_seeded(text: str) -> SeededSite:
    """Parse the last line of the output. Raises `ValueError` if it is not a demo site."""
    found = json.loads(text.strip().rpartition("\n")[2])
    if not isinstance(found, dict):
        raise ValueError(f"expected an object, got {type(found).__name__}")
    try:
        return SeededSite(**{name: str(found[name]) for name in SeededSite.__dataclass_fields__})
    except KeyError as error:
        raise ValueError(f"{error} is missing") from error


def make_card(
    seeded: SeededSite,
    *,
    base_url: str,
    simulator_url: str,
    receiver_url: str,
    database_url: str | None,
    redis_url: str | None,
) -> Card:
    """Combine what was seeded with the URLs of the services."""
    return Card(
        base_url=base_url,
        docs_url=f"{base_url}/docs",
        admin_url=f"{base_url}/admin/",
        simulator_url=simulator_url,
        receiver_url=receiver_url,
        database_url=database_url,
        redis_url=redis_url,
        **asdict(seeded),
    )


def write_card(card: Card, path: Path) -> None:
    """Write the card as JSON for programs. It holds secrets, so only the file's owner can read it."""
    private_files.write_json(path, asdict(card))


def render(card: Card, seconds: float) -> str:
    """Return the card as text for the terminal."""
    rows = [
        ("API", f"{card.base_url}/v1"),
        ("Docs", card.docs_url),
        ("Admin", f"{card.admin_url}   {card.admin_user} / {card.admin_password}"),
        ("Simulator", card.simulator_url),
        ("Webhook receiver", card.receiver_url),
        ("Site", f"{card.site_id}   ({card.site_slug})"),
        ("Site secret", card.site_secret),
        ("API key", card.api_key),
        ("Webhook secret", card.webhook_secret),
    ]
    width = max(len(name) for name, _ in rows)
    facts = "\n".join(f"  {name:<{width}}   {value}" for name, value in rows)
    commands = "\n\n".join(f"  # {what}\n  {command}" for what, command in sample_commands(card))
    return f"\nNightdesk is ready in {seconds:.1f} s.\n\n{facts}\n\n{commands}\n\nCtrl-C stops everything.\n"


def sample_commands(card: Card) -> list[tuple[str, str]]:
    """Return pairs of a description and a command."""
    key = f"-H 'Authorization: Bearer {card.api_key}'"
    body = {"model": DEMO_MODEL, "messages": [{"role": "user", "content": "Say hello to the night shift."}]}
    jobs = f"{card.base_url}/v1/jobs"
    newest = f"$(curl -s '{jobs}?limit=1' {key} | grep -o 'job_[0-9a-z]*' | head -1)"
    return [
        ("stream an answer", _post(f"{card.base_url}/v1/chat/completions", key, {**body, "stream": True}, "-sN")),
        ("submit a job", _post(jobs, key, {"kind": "chat", "body": body})),
        ("show the newest job: its answer, its calls, its cost", f"curl -s {jobs}/{newest} {key}"),
        ("list the webhooks that arrived", f"curl -s {card.receiver_url}"),
    ]


def _post(url: str, key: str, body: Mapping[str, Any], options: str = "-s") -> str:
    return f"curl {options} {url} {key} -H 'Content-Type: application/json' -d '{json.dumps(body)}'"
