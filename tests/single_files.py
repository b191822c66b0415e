"""Builds narrow checkpoints as published (heads, norms) and writes them in the single-file key layout.

The renaming goes from diffusers' names to those of CompVis' and Stability's code, the other way round than
diffusers' own converters, and was written from that layout. Knows nothing of packs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import checkpoints
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

Weights = dict[str, Tensor]
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_HEADS_AND_TAILS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}


def build(family: str, prediction: str = "epsilon", seed: int = 0) -> Any:
    """A narrow pipeline of sd15, sd21 or sdxl with the heads and norm groups that the real ones have."""
    torch.manual_seed(seed)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 32, 32, 32),
        latent_channels=4,
        layers_per_block=1,
        scaling_factor=0.13025 if family == "sdxl" else 0.18215,
        force_upcast=family == "sdxl",
    )
    common: dict[str, Any] = {"vae": checkpoints._lively(vae)}
    if family == "sdxl":
        return _xl(common, seed)
    linear = family == "sd21"
    unet = UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(64, 128, 128, 128) if linear else (32, 64, 64, 64),
        layers_per_block=1,
        cross_attention_dim=64,
        attention_head_dim=(1, 2, 2, 2) if linear else 8,
        use_linear_projection=linear,
    )
    text = CLIPTextModel(_text(64, 2, hidden_act="gelu" if linear else "quick_gelu"))
    return StableDiffusionPipeline(
        **common,
        text_encoder=checkpoints._lively(text),
        tokenizer=checkpoints.tokenizer("!" if linear else "<|endoftext|>"),
        unet=checkpoints._lively(unet),
        scheduler=DDIMScheduler(
            **checkpoints.SCHEDULE, set_alpha_to_one=False, clip_sample=False, prediction_type=prediction
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _xl(common: Mapping[str, Any], seed: int) -> StableDiffusionXLPipeline:
    unet = UNet2DConditionModel(
        sample_size=128,
        block_out_channels=(64, 128, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        transformer_layers_per_block=(1, 1, 2),
        cross_attention_dim=64 + 128,
        attention_head_dim=(1, 2, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=16,
        projection_class_embeddings_input_dim=40 + 6 * 16,
    )
    second = _text(128, 3, hidden_act="gelu", projection_dim=40)
    return StableDiffusionXLPipeline(
        **common,
        text_encoder=checkpoints._lively(CLIPTextModel(_text(64, 3, hidden_act="quick_gelu"))),
        text_encoder_2=checkpoints._lively(CLIPTextModelWithProjection(second)),
        tokenizer=checkpoints.tokenizer("<|endoftext|>"),
        tokenizer_2=checkpoints.tokenizer("!"),
        unet=checkpoints._lively(unet),
        scheduler=EulerDiscreteScheduler(**checkpoints.SCHEDULE, timestep_spacing="leading"),
    )


def _text(width: int, layers: int, **more: Any) -> CLIPTextConfig:
    config = checkpoints.text_config(width, layers, **more)
    config.num_attention_heads = width // 64
    return config


def write(pipeline: Any, path: Path, family: str, metadata: Mapping[str, str] | None = None) -> Path:
    """All of a pipeline's weights in one file."""
    save_file(weights(pipeline, family), path, metadata=dict(metadata or {}))
    return path


def weights(pipeline: Any, family: str) -> Weights:
    """A pipeline's weights under the published single-file names."""
    renamed = _prefixed("model.diffusion_model.", _unet(pipeline.unet))
    renamed |= _prefixed("first_stage_model.", _vae(pipeline.vae))
    first = pipeline.text_encoder.state_dict()
    if family == "sd15":
        renamed |= _prefixed("cond_stage_model.transformer.text_model.", first)
    elif family == "sd21":
        renamed |= _prefixed("cond_stage_model.model.", _open_clip(first, one_more=True))
    else:
        second = pipeline.text_encoder_2.state_dict()
        second = {key.removeprefix("text_model."): weight for key, weight in second.items()}
        renamed |= _prefixed("conditioner.embedders.0.transformer.text_model.", first)
        renamed |= _prefixed("conditioner.embedders.1.model.", _open_clip(second))
    # Real files carry tables and averages too; a reader has to leave them alone.
    renamed["alphas_cumprod"] = torch.linspace(1, 0, 1000)
    renamed["model_ema.decay"] = torch.tensor(0.9999)
    for prefix in ("cond_stage_model.transformer.", "conditioner.embedders.0.transformer."):
        if any(key.startswith(prefix) for key in renamed):
            renamed[f"{prefix}text_model.embeddings.position_ids"] = torch.arange(77)[None]
    if family == "sd21":
        renamed["cond_stage_model.model.text_projection"] = torch.randn(64, 64)
    return {key: weight.clone().contiguous() for key, weight in renamed.items()}


