"""The admin's page of live streams: what runs now on all processes, without a word of it, and a way to cancel one."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.defaultfilters import filesizeformat

from core import clock
from core.admin_ui.model_admin import change_page_url
from core.humanize import format_age, format_moment
from core.ids import InvalidId, from_public
from core.redis import RedisUnavailable, blocking_client
from nightdesk.admin.live_page import LivePage
from streams.process import ActiveStream, ActiveStreams, read_active_streams, request_cancel_blocking
from tenants.audit import audit
from tenants.models import Site
from tenants.staff import actor_of

PAGE = LivePage(
    name="streams",
    title="Live streams",
    icon="stream",
    view_permission="tenants.view_stream",
    act_permission="tenants.cancel_stream",
)


@dataclass(frozen=True, slots=True)
class StreamRow:
    """One stream that runs."""

    id: str
    site: str
    site_url: str | None
    model: str
    dialect: str
    since: str
    since_moment: str
    events: str
    size: str
    readers: str
    #: What is particular about it.
    badges: tuple[str, ...]


def show(request: HttpRequest) -> HttpResponse:
    return PAGE.draw(request, _read)


def show_live(request: HttpRequest) -> HttpResponse:
    return PAGE.draw_live(request, _read)


def cancel(request: HttpRequest) -> HttpResponse:
    """Cancel a stream, as an operator says: its call upstream is closed, and its readers are told."""
    PAGE.require(PAGE.may_act(request))
    # Who had to sign in first comes back by GET, which does nothing.
    if request.method == "POST":
        _cancel(request, request.POST.get("id", ""))
    return HttpResponseRedirect(PAGE.url)


#: Addresses below the admin's, with their views and names.
VIEWS = (
    ("streams/", show, "desk_streams"),
    ("streams/live/", show_live, "desk_streams_live"),
    ("streams/cancel/", cancel, "desk_streams_cancel"),
)


def _cancel(request: HttpRequest, stream_id: str) -> None:
    try:
        with blocking_client(settings.REDIS_URL) as server:
            seen = next((each for each in read_active_streams(server).streams if each.stream.id == stream_id), None)
            if seen is not None:
                request_cancel_blocking(server, seen.process, stream_id)
    except RedisUnavailable:
        messages.error(request, "Redis is unavailable, so it could not be canceled.")
        return
    if seen is None:
        messages.warning(request, "Nothing to do: it has already finished.")
        return
    # After the act, for the two cannot be one: what is written down was asked for.
    site = _sites([seen]).get(seen.stream.site)
    audit(actor_of(request), "stream.cancel", stream_id, site, {"model": seen.stream.model})
    messages.success(request, f"{stream_id} will be canceled within a second; tokens received until then are billed.")


def _read(request: HttpRequest) -> dict[str, Any]:
    now = clock.now()
    try:
        with blocking_client(settings.REDIS_URL) as server:
            found = read_active_streams(server)
    except RedisUnavailable:
        return {"is_redis_unavailable": True, "as_of": f"{now:%H:%M:%S} UTC"}
    return {"is_redis_unavailable": False, "as_of": f"{now:%H:%M:%S} UTC", **_to_context(request, found, now)}


def _to_context(request: HttpRequest, found: ActiveStreams, now: datetime) -> dict[str, Any]:
    sites = _sites(found.streams)
    urls = {public_id: change_page_url(admin.site, request, site) for public_id, site in sites.items()}
    rows = [_row(seen, sites, urls, now) for seen in found.streams]
    return {"rows": rows, "count": found.count, "more": found.count - len(rows)}


def _sites(streams: Iterable[ActiveStream]) -> dict[str, Site]:
    """Return the sites of streams by their public ids."""
    ids = {found for each in streams if (found := _uuid(each.stream.site))}
    return {site.public_id: site for site in Site.objects.filter(id__in=ids)}


def _uuid(public_id: str) -> UUID | None:
    try:
        return from_public(Site.ID_PREFIX, public_id)
    except InvalidId:
        return None


def _row(seen: ActiveStream, sites: Mapping[str, Site], urls: Mapping[str, str | None], now: datetime) -> StreamRow:
    stream = seen.stream
    site, begun_at = sites.get(stream.site), datetime.fromtimestamp(stream.created_at, UTC)
    return StreamRow(
        id=stream.id,
        site=site.name if site else stream.site,
        site_url=urls.get(stream.site),
        model=stream.model,
        dialect=stream.dialect,
        since=f"{format_age(begun_at, now)} ago",
        since_moment=format_moment(begun_at),
        events=f"{stream.events:,} {'event' if stream.events == 1 else 'events'}",
        size=filesizeformat(stream.bytes),
        readers=_readers(stream.readers, seen.processes_reading),
        badges=tuple(_badges(seen)),
    )


def _readers(here: int, processes: int) -> str:
    """Say who reads it: at its own process, and by way of how many others."""
    elsewhere = f"some on {processes} other {'process' if processes == 1 else 'processes'}" if processes else ""
    return ", ".join(filter(None, (f"{here:,}" if here else "", elsewhere))) or "none"


def _badges(seen: ActiveStream) -> Iterable[str]:
    if seen.stream.detached:
        yield "Detached"
    if seen.stream.kind == "answer":
        yield "Non-streaming"
