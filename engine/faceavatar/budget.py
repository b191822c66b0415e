"""How much memory a run may take: read from words, or from what the machine has free just now.

Knows the kernel's own figures; does not know requests.
"""

from __future__ import annotations

import re
from pathlib import Path

from faceavatar.errors import InvalidRequest

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}
_WORDS = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMG]I?)?B?\s*", re.IGNORECASE)
_CGROUP = Path("/sys/fs/cgroup")


def read_budget(budget: int | str | None) -> int | None:
    """Bytes of a budget such as 6000000000, "6GB" or "6GiB"; None stays None.

    Raises InvalidRequest (memory_budget).
    """
    if budget is None:
        return None
    allowed = 'bytes above 0, words such as "6GB" or "6GiB", or None for what the machine has free'
    if isinstance(budget, str):
        found = _WORDS.fullmatch(budget)
        if found is None:
            raise InvalidRequest("memory_budget", budget, allowed)
        count = int(float(found[1]) * _UNITS[(found[2] or "").upper()])
    elif type(budget) is int:
        count = budget
    else:
        raise InvalidRequest("memory_budget", budget, allowed)
    if count <= 0:
        raise InvalidRequest("memory_budget", budget, allowed)
    return count


def machine_budget() -> int | None:
    """What this process may grow to: what it holds and what is free, in the machine and in its container.

    None where the system does not say.
    """
    free = _status("/proc/meminfo", "MemAvailable")
    held = _status("/proc/self/status", "VmRSS")
    if free is None or held is None:
        return None
    return held + min(free, _cgroup_free())


def _cgroup_free() -> int:
    """What is left of the container's limit (cgroup version 2), or a large number."""
    try:
        limit, used = ((_CGROUP / name).read_text() for name in ("memory.max", "memory.current"))
        cached = re.search(r"^inactive_file (\d+)$", (_CGROUP / "memory.stat").read_text(), re.MULTILINE)
        return max(0, int(limit) - int(used) + (0 if cached is None else int(cached[1])))
    except (OSError, ValueError):  # no such group, or the word "max"
        return 1 << 62


def _status(path: str, name: str) -> int | None:
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB$", Path(path).read_text(), re.MULTILINE)
    except OSError:
        return None
    return None if found is None else int(found[1]) * 1024
