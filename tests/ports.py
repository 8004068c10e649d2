"""Ports for the servers that tests start."""

import atexit
from contextlib import ExitStack

from devstack.ports import PortReservations

_until_the_end = ExitStack()
_held = _until_the_end.enter_context(PortReservations())
atexit.register(_until_the_end.close)


def own_port() -> int:
    """Return a free port that no other process of the tests is given, until this one ends.

    Not for `make run`, which takes it for the port of another desk.
    """
    # Between choosing a port and listening on it a server takes its time, and others choose then too.
    return _held.choose(())
