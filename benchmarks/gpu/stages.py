"""The stages: each a piece of work of its own process, that leaves one record and may fail alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gpu.models import Model, export

MODELS = ("sd15", "sdxl")
# The name to report -> the provider that runs: in a dry run the processor stands in.
PROVIDERS = {"cuda": "cuda", "tensorrt-rtx": "tensorrt-rtx", "tensorrt": "tensorrt"}
DRY_PROVIDERS = {"cuda": "cpu", "tensorrt-rtx": "cpu"}
_COMPILED = {"tensorrt-rtx", "tensorrt"}
_PACKAGES = (
    *("torch", "diffusers", "onnxruntime-gpu", "onnxruntime", "onnxruntime-ep-nv-tensorrt-rtx-cu13"),
    *("tensorrt", "onnx", "onnxscript"),
)
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Bench:
    """One measurement: its folder, and whether it is a dry run."""

    out: Path
    dry: bool
    found: Mapping[str, Record]

    @property
    def device(self) -> str:
        """torch's word for where it runs."""
        return "cpu" if self.dry else "cuda"

    @property
    def providers(self) -> Mapping[str, str]:
        return DRY_PROVIDERS if self.dry else PROVIDERS

    @property
    def models(self) -> tuple[Model, ...]:
        return tuple(Model(name, self.dry, self.out / "models" / name) for name in MODELS)

    def engines(self, model: Model) -> dict[str, Path]:
        """What `compile` stages left, by the name to report."""
        found = {}
        for name in self.providers:
            result = self.found.get(f"compile {model.name} {name}", {}).get("result") or {}
            if result.get("engine"):
                found[name] = Path(result["engine"])
        return found


def plan(bench: Bench) -> dict[str, Callable[[], dict[str, Any]]]:
    """All stages in their order, by name."""
    stages: dict[str, Callable[[], dict[str, Any]]] = {"machine": partial(_machine, bench)}
    for model in bench.models:
        stages[f"weights {model.name}"] = partial(_weights, model)
        stages[f"export {model.name}"] = partial(export, model)
        for name in sorted(_COMPILED & set(bench.providers)):
            stages[f"compile {model.name} {name}"] = partial(_compile, bench, model, name)
        stages[f"parity {model.name}"] = partial(_parity, bench, model)
        for pictures in model.batches:
            stages[f"time {model.name} batch {pictures}"] = partial(_time, bench, model, pictures)
    return stages


def _machine(bench: Bench) -> dict[str, Any]:
    import torch

    from faceavatar.backends.nvidia import find_gpu
    from gpu.peak import measure_peak

    gpu = find_gpu()
    return {
        "device": "the processor, in place of a GPU" if bench.dry else str(gpu),
        "driver": "" if gpu is None else gpu.driver,
        "cuda": torch.version.cuda,
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
        "gemm": measure_peak(bench.device, bench.dry),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _weights(model: Model) -> dict[str, Any]:
    shutil.rmtree(model.folder, ignore_errors=True)  # of a run that was cut off
    model.folder.mkdir(parents=True)
    return model.save_weights()


def _compile(bench: Bench, model: Model, name: str) -> dict[str, Any]:
    """The step graph as an engine of the provider's; `refused` where it cannot run here."""
    from faceavatar.backends import Bucket, compile_graph, provider_problem
    from faceavatar.errors import ProviderUnavailable

    provider = bench.providers[name]
    problem = provider_problem(provider)
    if problem is not None:
        return {"refused": problem}
    least, most = model.step_shapes(1), model.step_shapes(model.batches[-1])
    bucket = Bucket(f"batch 1..{model.batches[-1]}", least, least, most)
    target = model.folder / name / "unet_step.engine.onnx"
    shutil.rmtree(target.parent, ignore_errors=True)
    target.parent.mkdir()
    try:
        files = compile_graph(model.step_graph, target, provider, shapes=[bucket], stored="fp16")
    except ProviderUnavailable as error:
        return {"refused": str(error)}
    written = {path.name: path.stat().st_size for path in files}
    return {"files": written, "engine": None if bench.dry else str(files[0])}


def _parity(bench: Bench, model: Model) -> dict[str, Any]:
    from gpu.parity import parity

    return parity(model, bench.providers, bench.engines(model), bench.device)


def _time(bench: Bench, model: Model, pictures: int) -> dict[str, Any]:
    from gpu.timing import time_batch

    peak = bench.found["machine"]["result"]["gemm"]["peak"]
    return time_batch(model, pictures, bench.providers, bench.engines(model), bench.device, peak)
