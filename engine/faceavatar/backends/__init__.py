"""Execution providers behind one small protocol: a Session has inputs, outputs, and run.

Knows which engines are installed and how to open a graph in them. Does not know what a graph is for. Every
provider is one file that names itself, checks what it got, and refuses a silent fall back; onnxruntime and
openvino are imported in this folder only.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from faceavatar.backends.session import Session, TensorSpec
from faceavatar.backends.threads import physical_cores
from faceavatar.errors import MissingExtra, ProviderUnavailable

__all__ = [
    "Session",
    "TensorSpec",
    "available_providers",
    "open_session",
    "physical_cores",
    "resolve_provider",
]

# The order in which "auto" chooses among those that work here: a GPU, then the processor. On the processor
# openvino steps no faster than onnxruntime and takes twice as long to load (docs/decisions.md).
_PROVIDERS = {"cuda": "onnxruntime_cuda", "cpu": "onnxruntime_cpu", "openvino": "openvino_cpu"}


def available_providers() -> list[str]:
    """Names of the providers that can run here, the one of "auto" first: package and device are there."""
    return [name for name in _PROVIDERS if _problem(name) is None]


def resolve_provider(provider: str) -> str:
    """Turn "auto" into the first provider available; check any other name.

    Raises ProviderUnavailable when the name is unknown or its device or package is absent.
    """
    if provider == "auto":
        return available_providers()[0]
    if provider not in _PROVIDERS:
        raise ProviderUnavailable(
            f"provider: got {provider!r}, expected auto or one of {', '.join(_PROVIDERS)}; "
            f"available here: {', '.join(available_providers())}"
        )
    problem = _problem(provider)
    if problem is not None:
        raise ProviderUnavailable(
            f"provider {provider!r} cannot be used: {problem}; "
            f"available here: {', '.join(available_providers())}"
        )
    return provider


def open_session(path: Path, provider: str, threads: int | None = None) -> Session:
    """Open an ONNX file. threads: None takes one per physical core that this process may use.

    Raises ProviderUnavailable for an absent provider or one that gave way to another, and PackInvalid for a
    file that the provider cannot read.
    """
    name = resolve_provider(provider)
    module = import_module(f"faceavatar.backends.{_PROVIDERS[name]}")
    opener: Callable[[Path, int], Session] = module.open_session
    return opener(path, threads or physical_cores())


def _problem(provider: str) -> str | None:
    module = import_module(f"faceavatar.backends.{_PROVIDERS[provider]}")
    try:
        check: Callable[[], str | None] = module.problem
        return check()
    except MissingExtra as error:
        return str(error)
