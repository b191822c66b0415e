"""Starts a program that ends when the process that started it ends, however that comes about.

    python parent.py PID PROGRAM ARGUMENTS...

Run as a file, before the program takes its place: what is set here outlives the exec. Setting it in
subprocess's preexec_fn instead would run Python between fork and exec in a process with threads.
Linux only; elsewhere the program is just started. The kernel watches the thread that forked, not its
process: whoever uses this keeps that thread.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Never returns."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the line above
            sys.exit(1)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
