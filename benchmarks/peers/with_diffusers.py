"""diffusers' StableDiffusionPipeline with its own FaceID, LoRA halves fused, as its documentation does it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from child import GUIDANCE, NEGATIVE, latents_of, prompt_of
from diffusers import StableDiffusionPipeline


@dataclass
class Drawn:
    step_ends: list[float]
    decode_seconds: float | None
    picture: Any


def load(spec: dict[str, Any]) -> Callable[[int, int, int, bool], Drawn]:
    """The checkpoint and the adapter in the dtype of the options."""
    options = spec["options"]
    dtype = getattr(torch, options.get("dtype", "float32"))
    pipeline: Any = StableDiffusionPipeline.from_pretrained(spec["checkpoint"], torch_dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    adapter = Path(spec["adapter"])
    pipeline.load_ip_adapter(
        str(adapter.parent), subfolder="", weight_name=adapter.name, image_encoder_folder=None
    )
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    pipeline.set_ip_adapter_scale(1.0)
    if options.get("channels_last"):
        pipeline.unet.to(memory_format=torch.channels_last)
        pipeline.vae.to(memory_format=torch.channels_last)
    if options.get("compile"):
        pipeline.unet = torch.compile(pipeline.unet)
        pipeline.vae.decode = torch.compile(pipeline.vae.decode)
    face = torch.from_numpy(np.load(spec["inputs"])["face_embeds"])[None].to(dtype)
    return drawer(spec, pipeline, dtype, {"ip_adapter_image_embeds": [torch.cat([0 * face, face])]})


def drawer(
    spec: dict[str, Any], pipeline: Any, dtype: torch.dtype, more: dict[str, Any]
) -> Callable[[int, int, int, bool], Drawn]:
    """A draw over any pipeline that is called as diffusers' are."""

    def draw(number: int, steps: int, size: int, decode: bool) -> Drawn:
        ends = []

        def tick(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            ends.append(time.perf_counter())
            return tensors

        found = pipeline(
            prompt=prompt_of(number),
            negative_prompt=NEGATIVE,
            height=size,
            width=size,
            num_inference_steps=steps,
            guidance_scale=GUIDANCE,
            latents=torch.from_numpy(latents_of(spec, number, size)).to(dtype),
            output_type="np" if decode else "latent",
            callback_on_step_end=tick,
            **more,
        ).images
        decoding = time.perf_counter() - ends[-1]
        if not decode:
            return Drawn(ends, None, None)
        return Drawn(ends, decoding, np.rint(found[0] * 255).astype(np.uint8))

    return draw
