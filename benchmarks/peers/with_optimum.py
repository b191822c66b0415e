"""optimum-onnx's pipeline on the pack's own graphs: the face written into the UNet as constants.

It knows no face adapter, and its graphs have other names than ours: the nodes and weights are the same.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from optimum.onnxruntime import ORTStableDiffusionPipeline
from with_diffusers import Drawn, drawer

# Ours -> optimum's, for inputs and outputs.
NAMES = {
    "text_encoder": ("text_encoder", {}),
    "unet": ("unet", {"noise_pred": "out_sample"}),
    "vae_decoder": ("vae_decoder", {"latents": "latent_sample", "image": "sample"}),
}


def prepare(spec: dict[str, Any]) -> None:
    """Writes the folder that optimum reads; the weights are linked, not copied."""
    folder, pack, source = Path(spec["folder"]), Path(spec["pack"]), Path(spec["checkpoint"])
    if (folder / "model_index.json").is_file():
        return
    tokens = np.load(spec["inputs"])["face_tokens"]
    for role, (part, names) in NAMES.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        model = onnx.load(pack / f"{role}.onnx", load_external_data=False)
        if role == "unet":
            _fix(model, {"face_tokens": tokens, "face_scale": np.ones(1, np.float32)})
        _rename(model, names)
        data = f"{role}.onnx.data"
        if (pack / data).is_file() and not (folder / part / data).exists():
            os.link(pack / data, folder / part / data)
        onnx.save(model, folder / part / "model.onnx")
        config = source / ("vae" if part == "vae_decoder" else part) / "config.json"
        shutil.copy(config, folder / part / "config.json")
    for part in ("scheduler", "tokenizer"):
        shutil.copytree(source / part, folder / part, dirs_exist_ok=True)
    _old_tokenizer(folder / "tokenizer")
    index = (source / "model_index.json").read_text(encoding="utf-8")
    (folder / "model_index.json").write_text(index, encoding="utf-8")


def load(spec: dict[str, Any]) -> Callable[[int, int, int, bool], Drawn]:
    """The folder in ONNX Runtime on the processor."""
    pipeline = ORTStableDiffusionPipeline.from_pretrained(spec["folder"], provider="CPUExecutionProvider")
    pipeline.set_progress_bar_config(disable=True)
    return drawer(spec, pipeline, torch.float32, {})


def _old_tokenizer(folder: Path) -> None:
    """The files that the transformers of its time reads, from the one that today's writes."""
    model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    merges = [one if isinstance(one, str) else " ".join(one) for one in model["merges"]]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")


def _fix(model: onnx.ModelProto, values: dict[str, Any]) -> None:
    kept = [value for value in model.graph.input if value.name not in values]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in values.items())


def _rename(model: onnx.ModelProto, names: dict[str, str]) -> None:
    for value in (*model.graph.input, *model.graph.output):
        value.name = names.get(value.name, value.name)
    for node in model.graph.node:
        for side in (node.input, node.output):
            for index, name in enumerate(side):
                side[index] = names.get(name, name)
