"""VAEs in place of a checkpoint's own: another AutoencoderKL, or a tiny decoder in TAESD's layout.

Key layout of the tiny one's file: madebyollin/taesd, taesd.py, whose Decoder is one nn.Sequential.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from faceavatar.errors import PackInvalid

UNUSED_ENCODER = (8, 8, 8, 8)  # a decoder's file has no encoder; nobody runs this one


def open_vae(folder: Path) -> AutoencoderKL:
    """A folder with config.json and weights. Raises PackInvalid for anything else."""
    try:
        vae = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise PackInvalid(f"{folder}: cannot be read as an AutoencoderKL: {_first_line(error)}") from error
    return vae.eval()


def open_tiny_vae(path: Path, full: Mapping[str, Any]) -> AutoencoderTiny:
    """A folder of diffusers' AutoencoderTiny, or TAESD's decoder in a .safetensors file.

    full: the configuration of the VAE in whose place it decodes. Raises PackInvalid for a file that is none,
    and for a decoder of other latents.
    """
    try:
        tiny = _from_file(path) if path.is_file() else _from_folder(path)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise PackInvalid(f"{path}: cannot be read as a tiny VAE: {_first_line(error)}") from error
    channels = int(full["latent_channels"])
    if tiny.config.latent_channels != channels:
        raise PackInvalid(
            f"{path}: decodes latents of {tiny.config.latent_channels} channels, "
            f"the checkpoint's have {channels}"
        )
    levels = len(full["block_out_channels"])
    if len(tiny.config.num_decoder_blocks) != levels:
        raise PackInvalid(
            f"{path}: enlarges {2 ** (len(tiny.config.num_decoder_blocks) - 1)} times, the checkpoint's VAE "
            f"{2 ** (levels - 1)} times"
        )
    return tiny.eval()


def _from_folder(path: Path) -> AutoencoderTiny:
    return AutoencoderTiny.from_pretrained(path, torch_dtype=torch.float32, local_files_only=True)


def _from_file(path: Path) -> AutoencoderTiny:
    if path.suffix != ".safetensors":
        raise ValueError("expected .safetensors: a pickled file may run code when it is opened")
    weights = {key: weight.float() for key, weight in load_file(path).items()}
    widths, blocks = _topology(weights)
    tiny = AutoencoderTiny(
        latent_channels=weights["1.weight"].shape[1],
        decoder_block_out_channels=widths,
        num_decoder_blocks=blocks,
        encoder_block_out_channels=UNUSED_ENCODER,
        num_encoder_blocks=(1, 1, 1, 1),
    )
    # The file's layer 0 clamps and has no weights; diffusers clamps before its layers.
    layers = {
        re.sub(r"^(\d+)\.", lambda match: f"layers.{int(match[1]) - 1}.", key): weight
        for key, weight in weights.items()
    }
    tiny.decoder.load_state_dict(layers)
    return tiny


def _topology(weights: Mapping[str, Tensor]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Each stage's width and its number of residual blocks: a plain convolution ends a stage."""
    widths: list[int] = []
    blocks: list[int] = []
    if "1.weight" not in weights:
        raise ValueError("1.weight is missing: not TAESD's decoder")
    width, count = weights["1.weight"].shape[0], 0
    for index in sorted({int(key.split(".")[0]) for key in weights} - {1}):
        if f"{index}.conv.0.weight" in weights:
            count += 1
            continue
        widths.append(width)
        blocks.append(count)
        width, count = weights[f"{index}.weight"].shape[0], 0
    return tuple(widths), tuple(blocks)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
