"""What a WebSocket client offers in `Sec-WebSocket-Protocol`, where a browser can put a proof and nowhere else.

`nightdesk.v1, ticket.<token>` or `nightdesk.v1, bearer.<token>`. The answer names `nightdesk.v1` alone, so that the
proof stands in no answer; nothing here is ever logged.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tenants.errors import ConflictingCredentials

PROTOCOL = "nightdesk.v1"
CREDENTIAL_KINDS = ("ticket", "bearer")


@dataclass(frozen=True, slots=True)
class SubprotocolOffer:
    """A handshake's offer. Without `protocol` it speaks what we do not."""

    #: What to accept.
    protocol: str | None
    #: `ticket` or `bearer`, where a proof came along.
    kind: str | None = None
    token: str = field(default="", repr=False)

    @property
    def headers(self) -> Mapping[str, str]:
        """The proof as the header that a browser cannot set here."""
        return {"authorization": f"Bearer {self.token}"} if self.token else {}


def parse_offer(subprotocols: Iterable[str]) -> SubprotocolOffer:
    """Read the subprotocols that a client offers. Raises `ConflictingCredentials` if several hold credentials."""
    offered = list(subprotocols)
    proofs = {
        tuple(each.split(".", 1)) for each in offered if each.startswith(tuple(f"{kind}." for kind in CREDENTIAL_KINDS))
    }
    if len(proofs) > 1:
        raise ConflictingCredentials
    kind, token = proofs.pop() if proofs else (None, "")
    return SubprotocolOffer(PROTOCOL if PROTOCOL in offered else None, kind if token else None, token)
