"""Admin page of live streams: those that run now in all processes, without their content, and a way to cancel one."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import redis
from django.contrib import admin, messages
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat

from core.admin_ui.model_admin import change_page_url
from core.humanize import format_age, format_moment
from core.ids import InvalidId, from_public
from nightdesk.admin.live_page import LivePage, from_redis
from streams.process import ActiveStream, ActiveStreams, read_active_streams, request_cancel_blocking
from tenants.audit import audit
from tenants.models import Site
from tenants.staff import actor_of


@dataclass(frozen=True, slots=True)
class StreamRow:
    """One running stream."""

    id: str
    site: str
    site_url: str | None
    model: str
    wire_format: str
    since: str
    since_moment: str
    events: str
    size: str
    readers: str
    #: What is special about it.
    badges: tuple[str, ...]


def _read(request: HttpRequest, now: datetime) -> dict[str, Any]:
    active = from_redis(read_active_streams)
    if active is None:
        return {"is_redis_unavailable": True}
    return {"is_redis_unavailable": False, **_to_context(request, active, now)}


def _cancel(request: HttpRequest, server: redis.Redis, stream_id: str) -> None:
    """Request the cancellation. The stream's process closes the upstream call and ends the stream for its readers."""
    found = next((each for each in read_active_streams(server).streams if each.stream.id == stream_id), None)
    if found is None:
        messages.warning(request, "Nothing to do: the stream has already finished.")
        return
    request_cancel_blocking(server, found.process, stream_id)
    # Redis and Postgres share no transaction, so the entry comes last: it lists only what was requested.
    site = _sites([found]).get(found.stream.site)
    audit(actor_of(request), "stream.cancel", stream_id, site, {"model": found.stream.model})
    messages.success(request, f"{stream_id} will be canceled within a second. Tokens received until then are billed.")


PAGE = LivePage(
    name="streams",
    title="Live streams",
    icon="stream",
    view_permission="tenants.view_stream",
    act_permission="tenants.cancel_stream",
    read=_read,
    verb="cancel",
    act=_cancel,
)


def _to_context(request: HttpRequest, active: ActiveStreams, now: datetime) -> dict[str, Any]:
    sites = _sites(active.streams)
    urls = {public_id: change_page_url(admin.site, request, site) for public_id, site in sites.items()}
    rows = [_row(each, sites, urls, now) for each in active.streams]
    return {"rows": rows, "count": active.count, "more": active.count - len(rows)}


def _sites(streams: Iterable[ActiveStream]) -> dict[str, Site]:
    """Return the sites of the streams by public id."""
    ids = {site_id for each in streams if (site_id := _uuid(each.stream.site))}
    return {site.public_id: site for site in Site.objects.filter(id__in=ids)}


def _uuid(public_id: str) -> UUID | None:
    try:
        return from_public(Site.ID_PREFIX, public_id)
    except InvalidId:
        return None


def _row(active: ActiveStream, sites: Mapping[str, Site], urls: Mapping[str, str | None], now: datetime) -> StreamRow:
    stream = active.stream
    site, started_at = sites.get(stream.site), datetime.fromtimestamp(stream.created_at, UTC)
    return StreamRow(
        id=stream.id,
        site=site.name if site else stream.site,
        site_url=urls.get(stream.site),
        model=stream.model,
        wire_format=stream.wire_format,
        since=f"{format_age(started_at, now)} ago",
        since_moment=format_moment(started_at),
        events=f"{stream.events:,} {'event' if stream.events == 1 else 'events'}",
        size=filesizeformat(stream.bytes),
        readers=_readers(stream.readers, active.processes_reading),
        badges=tuple(_badges(active)),
    )


def _readers(local: int, processes: int) -> str:
    """Describe the readers: those in the stream's own process, and the number of other processes with readers."""
    elsewhere = f"some on {processes} other {'process' if processes == 1 else 'processes'}" if processes else ""
    return ", ".join(filter(None, (f"{local:,}" if local else "", elsewhere))) or "none"


def _badges(active: ActiveStream) -> Iterable[str]:
    if active.stream.detached:
        yield "Detached"
    if active.stream.kind == "answer":
        yield "Non-streaming"
