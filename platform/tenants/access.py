"""What a site may do, once it is known: from where, for which browser, with which model, within which scope."""

from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

from tenants.authentication import AuthMethod, Identity
from tenants.errors import AddressNotAllowed, InsufficientScope, ModelNotAllowed, OriginNotAllowed
from tenants.models import Site


class TokenScope(StrEnum):
    """What a narrowed JWT may be for. Keys, signed requests and JWTs without a scope are for everything."""

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
    """Return the address of the last hop that is not one of our proxies, as text; empty where it is unreadable.

    Each proxy of ours appends who connected to it. So the entry that counts stands `trusted_proxies` from the right;
    everything left of it was written by the client, and says what the client likes.
    """
    hops = [hop.strip() for hop in forwarded_for.split(",") if hop.strip()]
    chosen = hops[-min(trusted_proxies, len(hops))] if trusted_proxies and hops else peer
    address = _parse_address(chosen)
    return str(address) if address else ""


def check_network_and_origin(identity: Identity, address: str, origin: str | None) -> None:
    """Let in who asks from where it may. `origin` is None for servers and the desk's own pages.

    A token that the desk bound to an origin is for visitors, who are on no allowlist; the site was, when it asked.
    """
    if identity.auth_method is not AuthMethod.TOKEN or identity.origin is None:
        check_address(identity.site, address)
    check_origin(identity, origin)


def check_address(site: Site, address: str) -> None:
    """Let in the networks of the allowlist; an empty list lets in all. An entry that cannot be read allows none."""
    if not site.ip_allowlist:
        return
    found = _parse_address(address)
    if found is None or not any(_contains(network, found) for network in site.ip_allowlist):
        raise AddressNotAllowed(f"Requests from {address or 'an unknown address'} are not allowed for this site.")


def check_origin(identity: Identity, origin: str | None) -> None:
    """Let in servers, which send no Origin, and browsers on the site's origins; a token may be bound to one."""
    if identity.origin is not None and not _same_origin(identity.origin, origin or ""):
        raise OriginNotAllowed("The token is bound to another origin.")
    if origin is not None and not any(_same_origin(each, origin) for each in identity.site.origins):
        raise OriginNotAllowed("This origin is not among the site's origins.")


def check_model(site: Site, model: str, only: str | None = None) -> None:
    """Let through the site's models (an empty list: all), and of these only the one a token is bound to."""
    if site.allowed_models and model not in site.allowed_models:
        raise ModelNotAllowed(f"This site may not use the model {model[:200]!r}.")
    if only is not None and model != only:
        raise ModelNotAllowed(f"The token may not be used for the model {model[:200]!r}.")


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
    """Read an address, with or without a port, as some proxies write it."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    # ::ffff:192.0.2.1 is how a dual-stack socket shows the IPv4 address that the allowlist names.
    return getattr(address, "ipv4_mapped", None) or address


def _same_origin(one: str, other: str) -> bool:
    return normalize_origin(one) == normalize_origin(other) != ""


def normalize_origin(text: str) -> str:
    """Write `https://Example.com:443/` as `https://example.com`; empty for what is no origin, like `null`."""
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        return ""
    if url.scheme not in ("http", "https") or not url.hostname:
        return ""
    default = {"http": 80, "https": 443}[url.scheme]
    return f"{url.scheme}://{url.hostname}" + (f":{port}" if port not in (None, default) else "")
