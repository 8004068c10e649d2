"""Ports for the servers that tests start."""

import atexit
from contextlib import ExitStack

from devstack.ports import PortReservations

_until_the_end = ExitStack()
_held = _until_the_end.enter_context(PortReservations())
atexit.register(_until_the_end.close)


def own_port() -> int:
    """Return a free port that no other test process gets until this one exits.

    Not for `make run`, which takes it for the port of another desk.
    """
    # A server takes time between choosing a port and listening on it, and others choose meanwhile.
    return _held.choose(())
