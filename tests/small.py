"""Checkpoints whose UNet has two levels: for what concerns neither topology nor family, at half the cost."""

from __future__ import annotations

import json
from pathlib import Path

import checkpoints
import torch
from diffusers import DDIMScheduler, LCMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel


def small(folder: Path, guidance_input: int | None = None) -> Path:
    """SD1.5's parts. guidance_input: the width of a latent consistency model's guidance embedding."""
    torch.manual_seed(2)
    unet = UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=48,
        norm_num_groups=8,
        time_cond_proj_dim=guidance_input,
    )
    scheduler = DDIMScheduler(**checkpoints.SCHEDULE, set_alpha_to_one=False, clip_sample=False)
    pipeline = StableDiffusionPipeline(
        vae=checkpoints._vae(0.18215),
        text_encoder=checkpoints._lively(CLIPTextModel(checkpoints.text_config(48, 2))),
        tokenizer=checkpoints.tokenizer("<|endoftext|>"),
        unet=checkpoints._lively(unet),
        scheduler=scheduler if guidance_input is None else LCMScheduler.from_config(scheduler.config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    if guidance_input is not None:  # as the published one calls itself
        index = json.loads((folder / "model_index.json").read_text())
        index["_class_name"] = "LatentConsistencyModelPipeline"
        (folder / "model_index.json").write_text(json.dumps(index))
    return folder
