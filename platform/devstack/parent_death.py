"""Executes a program that the kernel signals when its parent process dies (parent-death signal, Linux only).

A script that imports only the standard library: `parent_death.py PARENT SIGNAL USER GROUP PROGRAM [ARGUMENT …]`.
A script instead of `preexec_fn`, because `preexec_fn` may deadlock in a process with threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
#: USER and GROUP of a program that runs as the user who starts it.
SAME_USER = "-"


def main(parent: str, orphan_signal: str, user: str, group: str, *argv: str) -> None:
    """Drop privileges, request the signal, and exec the program. Does not return."""
    if user != SAME_USER:
        os.setgroups([])
        os.setgid(int(group))
        os.setuid(int(user))
    if sys.platform == "linux":
        # After setuid, which clears it; it survives exec.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(orphan_signal), 0, 0, 0)
    if os.getppid() != int(parent):
        raise SystemExit("The parent process has exited.")
    # Python ignores SIGPIPE, and exec would pass that on.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execv(argv[0], argv)  # noqa: S606 (without a shell on purpose)


if __name__ == "__main__":
    main(*sys.argv[1:])
