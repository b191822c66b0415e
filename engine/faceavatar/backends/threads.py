"""How many threads a graph should get: one for each physical core that this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path


def physical_cores() -> int:
    """Physical cores within this process's affinity and its container's quota, at least 1.

    Two hyper-threads of a core share its arithmetic units, so a second thread there only costs.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    if affinity is None:
        return os.cpu_count() or 1
    cores = {_core(processor) for processor in affinity(0)}
    return max(1, min(len(cores), _quota()))


def _core(processor: int) -> tuple[str, str]:
    topology = Path(f"/sys/devices/system/cpu/cpu{processor}/topology")
    try:
        return (topology / "physical_package_id").read_text(), (topology / "core_id").read_text()
    except OSError:
        return "unknown", str(processor)


def _quota() -> int:
    """The CPUs a container may use at once (cgroup version 2), or a large number."""
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return math.ceil(int(limit) / int(period))
    except (OSError, ValueError):  # no such group, or the word "max"
        return 1 << 16
