"""The credential in `Sec-WebSocket-Protocol`, the only header of a handshake that a browser lets a page set.

`nightdesk.v1, ticket.<token>` or `nightdesk.v1, bearer.<token>`. The response names only `nightdesk.v1`, so that the
credential is in no response; nothing here is ever logged.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tenants.errors import ConflictingCredentials

PROTOCOL = "nightdesk.v1"
CREDENTIAL_KINDS = ("ticket", "bearer")


@dataclass(frozen=True, slots=True)
class SubprotocolOffer:
    """The subprotocols that a handshake offers."""

    #: The one to accept. None: the client offers no subprotocol that we support.
    protocol: str | None
    #: `ticket` or `bearer`, if a credential was offered.
    kind: str | None = None
    token: str = field(default="", repr=False)

    @property
    def headers(self) -> Mapping[str, str]:
        """The credential as the header that a page cannot set."""
        return {"authorization": f"Bearer {self.token}"} if self.token else {}


def parse_offer(subprotocols: Iterable[str]) -> SubprotocolOffer:
    """Parse the subprotocols that a client offers. Raises `ConflictingCredentials` if several hold credentials."""
    offered = list(subprotocols)
    credentials = {
        tuple(name.split(".", 1)) for name in offered if name.startswith(tuple(f"{kind}." for kind in CREDENTIAL_KINDS))
    }
    if len(credentials) > 1:
        raise ConflictingCredentials
    kind, token = credentials.pop() if credentials else (None, "")
    return SubprotocolOffer(PROTOCOL if PROTOCOL in offered else None, kind if token else None, token)