def tiny_vae(seed: int = 3) -> AutoencoderTiny:
    """A narrow decoder of TAESD's form."""
    torch.manual_seed(seed)
    tiny = AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(16, 16, 16, 16),
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(2, 1, 1, 1),
    )
    checkpoints._lively(tiny)
    last = tiny.decoder.layers[-1]
    with torch.no_grad():  # pictures as lively as real ones: 0.5 and 0.2 of the range in the mean and around
        out = tiny.decoder.layers(torch.randn(1, 4, 16, 16))
        mean, spread = out.mean((0, 2, 3)), out.std((0, 2, 3))
        last.weight.mul_(0.2 / spread[:, None, None, None])
        last.bias.copy_((last.bias - mean) * 0.2 / spread + 0.5)
    return tiny


def write_tiny_vae(tiny: AutoencoderTiny, path: Path) -> Path:
    """The decoder alone, as taesd_decoder.safetensors has it: its layer 0 clamps and has no weights."""
    layers = tiny.decoder.layers.state_dict()
    renamed = {re.sub(r"^\d+", lambda m: str(int(m[0]) + 1), key): one for key, one in layers.items()}
    save_file(renamed, path)
    return path


def _prefixed(prefix: str, renamed: Mapping[str, Tensor]) -> Weights:
    return {prefix + key: weight for key, weight in renamed.items()}


def _unet(unet: UNet2DConditionModel) -> Weights:
    layers = int(unet.config.layers_per_block)
    return {_unet_name(key, layers, unet): weight for key, weight in unet.state_dict().items()}


def _unet_name(key: str, layers: int, unet: UNet2DConditionModel) -> str:
    for ours, theirs in _HEADS_AND_TAILS.items():
        if key.startswith(f"{ours}."):
            return theirs + _resnet_part(key.removeprefix(ours))
    match = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)(\..+)", key)
    assert match is not None, key
    way, block, kind, index, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
    if way == "down":
        if kind == "downsamplers":
            return f"input_blocks.{(layers + 1) * (block + 1)}.0.op" + rest.removeprefix(".conv")
        place = f"input_blocks.{(layers + 1) * block + index + 1}"
    elif kind == "upsamplers":
        after = 2 if hasattr(unet.up_blocks[block], "attentions") else 1
        return f"output_blocks.{(layers + 1) * block + layers}.{after}{rest}"
    else:
        place = f"output_blocks.{(layers + 1) * block + index}"
    return f"{place}.1{rest}" if kind == "attentions" else f"{place}.0{_resnet_part(rest)}"


def _resnet_part(rest: str) -> str:
    _, part, *tail = rest.split(".")
    return "." + ".".join([_RESNET.get(part, part), *tail])


def _vae(vae: AutoencoderKL) -> Weights:
    last = len(vae.config.block_out_channels) - 1
    renamed: Weights = {}
    for key, weight in vae.state_dict().items():
        name = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", key)
        name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
        name = re.sub(
            r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda m: f"up.{last - int(m[1])}.block.{m[2]}", name
        )
        name = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{last - int(m[1])}.upsample", name)
        name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
        name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        if "mid_block.attentions.0" in name:
            name = name.replace("mid_block.attentions.0", "mid.attn_1")
            for ours, theirs in (("group_norm", "norm"), ("to_out.0", "proj_out"), ("to_", "")):
                name = name.replace(ours, theirs)
            weight = weight[:, :, None, None] if weight.ndim == 2 else weight  # 1x1 convolutions there
        renamed[name] = weight
    return renamed


def _open_clip(state: Mapping[str, Tensor], one_more: bool = False) -> Weights:
    """one_more: a last block that SD2 was trained without and its files have all the same."""
    names = {
        "embeddings.token_embedding.weight": "token_embedding.weight",
        "embeddings.position_embedding.weight": "positional_embedding",
        "final_layer_norm.weight": "ln_final.weight",
        "final_layer_norm.bias": "ln_final.bias",
    }
    parts = {
        "layer_norm1": "ln_1",
        "layer_norm2": "ln_2",
        "self_attn.out_proj": "attn.out_proj",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }
    renamed = {theirs: state[ours] for ours, theirs in names.items()}
    layers = 1 + max(int(key.split(".")[2]) for key in state if key.startswith("encoder.layers."))
    for layer in range(layers):
        ours, theirs = f"encoder.layers.{layer}.", f"transformer.resblocks.{layer}."
        for kind in ("weight", "bias"):
            renamed[f"{theirs}attn.in_proj_{kind}"] = torch.cat(
                [state[f"{ours}self_attn.{part}_proj.{kind}"] for part in "qkv"]
            )
            renamed |= {f"{theirs}{new}.{kind}": state[f"{ours}{old}.{kind}"] for old, new in parts.items()}
    if one_more:
        block = f"transformer.resblocks.{layers - 1}."
        renamed |= {
            key.replace(block, f"transformer.resblocks.{layers}."): weight + 1
            for key, weight in renamed.items()
            if key.startswith(block)
        }
    if "text_projection.weight" in state:
        renamed["text_projection"] = state["text_projection.weight"].T
    renamed["logit_scale"] = torch.tensor(4.6)
    return renamed
