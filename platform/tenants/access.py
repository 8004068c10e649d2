"""Access control for authenticated callers: from which network and origin, with which model, within which scope.

A check raises `Forbidden` with a message that names what is not allowed. Which browser pages may read a response, and
which origin a token may be bound to, is decided here too; the CORS headers themselves are `api.cors`.
"""

from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

from tenants.authentication import AuthMethod, Identity
from tenants.errors import AddressNotAllowed, InsufficientScope, ModelNotAllowed, OriginNotAllowed
from tenants.grant import Grant
from tenants.models import Site


class TokenScope(StrEnum):
    """The scopes of a narrowed JWT. API keys, signed requests and JWTs without a scope claim have all of them."""

    CHAT_WRITE = "chat:write"
    EMBEDDINGS_WRITE = "embeddings:write"
    STREAMS_READ = "streams:read"
    STREAMS_WRITE = "streams:write"

    JOBS_READ = "jobs:read"
    JOBS_WRITE = "jobs:write"
    WEBHOOKS_READ = "webhooks:read"
    WEBHOOKS_WRITE = "webhooks:write"
    TOKENS_WRITE = "tokens:write"
    LIMITS_READ = "limits:read"


def client_address(peer: str, forwarded_for: str, trusted_proxies: int) -> str:
    """Return the address of the last hop that is not one of our proxies, as text; empty if it cannot be parsed.

    Each of our proxies appends the address that connected to it. So the entry that counts is the `trusted_proxies`-th
    from the right; everything to the left of it was written by the client and cannot be trusted.
    """
    hops = [hop.strip() for hop in forwarded_for.split(",") if hop.strip()]
    chosen = hops[-min(trusted_proxies, len(hops))] if trusted_proxies and hops else peer
    address = _parse_address(chosen)
    return str(address) if address else ""


def check_network_and_origin(identity: Identity, address: str, origin: str | None) -> None:
    """Check the caller's network and origin. `origin` is None for servers and for Nightdesk's own pages.

    A token that Nightdesk bound to an origin is for visitors, whose addresses are on no allowlist: the site's address
    was checked when it requested the token.
    """
    if identity.auth_method is not AuthMethod.TOKEN or identity.origin is None:
        check_address(identity.site, address)
    check_origin(identity, origin)


def check_address(site: Site, address: str) -> None:
    """Check the allowlist; an empty list allows every address. An entry that cannot be parsed allows none."""
    if not site.ip_allowlist:
        return
    parsed = _parse_address(address)
    if parsed is None or not any(_contains(network, parsed) for network in site.ip_allowlist):
        raise AddressNotAllowed(f"Requests from {address or 'an unknown address'} are not allowed for this site.")


def check_origin(identity: Identity, origin: str | None) -> None:
    """Allow servers, which send no Origin, and browsers on the site's origins; a token may be bound to one of them."""
    if identity.origin is not None and not _same_origin(identity.origin, origin or ""):
        raise OriginNotAllowed("The token is bound to another origin.")
    if origin is not None and not any(_same_origin(each, origin) for each in identity.site.origins):
        raise OriginNotAllowed("This origin is not among the site's origins.")


def echoed_origin(origin: str | None, site: Site, bound_origin: str | None = None) -> str | None:
    """Return the `Origin` header to echo in the response; None if the page may not read it.

    `bound_origin` is the one origin that a token (`Identity.origin`) or ticket (`Ticket.origin`) is bound to.
    """
    normalized = normalize_origin(origin or "")
    if not normalized or normalized not in {normalize_origin(each) for each in site.origins}:
        return None
    return origin if bound_origin is None or normalize_origin(bound_origin) == normalized else None


def origin_to_bind(requested: str | None, site: Site, *, own_origin: str = "") -> str | None:
    """Return the normalized origin to bind a token or ticket to; None for Nightdesk's own pages.

    Those send no `Origin` when they read. `own_origin` is the scheme and host that the request was sent to.

    Raises:
        OriginNotAllowed: it is not one of the site's origins.
    """
    if requested is None:
        return None
    origin = normalize_origin(requested)
    if origin and origin == normalize_origin(own_origin):
        return None
    if not origin or origin not in {normalize_origin(each) for each in site.origins}:
        raise OriginNotAllowed(f"{requested[:100]!r} is not among the site's origins.")
    return origin


def check_grant(grant: Grant) -> None:
    """Fail closed: nothing is allowed under a restriction that a newer version stored and this one does not know."""
    if grant.unknown:
        raise ModelNotAllowed("This credential has a restriction that this server's version does not know.")


def check_model(site: Site, grant: Grant, model: str) -> None:
    """Check the grant, its one model if it has one, and the site's models (an empty list allows all)."""
    check_grant(grant)
    if site.allowed_models and model not in site.allowed_models:
        raise ModelNotAllowed(f"This site may not use the model {model[:200]!r}.")
    if grant.only_model is not None and model != grant.only_model:
        raise ModelNotAllowed(f"The token may not be used for the model {model[:200]!r}.")


def is_model_allowed(site: Site, grant: Grant, model: str) -> bool:
    """Whether `check_model` passes."""
    try:
        check_model(site, grant, model)
    except ModelNotAllowed:
        return False
    return True


def check_scope(identity: Identity, scope: TokenScope) -> None:
    if identity.scopes is not None and scope not in identity.scopes:
        raise InsufficientScope(f"The token lacks the scope {scope.value}.")


def _contains(network: str, address: IPv4Address | IPv6Address) -> bool:
    try:
        return address in ip_network(network, strict=False)
    except ValueError:
        return False


@lru_cache(maxsize=4096)
def _parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """Parse an address, with or without the port that some proxies append."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    # A dual-stack socket reports 192.0.2.1 as ::ffff:192.0.2.1; the allowlist contains the IPv4 address.
    return getattr(address, "ipv4_mapped", None) or address


def _same_origin(one: str, other: str) -> bool:
    return normalize_origin(one) == normalize_origin(other) != ""


def normalize_origin(text: str) -> str:
    """Return `https://example.com` for `https://Example.com:443/`; empty if the text is not an origin, like `null`."""
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        return ""
    if url.scheme not in ("http", "https") or not url.hostname:
        return ""
    default = {"http": 80, "https": 443}[url.scheme]
    return f"{url.scheme}://{url.hostname}" + (f":{port}" if port not in (None, default) else "")
