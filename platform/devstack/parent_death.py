"""Becomes another program, tied to the process that started it: when that one dies, the kernel signals this one.

Run as a script that needs nothing but the standard library: `tether.py PARENT SIGNAL USER GROUP PROGRAM [ARGUMENT …]`.
A script instead of `preexec_fn`, because that may deadlock in a process with threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
#: Stands for USER and GROUP where the program runs as whoever starts it.
SAME_USER = "-"


def main(parent: str, orphan_signal: str, user: str, group: str, *argv: str) -> None:
    """Give up privileges, ask for the signal, and become the program. Does not return."""
    if user != SAME_USER:
        os.setgroups([])
        os.setgid(int(group))
        os.setuid(int(user))
    if sys.platform == "linux":
        # After setuid, for that clears it; it survives exec.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(orphan_signal), 0, 0, 0)
    if os.getppid() != int(parent):
        raise SystemExit("The process that started this one is gone.")
    # Python ignores it, and exec would pass that on.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execv(argv[0], argv)  # noqa: S606 (no shell is what we want)


if __name__ == "__main__":
    main(*sys.argv[1:])
