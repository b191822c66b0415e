"""Who holds a task: a process by a name that is never used again, and whether that process is dead.

A worker on the same machine can be seen to be dead at once; one elsewhere only by its silence.
"""

from __future__ import annotations

import os
import secrets
import socket
from functools import cache
from pathlib import Path

_NOWHERE = "?"


def new_owner() -> str:
    """A name for one attempt at a task: place / pid / when that process began / random."""
    pid = os.getpid()
    return "/".join((_place(), str(pid), _began(pid) or _NOWHERE, secrets.token_hex(6)))


def surely_dead(owner: str) -> bool:
    """Whether its process ran where this one runs and is gone; False where that cannot be told."""
    place, pid, began, _ = owner.rsplit("/", 3)
    if place != _place() or began == _NOWHERE or not pid.isdigit():
        return False
    return _began(int(pid)) != began


@cache
def _place() -> str:
    """One boot of one machine and one namespace of process ids: where a pid has a meaning.

    The host's name alone would not do: containers share it where they share the host's network.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}:{os.readlink('/proc/self/ns/pid')}"
    except OSError:  # no Linux
        return f"{socket.gethostname()}:{secrets.token_hex(6)}"


def _began(pid: int) -> str | None:
    """When a process began, in ticks since the boot; None for one that is gone or a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state[0] in "ZX" else state[19]
