"""Ports for the servers that tests start."""

from nightdesk.local.ports import Ports

_held = Ports()


def own_port() -> int:
    """Return a free port that no other process of the tests is given, until this one ends.

    Not for `make run`, which takes it for the port of another desk.
    """
    # Between choosing a port and listening on it a server takes its time, and others choose then too.
    return _held.choose(())
