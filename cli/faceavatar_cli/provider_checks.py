"""What `doctor` says of execution providers: why some cannot be used, and what a GPU leaves undone."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from faceavatar import ProviderUnavailable
from faceavatar_cli.check import Check

CUDA_LIBRARY = "nvidia-cudnn-cu13"  # what faceavatar[cuda] brings
EXCHANGE = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
# Packages of NVIDIA's for one CUDA end in its number; since CUDA 13 those that carry its own version do not.
_VERSIONED = frozenset({"nvidia-cuda-cupti", "nvidia-cuda-nvrtc", "nvidia-cuda-runtime"})


def check_absent_providers() -> Iterator[Check]:
    """Why each provider that cannot be used here cannot, with the command that cures it; a remark each."""
    from faceavatar.backends import PROVIDERS, provider_problem

    for name in PROVIDERS:
        reason = provider_problem(name)
        if reason is not None:
            yield Check(name, f"not here: {reason}")


def check_gpu(installed: Mapping[str, str], driver: bool) -> Iterator[Check]:
    """Whether an NVIDIA GPU lies idle: a problem where its libraries were installed, else a remark."""
    from faceavatar.backends import GPU_PROVIDERS, available_providers, resolve_provider

    if not driver or GPU_PROVIDERS & {*available_providers()}:
        return
    try:
        resolve_provider("cuda")
    except ProviderUnavailable as error:
        if CUDA_LIBRARY in installed:
            yield Check("gpu", str(error), EXCHANGE)
        else:
            yield Check(
                "gpu", f"an NVIDIA GPU is idle; to use it: pip install 'faceavatar[cuda]' && {EXCHANGE}"
            )


def check_cuda_majors(installed: Mapping[str, str]) -> Iterator[Check]:
    """Whether libraries of two CUDA versions lie in one environment, where the wrong ones may be loaded."""
    found: dict[str, list[str]] = {}
    for name, version in installed.items():
        major = _cuda_major(name, version)
        if major is not None:
            found.setdefault(major, []).append(name)
    if len(found) < 2:
        return
    words = " and ".join(f"CUDA {major} ({', '.join(sorted(found[major]))})" for major in sorted(found))
    *old, _ = sorted(found, key=int)
    names = " ".join(sorted(name for major in old for name in found[major]))
    yield Check("cuda", f"libraries of {words} lie in one folder", f"pip uninstall -y {names}")


def check_nodes_left() -> Iterator[Check]:
    """What the GPU provider that "auto" takes leaves of the embedded UNet to other providers; a remark."""
    from faceavatar.backends import GPU_PROVIDERS, resolve_provider
    from faceavatar.pack import Pack, find_pack

    provider = resolve_provider("auto")
    if provider not in GPU_PROVIDERS:
        return
    session = Pack.load(find_pack("toon")).open("unet", provider)
    words = "; ".join(session.warnings) or f"{provider} runs all nodes of the embedded unet"
    yield Check("nodes", words)


def has_nvidia_driver() -> bool:
    """Whether NVIDIA's driver is installed."""
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def _cuda_major(name: str, version: str) -> str | None:
    """ "12" for nvidia-cudnn-cu12, "13" for nvidia-cuda-runtime 13.0; None for a package that is neither."""
    numbered = re.fullmatch(r"nvidia-.+-cu(\d+)", name)
    if numbered:
        return numbered[1]
    return version.split(".")[0] if name in _VERSIONED else None
