"""Reads a face encoder's weights back from its graph, so that training can go on from a pack's.

The exporter folds every batch norm into the convolution before it. Read back, the norm is given the
statistics of some faces and just the scale and offset that undo them, so that the network is its graph again.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from faceavatar_export.toon.face_encoder import FaceEncoder
from faceavatar_export.toon.published_nets import AgeNet


def load_graph(model: FaceEncoder, path: Path, faces: Tensor) -> None:
    """Fills `model` from face_encoder.onnx; `faces` (N, 3, 128, 128) give the norms their statistics.

    A graph from before slot 18 has no logit of age: that one starts at 0. Raises ValueError where the graph
    is another network's.
    """
    values = _values(path)
    norms = {n: m for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    wanted = [n for n, _ in model.named_parameters() if n.rpartition(".")[0] not in norms]
    folded = {name: f"{_before(name)}.weight_bias" for name in norms}
    lost = [name for name in (*wanted, *folded.values()) if name not in values]
    if lost:
        raise ValueError(f"{path.name}: no weights for {', '.join(lost)}; is it the same network?")
    rows = model.head.out_features
    for name in ("head.weight", "head.bias"):
        if len(values[name]) == rows - 1:
            nothing = torch.zeros_like(values[name][:1])
            values[name] = torch.cat([values[name][: rows - 2], nothing, values[name][rows - 2 :]])
    model.load_state_dict({name: values[name] for name in wanted}, strict=False)
    hooks = [
        norm.register_forward_pre_hook(_Undo(norm, values[folded[name]])) for name, norm in norms.items()
    ]
    training = model.training
    with torch.no_grad():
        model.eval().read(faces)
    model.train(training)
    for hook in hooks:
        hook.remove()


def load_age(path: Path) -> AgeNet | None:
    """The age net of face_encoder.onnx, if it has one."""
    values, net = _values(path), AgeNet()
    names = {name: f"age.{name}" for name in net.state_dict()}
    if not all(name in values for name in names.values()):
        return None
    net.load_state_dict({name: values[there] for name, there in names.items()})
    return net


def _values(path: Path) -> dict[str, Tensor]:
    from faceavatar_export.toon.warm_start import constants  # brings diffusers, which takes seconds

    return {name: torch.from_numpy(np.array(array)) for name, array in constants(path).items()}


def _before(norm: str) -> str:
    """The name of the convolution before a norm: the place before it in the same sequence."""
    parent, _, place = norm.rpartition(".")
    return f"{parent}.{int(place) - 1}"


class _Undo:
    """Before a norm runs: takes its input's statistics, and the scale and offset that leave input + bias."""

    def __init__(self, norm: nn.BatchNorm2d, bias: Tensor) -> None:
        self._norm, self._bias = norm, bias

    def __call__(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        norm, (x,) = self._norm, inputs
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3))
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.data = torch.sqrt(variance + norm.eps)
        norm.bias.data = self._bias + mean
