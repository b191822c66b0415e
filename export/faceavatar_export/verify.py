"""Runs an exported graph beside its torch module and reports how far they lie apart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn


def relative_error(module: nn.Module, path: Path, inputs: Mapping[str, Tensor]) -> float:
    """Root mean square of (graph - torch) over that of torch; ONNX Runtime's CPU provider, worst output."""
    with torch.inference_mode():
        answer = module.eval()(*inputs.values())
    expected = [tensor.numpy() for tensor in ((answer,) if isinstance(answer, Tensor) else answer)]
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = {value.name for value in session.get_inputs()}
    feeds = {name: value.numpy() for name, value in inputs.items() if name in names}
    pairs = list(zip(session.run(None, feeds), expected, strict=True))
    for got, wanted in pairs:
        if got.shape != wanted.shape:
            raise ValueError(f"{path.name}: shape {got.shape}, torch gives {wanted.shape}")
    return max(
        float(np.sqrt(np.mean((got - wanted) ** 2) / max(np.mean(wanted**2), 1e-20))) for got, wanted in pairs
    )
