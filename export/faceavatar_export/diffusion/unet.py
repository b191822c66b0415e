"""A UNet in the place of a checkpoint's own, as Lightning and LCM publish theirs: a folder, or one file.

Knows files; does not know what the UNet was distilled to.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors import SafetensorError
from safetensors.torch import load_file

from faceavatar.errors import PackInvalid

_SAME = ("in_channels", "cross_attention_dim", "addition_embed_type", "projection_class_embeddings_input_dim")


def open_unet(path: Path, own: UNet2DConditionModel) -> UNet2DConditionModel:
    """A folder of diffusers' layout, or a .safetensors file of its keys and of the own UNet's topology.

    Raises PackInvalid for anything else, and for a UNet that the checkpoint's text encoders do not fit.
    """
    try:
        unet = _from_file(path, own) if path.is_file() else _from_folder(path)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise PackInvalid(f"{path}: cannot be read as a UNet: {lines[-1].strip()}") from error
    for name in _SAME:
        got, wanted = unet.config[name], own.config[name]
        if got != wanted:
            raise PackInvalid(
                f"{path}: {name} is {got}, the checkpoint's UNet has {wanted}: made for another family"
            )
    return unet.eval()


def _from_folder(path: Path) -> Any:
    return UNet2DConditionModel.from_pretrained(path, torch_dtype=torch.float32, local_files_only=True)


def _from_file(path: Path, own: UNet2DConditionModel) -> Any:
    if path.suffix != ".safetensors":
        raise ValueError("expected .safetensors: a pickled file may run code when it is opened")
    weights = load_file(path)
    if any(key.startswith("model.diffusion_model.") for key in weights):
        raise ValueError("its keys are a whole checkpoint's: give it as SOURCE")
    unet = UNet2DConditionModel.from_config(own.config)
    unet.load_state_dict({key: weight.float() for key, weight in weights.items()})
    return unet
