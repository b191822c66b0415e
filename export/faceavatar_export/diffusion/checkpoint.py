"""Opens a Stable Diffusion checkpoint, offline: a folder in diffusers' layout or one file. Knows no graphs.

A hub id is turned into such a folder first, and only at a pinned commit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from faceavatar.errors import InvalidRequest, PackInvalid
from faceavatar_export.diffusion.schedule import Variant, as_variant
from faceavatar_export.diffusion.single_file import PICKLES, Prediction, open_single_file
from faceavatar_export.diffusion.single_file_config import Family
from faceavatar_export.diffusion.unet import open_unet
from faceavatar_export.diffusion.vae import open_tiny_vae, open_vae

Pipeline = Any  # diffusers' pipelines are untyped
_HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>\S+)")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_CLASSES = {
    "StableDiffusionPipeline": StableDiffusionPipeline,
    "StableDiffusionXLPipeline": StableDiffusionXLPipeline,
    # The same parts and arithmetic; its UNet takes the guidance scale as an input.
    "LatentConsistencyModelPipeline": StableDiffusionPipeline,
}


@dataclass(frozen=True)
class Lora:
    """A LoRA file, and how strongly it is fused."""

    path: Path
    weight: float = 1.0


@dataclass(frozen=True)
class Reading:
    """How to read a checkpoint: what its files leave open, and what takes the place of parts of it.

    config, prediction: for a single file, see single_file.py. variant: replaces the scheduler by that
    variant's own. unet: a folder or file with another UNet. vae: a folder with another AutoencoderKL.
    tiny_vae: a decoder in TAESD's layout.
    """

    config: Path | None = None
    prediction: Prediction | None = None
    variant: Variant | None = None
    unet: Path | None = None
    vae: Path | None = None
    tiny_vae: Path | None = None


AS_IT_IS = Reading()


@dataclass(frozen=True)
class Checkpoint:
    """A pipeline in float32 and its family. Loading it again gives fresh, unchanged weights.

    vae: the AutoencoderKL whose latents the UNet knows; the pipeline's own decodes, and may be a tiny one.
    controlnet: InstantID's IdentityNet, float32, where there is one.
    """

    folder: Path
    family: Family
    pipeline: Pipeline
    vae: Any
    controlnet: Any = None


def find_source(source: str) -> Path:
    """The folder or file of SOURCE, or the folder of OWNER/NAME@COMMIT, from the hub or its cache.

    Raises InvalidRequest for a pickled file, for a hub id without a whole commit, and where there is nothing.
    """
    folder = Path(source).expanduser()
    if folder.suffix.lower() in PICKLES and folder.is_file():
        raise InvalidRequest(
            "SOURCE", source, "a .safetensors file: a pickled checkpoint may run code when it is opened"
        )
    if folder.is_dir() or (folder.suffix == ".safetensors" and folder.is_file()):
        return folder
    match = _HUB.fullmatch(source)
    if match is not None and not folder.exists():
        if not _COMMIT.fullmatch(match["revision"]):
            raise InvalidRequest(
                "SOURCE", source, "OWNER/NAME@COMMIT with all 40 digits: names of branches move"
            )
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(match["repo"], revision=match["revision"]))
    raise InvalidRequest(
        "SOURCE",
        source,
        "a folder in diffusers' layout, a .safetensors file, or OWNER/NAME@COMMIT of the hub",
    )


def open_checkpoint(folder: Path, loras: Sequence[Lora] = (), reading: Reading = AS_IT_IS) -> Checkpoint:
    """Load the pipeline of a folder or single file and fuse LoRAs into it, one after the other.

    Raises PackInvalid for anything but SD1.5, SD2.1 or SDXL, and for a LoRA that is none of this model's;
    InvalidRequest for a reading that contradicts the files.
    """
    vae = None if reading.vae is None else open_vae(reading.vae)
    if folder.is_file():
        pipeline = open_single_file(folder, reading.config, reading.prediction, vae)
    else:
        pipeline = _open_folder(folder, reading, vae)
    pipeline.set_progress_bar_config(disable=True)
    if reading.variant is not None:
        pipeline.scheduler = as_variant(pipeline.scheduler, reading.variant)
    if reading.unet is not None:
        pipeline.register_modules(unet=open_unet(reading.unet, pipeline.unet))
    full = pipeline.vae
    if pipeline.unet.config.in_channels != full.config.latent_channels:
        raise PackInvalid(
            f"{folder}: its UNet takes {pipeline.unet.config.in_channels} channels, its VAE gives "
            f"{full.config.latent_channels}: inpainting is not supported"
        )
    if reading.tiny_vae is not None:
        pipeline.register_modules(vae=open_tiny_vae(reading.tiny_vae, full.config))
    for lora in loras:
        _fuse(pipeline, lora)
    return Checkpoint(folder, _family(pipeline), pipeline, full)


def _open_folder(folder: Path, reading: Reading, vae: Any | None) -> Pipeline:
    for name in ("config", "prediction"):
        if getattr(reading, name) is not None:
            got = str(getattr(reading, name))
            raise InvalidRequest(f"--{name}", got, "nothing with a folder, which says it itself")
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PackInvalid(
            f"{folder}: no model_index.json that can be read: not a checkpoint folder"
        ) from error
    name = index.get("_class_name")
    if name not in _CLASSES:
        raise PackInvalid(f"{folder}: {name} cannot be exported; supported: {', '.join(_CLASSES)}")
    given: dict[str, Any] = {} if vae is None else {"vae": vae}
    if not name.endswith("XLPipeline"):
        given |= {"safety_checker": None, "requires_safety_checker": False}
    return _CLASSES[name].from_pretrained(
        folder,
        torch_dtype=torch.float32,
        local_files_only=True,
        feature_extractor=None,
        image_encoder=None,
        **given,
    )


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
