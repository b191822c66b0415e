"""On what something was measured: processor, cores, memory, system and the versions that matter."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from faceavatar.backends import physical_cores

_PACKAGES = ("faceavatar", "numpy", "onnxruntime", "onnxruntime-gpu", "openvino")


@dataclass(frozen=True)
class Machine:
    """cores: physical ones that this process may use. memory_gb: the machine's, 0 where it is not known."""

    processor: str
    cores: int
    memory_gb: int
    system: str
    python: str
    packages: dict[str, str]

    @property
    def key(self) -> str:
        """Twelve digits that runs on the same machine share; versions are not part of them."""
        parts = (self.processor, str(self.cores), str(self.memory_gb), self.system)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]

    def __str__(self) -> str:
        packages = ", ".join(f"{name} {number}" for name, number in self.packages.items())
        memory = f", {self.memory_gb} GB" if self.memory_gb else ""
        return f"{self.processor}, {self.cores} cores{memory}, {self.system}; {self.python}; {packages}"


def this_machine() -> Machine:
    """The machine that this runs on."""
    return Machine(
        processor=_processor(),
        cores=physical_cores(),
        memory_gb=_memory_gb(),
        system=f"{platform.system()} {platform.machine()}",
        python=f"Python {platform.python_version()}",
        packages=dict(_versions(_PACKAGES)),
    )


def load_average() -> float | None:
    """Processes that wanted to run in the last minute, on average; None where the system does not count."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):  # no Linux, or a processor without a name
        return platform.processor() or platform.machine()


def _memory_gb() -> int:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    except (AttributeError, OSError, ValueError):  # Windows, or a system that does not tell
        return 0


def _versions(names: Iterable[str]) -> Iterable[tuple[str, str]]:
    for name in names:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue
