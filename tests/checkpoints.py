"""Builds checkpoints with random weights in diffusers' folder layout, and face adapters in their own.

The topology and the names are those of the real ones; the widths are narrow. Their output means nothing,
their arithmetic is the real one's. Knows nothing of packs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

TOKENIZER = Path(__file__).parents[1] / "engine" / "faceavatar" / "packs" / "toon" / "tokenizer.json"
EMBEDDING, CLIP_WIDTH = 512, 64
SCHEDULE: Mapping[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
}


def tokenizer(pad: str) -> CLIPTokenizer:
    model = json.loads(TOKENIZER.read_text(encoding="utf-8"))["model"]
    merges = [
        tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in model["merges"]
    ]
    return CLIPTokenizer(vocab=model["vocab"], merges=merges, pad_token=pad, model_max_length=77)


def text_config(width: int, layers: int, **more: Any) -> CLIPTextConfig:
    return CLIPTextConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        vocab_size=49408,
        bos_token_id=49406,
        eos_token_id=49407,
        pad_token_id=1,
        **more,
    )


def sd(folder: Path, seed: int = 0, v_prediction: bool = False, turbo: bool = False, layers: int = 1) -> Path:
    """SD1.5's topology, or with v_prediction SD2.1's (linear projections, heads by width).

    layers: resnets and transformers a block; the real ones have 2, and exporting them takes twice as long.
    """
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(32, 64, 64, 64),
        layers_per_block=layers,
        cross_attention_dim=48,
        attention_head_dim=(2, 4, 4, 4) if v_prediction else 8,
        use_linear_projection=v_prediction,
        norm_num_groups=8,
    )
    kind = "v_prediction" if v_prediction else "epsilon"
    scheduler: Any = DDIMScheduler(
        **SCHEDULE, set_alpha_to_one=False, clip_sample=False, prediction_type=kind
    )
    if turbo:
        scheduler = EulerAncestralDiscreteScheduler(**SCHEDULE, timestep_spacing="trailing")
    pipeline = StableDiffusionPipeline(
        vae=_vae(0.18215),
        text_encoder=_lively(CLIPTextModel(text_config(48, 2))),
        tokenizer=tokenizer("!" if v_prediction else "<|endoftext|>"),
        unet=_lively(unet),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def full_sd15(folder: Path) -> Path:
    """SD1.5 at its full width, 860 million weights in the UNet alone: 4 GB on the disk."""
    torch.manual_seed(1)
    text = CLIPTextConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        vocab_size=49408,
        bos_token_id=49406,
        eos_token_id=49407,
        projection_dim=768,
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        latent_channels=4,
        layers_per_block=2,
        scaling_factor=0.18215,
    )
    pipeline = StableDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=CLIPTextModel(text).eval(),
        tokenizer=tokenizer("<|endoftext|>"),
        unet=UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8).eval(),
        scheduler=DDIMScheduler(**SCHEDULE, set_alpha_to_one=False, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def sdxl(folder: Path, seed: int = 0) -> Path:
    """SDXL's topology: two text encoders, pooled text and time ids, transformers of several depths."""
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=128,
        block_out_channels=(32, 64, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        transformer_layers_per_block=(1, 1, 2),
        cross_attention_dim=80,
        attention_head_dim=(2, 4, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=16,
        projection_class_embeddings_input_dim=40 + 6 * 16,
        norm_num_groups=8,
    )
    pipeline = StableDiffusionXLPipeline(
        vae=_vae(0.13025),
        text_encoder=_lively(CLIPTextModel(text_config(32, 3))),
        text_encoder_2=_lively(CLIPTextModelWithProjection(text_config(48, 3, projection_dim=40))),
        tokenizer=tokenizer("<|endoftext|>"),
        tokenizer_2=tokenizer("!"),
        unet=_lively(unet),
        scheduler=EulerDiscreteScheduler(**SCHEDULE, timestep_spacing="leading"),
    )
    pipeline.save_pretrained(folder)
    return folder


def image_encoder(folder: Path) -> Path:
    """A CLIP vision tower of ViT-H's form: patches of 14, here 112 pixels of side and narrow."""
    torch.manual_seed(5)
    config = CLIPVisionConfig(
        hidden_size=CLIP_WIDTH,
        intermediate_size=2 * CLIP_WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=112,
        patch_size=14,
        projection_dim=32,
        hidden_act="gelu",
    )
    _lively(CLIPVisionModelWithProjection(config)).save_pretrained(folder)
    return folder


def face_adapter(path: Path, checkpoint: Path, kind: str, seed: int = 9) -> Path:
    """An IP-Adapter-FaceID file for a checkpoint. kind: faceid, plus (V1 and V2 alike) or portrait."""
    torch.manual_seed(seed)
    unet = UNet2DConditionModel.from_pretrained(checkpoint / "unet")
    context = int(unet.config.cross_attention_dim)
    weights = {f"image_proj.{key}": value for key, value in _image_proj(kind, context).items()}
    for index, name in enumerate(unet.attn_processors):
        attn = unet.get_submodule(name.removesuffix(".processor"))
        width, source = attn.to_q.weight.shape[0], attn.to_k.weight.shape[1]
        if name.endswith("attn2.processor"):
            for part in "kv":
                weights[f"ip_adapter.{index}.to_{part}_ip.weight"] = _random(width, context)
        if kind != "portrait":
            for part, inside in (("q", width), ("k", source), ("v", source), ("out", width)):
                weights[f"ip_adapter.{index}.to_{part}_lora.down.weight"] = _random(8, inside)
                weights[f"ip_adapter.{index}.to_{part}_lora.up.weight"] = _random(width, 8) * 0.3
    if path.suffix == ".bin":
        halves = {
            half: {k.removeprefix(f"{half}."): v for k, v in weights.items() if k.startswith(half)}
            for half in ("image_proj", "ip_adapter")
        }
        torch.save(halves, path)
    else:
        save_file(weights, path)
    return path


def instantid(path: Path, checkpoint: Path, seed: int = 11, width: int = 96, seen: int = EMBEDDING) -> Path:
    """InstantID's ip-adapter.bin for an SDXL checkpoint: resampler and face branch, no LoRA.

    width: the resampler's, 1280 in the real one; its two heads are 64 wide, as all are. seen: numbers that it
    reads, the embedding's.
    """
    torch.manual_seed(seed)
    unet = UNet2DConditionModel.from_pretrained(checkpoint / "unet")
    context = int(unet.config.cross_attention_dim)
    image_proj = {
        "latents": _random(16, width)[None],
        **_linear("proj_in", seen, width),
        **_linear("proj_out", width, context),
        **_norm("norm_out", context),
        **_perceiver_layers("", width, 2 * 64),
    }
    ip_adapter = {
        f"{index}.to_{part}_ip.weight": 5  # as loud as the text, so that a wrong face shows
        * _random(unet.get_submodule(name.removesuffix(".processor")).to_q.weight.shape[0], context)
        for index, name in enumerate(unet.attn_processors)
        if name.endswith("attn2.processor")
        for part in "kv"
    }
    torch.save({"image_proj": image_proj, "ip_adapter": ip_adapter}, path)
    return path


def identity_net(folder: Path, checkpoint: Path, seed: int = 12, **changes: Any) -> Path:
    """InstantID's ControlNetModel folder for an SDXL checkpoint; changes: what of its config differs."""
    torch.manual_seed(seed)
    unet = UNet2DConditionModel.from_pretrained(checkpoint / "unet")
    net = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 16, 16, 32))
    if changes:
        net = ControlNetModel.from_config({**net.config, **changes})
    # A fresh ControlNet ends in zeros, so that it says nothing: these speak.
    zeros = (net.controlnet_cond_embedding.conv_out, net.controlnet_mid_block, *net.controlnet_down_blocks)
    with torch.no_grad():
        for last in zeros:
            last.weight.normal_(std=0.2 / last.weight[0].numel() ** 0.5)
        for name, weight in net.named_parameters():
            if ".attn2.to_" in name and weight.ndim == 2:
                weight.mul_(6.0)  # what the face's tokens say is heard beside the picture
    _lively(net).save_pretrained(folder)
    return folder


def _image_proj(kind: str, context: int) -> dict[str, Tensor]:
    tokens = 16 if kind == "portrait" else 4
    weights = {
        **_linear("proj.0", EMBEDDING, 2 * EMBEDDING),
        **_linear("proj.2", 2 * EMBEDDING, tokens * context),
        **_norm("norm", context),
    }
    if kind != "plus":
        return weights
    inner, base = 64, "perceiver_resampler"
    weights |= {
        **_linear(f"{base}.proj_in", CLIP_WIDTH, context),
        **_linear(f"{base}.proj_out", context, context),
        **_norm(f"{base}.norm_out", context),
    }
    return weights | _perceiver_layers(f"{base}.", context, inner)


def _perceiver_layers(base: str, width: int, inner: int) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    for layer in range(4):
        place = f"{base}layers.{layer}"
        weights |= {
            **_norm(f"{place}.0.norm1", width),
            **_norm(f"{place}.0.norm2", width),
            f"{place}.0.to_q.weight": _random(inner, width),
            f"{place}.0.to_kv.weight": _random(2 * inner, width),
            f"{place}.0.to_out.weight": _random(width, inner),
            **_norm(f"{place}.1.0", width),
            f"{place}.1.1.weight": _random(4 * width, width),
            f"{place}.1.3.weight": _random(width, 4 * width),
        }
    return weights


def _vae(scale: float) -> AutoencoderKL:
    return _lively(
        AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(16, 16, 32, 32),
            latent_channels=4,
            norm_num_groups=8,
            scaling_factor=scale,
            layers_per_block=1,
        )
    )


def _lively(module: Any) -> Any:
    """Random biases and norms too: fresh modules have zeros and ones there, which hide a lost key."""
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if weight.ndim == 1:
                weight.add_(torch.randn_like(weight) * 0.1)
            elif "embedding" in name:
                weight.mul_(5.0)
    return module.eval()


def _random(outside: int, inside: int) -> Tensor:
    weight: Tensor = torch.randn(outside, inside) / inside**0.5
    return weight


def _linear(name: str, inside: int, outside: int) -> dict[str, Tensor]:
    return {f"{name}.weight": _random(outside, inside), f"{name}.bias": torch.randn(outside) * 0.1}


def _norm(name: str, width: int) -> dict[str, Tensor]:
    return {f"{name}.weight": 1 + torch.randn(width) * 0.1, f"{name}.bias": torch.randn(width) * 0.1}
