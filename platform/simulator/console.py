"""The simulator's own endpoints beside the simulated provider: journal, scripts, health, and an HTML page."""

from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from time import gmtime, strftime
from typing import Any

import msgspec

from simulator.calls import Call, hash_api_key
from simulator.controls import describe_controls
from simulator.faults import parse_fault
from simulator.journal import Journal, JournalEntry
from simulator.provider import SimulatedProvider

JSON = b"application/json"
HTML = b"text/html; charset=utf-8"
PAGE = Template(Path(__file__).with_name("page.html").read_text())
#: Number of calls that the page shows.
CALLS_SHOWN = 20


@dataclass(frozen=True, slots=True)
class ConsolePage:
    body: bytes
    status: int = 200
    content_type: bytes = JSON


class ScriptRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The outcomes of the next calls for this model, with this key, or both."""

    outcomes: list[str]
    model: str | None = None
    key: str | None = None


def is_console(path: str) -> bool:
    return path == "/" or path.startswith("/__sim") or path == "/favicon.ico"


def render(call: Call, provider: SimulatedProvider) -> ConsolePage:
    match call.method, call.path.rstrip("/"):
        case "GET", "":
            return ConsolePage(_front_page(call, provider).encode(), content_type=HTML)
        case "GET", "/__sim/health":
            return _json({"status": "ok"})
        case "GET", "/__sim/journal":
            return _journal(call, provider.journal)
        case "DELETE", "/__sim/journal":
            provider.journal.clear()
            return _json({"entries": []})
        case "GET", "/__sim/script":
            return _json({"scripts": provider.scripts.to_json()})
        case "PUT", "/__sim/script":
            return _put_script(call, provider)
        case "DELETE", "/__sim/script":
            provider.scripts.clear()
            provider.limits.clear()
            return _json({"scripts": []})
        case _:
            return _json({"error": f"There is no {call.method} {call.path} here."}, 404)


def _journal(call: Call, journal: Journal) -> ConsolePage:
    query = call.query
    for name in ("after", "limit"):
        if name in query and not query[name].isdecimal():
            return _json({"error": f"{name} must be a number, got {query[name]!r}."}, 400)
    entries = journal.entries(
        after=int(query.get("after", 0)),
        model=query.get("model"),
        request_id=query.get("request_id"),
        limit=int(query["limit"]) if "limit" in query else None,
    )
    return _json({"entries": entries, "dropped": journal.dropped})


def _put_script(call: Call, provider: SimulatedProvider) -> ConsolePage:
    try:
        wanted = msgspec.json.decode(call.body, type=ScriptRequest)
        outcomes = tuple(parse_fault(word) for word in wanted.outcomes)
    except (ValueError, RecursionError) as error:
        return _json({"error": str(error)}, 400)
    if not wanted.model and not wanted.key:
        return _json({"error": "Name a model, a key, or both."}, 400)
    model = wanted.model.partition("@")[0] if wanted.model else None
    key_hash = hash_api_key(wanted.key.encode()) if wanted.key else None
    provider.scripts.replace(model, key_hash, outcomes)
    return _json({"scripts": provider.scripts.to_json()})


def _json(value: Any, status: int = 200) -> ConsolePage:
    return ConsolePage(msgspec.json.encode(value), status)


def _front_page(call: Call, provider: SimulatedProvider) -> str:
    controls = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(text)}</td></tr>"
        for name, text in describe_controls().items()
    )
    calls = "".join(map(_row, reversed(provider.journal.entries(limit=CALLS_SHOWN))))
    origin = f"http://{call.header(b'host') or 'localhost'}"
    nothing = '<tr><td colspan="8">None yet.</td></tr>'
    return PAGE.substitute(origin=escape(origin), controls=controls, calls=calls or nothing)


def _row(entry: JournalEntry) -> str:
    took = "" if entry.finished_at is None else f"{(entry.finished_at - entry.started_at) * 1000:.0f} ms"
    cells = (
        entry.seq,
        strftime("%H:%M:%S", gmtime(entry.started_at)),
        entry.path,
        entry.model,
        entry.status or "",
        entry.outcome,
        f"{entry.input_tokens} / {entry.output_tokens}",
        took,
    )
    return "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in cells) + "</tr>"
