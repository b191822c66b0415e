"""What `doctor` looks at: each check says what it found, and for a problem the one line that cures it."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING

from faceavatar import ProviderUnavailable, __version__

if TYPE_CHECKING:
    from faceavatar.pack import Pack
from faceavatar_cli.check import Check
from faceavatar_cli.provider_checks import (
    check_absent_providers,
    check_cuda_majors,
    check_gpu,
    check_nodes_left,
    has_nvidia_driver,
)

OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 13)
NEEDED_MEMORY = 1_000_000_000  # what one 512x512 run with the embedded pack stays below
EMBEDDED_PACK = "toon"

# Module -> the package of the base install that brings it. onnxruntime is tried by way of its providers.
MODULES = {
    "click": "click",
    "cv2": "opencv-python-headless",
    "numpy": "numpy",
    "PIL": "pillow",
    "pydantic": "pydantic",
    "safetensors": "safetensors",
    "tokenizers": "tokenizers",
}
# Packages that write into the same folder, so that the one installed last breaks the others.
# Module -> the base install's package, and all that bring it; a cure keeps the first of these that is there.
CLASHES = {
    "onnxruntime": (
        "onnxruntime",
        (
            "onnxruntime-gpu",
            "onnxruntime-directml",
            "onnxruntime-openvino",
            "onnxruntime-rocm",
            "onnxruntime-migraphx",
            "onnxruntime-qnn",
            "onnxruntime-training",
            "onnxruntime-silicon",
            "ort-nightly-gpu",
            "ort-nightly",
            "onnxruntime",
        ),
    ),
    "cv2": (
        "opencv-python-headless",
        (
            "opencv-python-headless",
            "opencv-contrib-python-headless",
            "opencv-contrib-python",
            "opencv-python",
        ),
    ),
}
_REINSTALL = "pip install --force-reinstall"


def examine() -> Iterator[Check]:
    """All checks, cheapest first. None of them raises."""
    installed = installed_packages()
    yield check_python(sys.version_info[:2])
    yield from check_clashes(installed)
    yield from check_cuda_majors(installed)
    yield from _guarded("packages", check_modules)
    yield from _guarded("providers", check_providers)
    yield from _guarded("providers", check_absent_providers)
    yield from _guarded("gpu", lambda: check_gpu(installed, has_nvidia_driver()))
    yield from _guarded("gpu", check_nodes_left)
    yield from _guarded("packs", check_packs)
    yield from _guarded("memory", check_memory)


def installed_packages() -> dict[str, str]:
    """Version by name of every distribution on sys.path; of one found twice, the one that is imported."""
    found: dict[str, str] = {}
    for distribution in distributions():
        for name in distribution.metadata.get_all("Name") or []:
            found.setdefault(name.lower().replace("_", "-"), distribution.version)
    return found


def check_python(version: tuple[int, ...]) -> Check:
    """Whether this Python is one that faceavatar runs on."""
    machine = f"{platform.system()} {platform.machine()}"
    here = f"faceavatar {__version__}, Python {platform.python_version()} on {machine}"
    if OLDEST_PYTHON <= version <= NEWEST_PYTHON:
        return Check("python", here)
    low, high = (".".join(map(str, pair)) for pair in (OLDEST_PYTHON, NEWEST_PYTHON))
    return Check("python", here, f"install Python {low} to {high} and make a new virtual environment with it")


def check_clashes(installed: Mapping[str, str]) -> Iterator[Check]:
    """One check for each folder that several packages write into."""
    for module, (base, rivals) in CLASHES.items():
        here = [name for name in rivals if name in installed]
        words = " and ".join(f"{name} {installed[name]}" for name in here)
        if not here:
            yield Check(module, f"no package that brings {module} is installed", f"pip install {base}")
        elif len(here) == 1:
            yield Check(module, words)
        else:
            fix = f"pip uninstall -y {' '.join(here)} && pip install {here[0]}"
            yield Check(module, f"{words} overwrite each other's files", fix)


def check_modules() -> Iterator[Check]:
    """Whether the packages of the base install can be imported."""
    broken = False
    for module, package in MODULES.items():
        try:
            import_module(module)
        except Exception as error:  # a half-removed package raises nearly anything
            broken = True
            yield Check(package, f"import {module} fails: {_one_line(error)}", f"{_REINSTALL} {package}")
    if not broken:
        yield Check("packages", f"{', '.join(MODULES.values())} can be imported")


def check_providers() -> Iterator[Check]:
    """Which execution providers work here."""
    from faceavatar.backends import available_providers, physical_cores, resolve_provider

    try:
        names, best = available_providers(), resolve_provider("auto")
    except Exception as error:
        yield Check("providers", f"onnxruntime fails: {_one_line(error)}", f"{_REINSTALL} onnxruntime")
        return
    cores = physical_cores()
    yield Check("providers", f"{', '.join(names)}; auto takes {best}; {cores} core{'s'[: cores > 1]}")


def check_packs() -> Iterator[Check]:
    """Whether the packs are there and whole, and the search path leads somewhere."""
    from faceavatar.pack import EMBEDDED, SEARCH_VARIABLE, list_packs, verify

    for part in filter(None, os.environ.get(SEARCH_VARIABLE, "").split(os.pathsep)):
        if not Path(part).expanduser().is_dir():
            yield Check(
                "packs",
                f"{SEARCH_VARIABLE} names {part}, which is no folder",
                f"make it, or change {SEARCH_VARIABLE}",
            )
    found = list_packs()
    embedded_fix = f"{_REINSTALL} --no-deps faceavatar"
    if not any(listing.folder == EMBEDDED / EMBEDDED_PACK for listing in found):
        yield Check("packs", f"the embedded pack {EMBEDDED_PACK} is missing", embedded_fix)
    for listing in found:
        embedded = listing.folder.parent == EMBEDDED
        fix = embedded_fix if embedded else f"export or copy the pack again, or remove {listing.folder}"
        problems = [listing.problem or ""] if listing.pack is None else verify(listing.pack)
        name = f"pack {listing.name}"
        if problems:
            yield Check(name, "; ".join(problems), fix)
        elif listing.pack is not None:
            whole = f"{listing.pack.manifest.version}, verified, auto runs it with {_auto(listing.pack)}"
            yield Check(name, f"{whole}, {listing.folder}")


def _auto(pack: Pack) -> str:
    """The provider of "auto", or nothing and why."""
    from faceavatar.opening import choose_provider

    try:
        return choose_provider(pack, "auto")
    except ProviderUnavailable as error:
        return f"nothing here ({error})"


def check_memory() -> Iterator[Check]:
    """Whether there is memory for a picture."""
    free = available_memory()
    if free is None:
        yield Check("memory", "how much is free is not known on this system")
    elif free < NEEDED_MEMORY:
        yield Check(
            "memory",
            f"{free / 1e9:.1f} GB free, 1 GB needed",
            "close other programs, or raise the container's limit",
        )
    else:
        yield Check("memory", f"{free / 1e9:.1f} GB free")


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that a new process may take within its container's limit (cgroup 2), or None if not known."""
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
    group = root / "sys/fs/cgroup"
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no such group, or the word "max"
        return free
    return min(free, limit - used + int(stat.get("inactive_file", 0)))  # cached files give way


def _guarded(name: str, check: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    """A doctor that dies of the illness is of no use: what a check raises is a finding."""
    try:
        yield from check()
    except Exception as error:
        yield Check(name, f"cannot be checked: {_one_line(error)}", f"{_REINSTALL} faceavatar")


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
