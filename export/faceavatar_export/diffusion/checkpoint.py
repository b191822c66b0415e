"""Opens a Stable Diffusion checkpoint in diffusers' folder layout, offline. Knows files, not graphs.

A hub id is turned into such a folder first, and only at a pinned commit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from faceavatar.errors import InvalidRequest, PackInvalid

Family = Literal["sd15", "sd21", "sdxl"]
Pipeline = Any  # diffusers' pipelines are untyped
_HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>\S+)")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_CLASSES = {
    "StableDiffusionPipeline": StableDiffusionPipeline,
    "StableDiffusionXLPipeline": StableDiffusionXLPipeline,
}


@dataclass(frozen=True)
class Lora:
    """A LoRA file, and how strongly it is fused."""

    path: Path
    weight: float = 1.0


@dataclass(frozen=True)
class Checkpoint:
    """A pipeline in float32 and its family. Loading it again gives fresh, unchanged weights.

    controlnet: InstantID's IdentityNet, float32, where there is one.
    """

    folder: Path
    family: Family
    pipeline: Pipeline
    controlnet: Any = None


def find_source(source: str) -> Path:
    """The folder of SOURCE: a folder itself, or OWNER/NAME@COMMIT of the hub, fetched or from its cache.

    Raises InvalidRequest for a hub id without a whole commit, and where there is no such folder.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    match = _HUB.fullmatch(source)
    if match is not None and not folder.exists():
        if not _COMMIT.fullmatch(match["revision"]):
            raise InvalidRequest(
                "SOURCE", source, "OWNER/NAME@COMMIT with all 40 digits: names of branches move"
            )
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(match["repo"], revision=match["revision"]))
    raise InvalidRequest("SOURCE", source, "a folder in diffusers' layout, or OWNER/NAME@COMMIT of the hub")


def open_checkpoint(folder: Path, loras: Sequence[Lora] = ()) -> Checkpoint:
    """Load a folder's pipeline and fuse LoRAs into it, one after the other.

    Raises PackInvalid for anything but SD1.5, SD2.1 or SDXL, and for a LoRA that is none of this model's.
    """
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PackInvalid(
            f"{folder}: no model_index.json that can be read: not a checkpoint folder"
        ) from error
    name = index.get("_class_name")
    if name not in _CLASSES:
        raise PackInvalid(f"{folder}: {name} cannot be exported; supported: {', '.join(_CLASSES)}")
    leave = {} if name.endswith("XLPipeline") else {"safety_checker": None, "requires_safety_checker": False}
    pipeline = _CLASSES[name].from_pretrained(
        folder,
        torch_dtype=torch.float32,
        local_files_only=True,
        feature_extractor=None,
        image_encoder=None,
        **leave,
    )
    pipeline.set_progress_bar_config(disable=True)
    config = pipeline.unet.config
    if config.time_cond_proj_dim is not None:
        raise PackInvalid(
            f"{folder}: its UNet takes the guidance scale as an input (time_cond_proj_dim "
            f"{config.time_cond_proj_dim}); such LCMs are not supported: fuse LCM-LoRA into the base"
        )
    if config.in_channels != pipeline.vae.config.latent_channels:
        raise PackInvalid(
            f"{folder}: its UNet takes {config.in_channels} channels: inpainting is not supported"
        )
    for lora in loras:
        _fuse(pipeline, lora)
    return Checkpoint(folder, _family(pipeline), pipeline)


def _fuse(pipeline: Pipeline, lora: Lora) -> None:
    """Let diffusers and peft read the file (they know a dozen layouts) and add it to the weights."""
    path = lora.path
    try:
        pipeline.load_lora_weights(str(path.parent), weight_name=path.name, local_files_only=True)
        if not pipeline.get_list_adapters():
            raise ValueError("none of its keys belongs to this model")
        pipeline.fuse_lora(lora_scale=lora.weight)
    except Exception as error:  # the libraries raise a dozen unrelated classes
        first = str(error).strip().splitlines()[0]
        raise PackInvalid(f"{path.name}: cannot be fused as a LoRA: {first}") from error
    pipeline.unload_lora_weights()


def _family(pipeline: Pipeline) -> Family:
    if isinstance(pipeline, StableDiffusionXLPipeline):
        return "sdxl"
    # SD2 projects with Linear layers where SD1 has 1x1 convolutions.
    return "sd21" if pipeline.unet.config.use_linear_projection else "sd15"
