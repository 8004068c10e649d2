"""Registry of provider clients: one long-lived client per provider, for the event loop that owns them."""

from inference.routing import ProviderSpec
from providers.adapters import create_provider
from providers.errors import ProviderKeyRejected
from providers.types import Provider


class ProviderClients:
    """Returns the client of a provider, created at first use. A changed key or address gets a new client."""

    def __init__(self) -> None:
        self._clients: dict[ProviderSpec, Provider] = {}

    def __call__(self, spec: ProviderSpec) -> Provider:
        """Return the provider's client. Raises `ProviderKeyRejected` if its address or key is invalid."""
        client = self._clients.get(spec)
        if client is None:
            client = self._clients[spec] = _connect(spec)
        return client

    async def close(self) -> None:
        """Close every connection."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.close()


def _connect(spec: ProviderSpec) -> Provider:
    try:
        return create_provider(
            spec.dialect,
            spec.name,
            api_key=spec.api_key or "",
            base_url=spec.base_url,
            vendor=spec.price_list or None,
            api_version=spec.api_version or None,
        )
    except ValueError as error:
        # Treated like a rejected key: the next target is called, and the log says why.
        raise ProviderKeyRejected(str(error), code="misconfigured") from error
