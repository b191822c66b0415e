"""Runs an exported graph beside its torch module and reports how far they lie apart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn


def relative_error(module: nn.Module, path: Path, inputs: Mapping[str, Tensor]) -> float:
    """Root mean square of (graph - torch) over that of torch; ONNX Runtime's CPU provider, first output."""
    with torch.inference_mode():
        expected = module.eval()(*inputs.values()).numpy()
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = {value.name for value in session.get_inputs()}
    feeds = {name: value.numpy() for name, value in inputs.items() if name in names}
    got = session.run(None, feeds)[0]
    if got.shape != expected.shape:
        raise ValueError(f"{path.name}: shape {got.shape}, torch gives {expected.shape}")
    return float(np.sqrt(np.mean((got - expected) ** 2) / max(np.mean(expected**2), 1e-20)))
