"""The topology of a single-file checkpoint, read off its shapes and written as diffusers' configurations.

Key layout: CompVis' latent-diffusion (SD1), Stability's stablediffusion (SD2) and generative-models (SDXL).
What shapes cannot tell is what those trained: norms of 32 groups, eight heads in SD1, heads of 64 elsewhere.
Knows keys and shapes; loads no weights.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transformers import CLIPTextConfig, CLIPTokenizer

from faceavatar.pack import EMBEDDED

Family = Literal["sd15", "sd21", "sdxl"]
UNET, VAE = "model.diffusion_model.", "first_stage_model."
CLIP, OPEN_CLIP = "cond_stage_model.transformer.text_model.", "cond_stage_model.model."
FIRST_CLIP, SECOND_CLIP = "conditioner.embedders.0.transformer.text_model.", "conditioner.embedders.1.model."
HEAD, SD1_HEADS = 64, 8
SCALING = {"sd15": 0.18215, "sd21": 0.18215, "sdxl": 0.13025}
_SCHEDULE: Mapping[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
}


@dataclass(frozen=True)
class Header:
    """What a safetensors file says of itself without its weights being read."""

    shapes: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, str]

    def count(self, pattern: str) -> int:
        """How many different numbers stand where the pattern has its group."""
        compiled = re.compile(pattern)
        return len({match[1] for key in self.shapes if (match := compiled.match(key))})


def write_configs(folder: Path, header: Header, family: Family, prediction: str) -> None:
    """Writes the configurations, schedulers and tokenizers of a pipeline; no weights."""
    xl = family == "sdxl"
    if xl:
        first, second = (
            _clip(header, FIRST_CLIP),
            _open_clip(header, SECOND_CLIP, header.count(_blocks(SECOND_CLIP))),
        )
    elif family == "sd21":
        # SD2 was trained on the states before the last block, which diffusers' models do not have.
        first, second = _open_clip(header, OPEN_CLIP, header.count(_blocks(OPEN_CLIP)) - 1), None
    else:
        first, second = _clip(header, CLIP), None
    pooled = 0 if second is None else int(second.projection_dim)
    scheduler, settings = _scheduler(header, family, prediction)
    _dump(folder / "unet" / "config.json", _unet(header, family, pooled))
    _dump(folder / "vae" / "config.json", _vae(header, family))
    _dump(folder / "scheduler" / "scheduler_config.json", {"_class_name": scheduler, **settings})
    first.save_pretrained(folder / "text_encoder")
    _tokenizer("!" if family == "sd21" else "<|endoftext|>").save_pretrained(folder / "tokenizer")
    index: dict[str, Any] = {
        "_class_name": "StableDiffusionXLPipeline" if xl else "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", scheduler],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
    }
    if second is not None:
        second.save_pretrained(folder / "text_encoder_2")
        _tokenizer("!").save_pretrained(folder / "tokenizer_2")
        index |= {
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
            "tokenizer_2": ["transformers", "CLIPTokenizer"],
            "force_zeros_for_empty_prompt": True,
        }
    _dump(folder / "model_index.json", index)


def _scheduler(header: Header, family: Family, prediction: str) -> tuple[str, dict[str, Any]]:
    settings = {**_SCHEDULE, "prediction_type": prediction}
    if "ztsnr" in header.shapes:  # kohya's mark of zero terminal SNR, which needs steps from the very end
        settings |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    if family == "sdxl":
        return "EulerDiscreteScheduler", {"timestep_spacing": "leading", **settings}
    return "DDIMScheduler", {"set_alpha_to_one": False, "clip_sample": False, **settings}


def _unet(header: Header, family: Family, pooled: int) -> dict[str, Any]:
    shapes = header.shapes
    channels, depths = _levels(header)
    layers = len(depths[0])
    middle = header.count(rf"{re.escape(UNET)}middle_block\.1\.transformer_blocks\.(\d+)\.")
    attends = [bool(depth[0]) for depth in depths]
    per_block = [depth[0] or 1 for depth in depths]
    per_block[-1] = depths[-1][0] or middle  # the middle block follows the last level's
    projection = next(key for key in shapes if key.startswith(UNET) and key.endswith(".proj_in.weight"))
    context = next(key for key in shapes if key.startswith(UNET) and key.endswith("attn2.to_k.weight"))
    added: dict[str, Any] = {}
    if family == "sdxl":
        width = shapes[f"{UNET}label_emb.0.0.weight"][1]
        added = {
            "addition_embed_type": "text_time",
            "projection_class_embeddings_input_dim": width,
            "addition_time_embed_dim": (width - pooled) // 6,
        }
    return {
        "_class_name": "UNet2DConditionModel",
        "sample_size": 128 if family == "sdxl" else 64,
        "in_channels": shapes[f"{UNET}input_blocks.0.0.weight"][1],
        "out_channels": shapes[f"{UNET}out.2.weight"][0],
        "block_out_channels": channels,
        "layers_per_block": layers,
        "down_block_types": ["CrossAttnDownBlock2D" if one else "DownBlock2D" for one in attends],
        "up_block_types": ["CrossAttnUpBlock2D" if one else "UpBlock2D" for one in reversed(attends)],
        "transformer_layers_per_block": per_block,
        "cross_attention_dim": shapes[context][1],
        "attention_head_dim": SD1_HEADS if family == "sd15" else [width // HEAD for width in channels],
        "use_linear_projection": len(shapes[projection]) == 2,
        **added,
    }


def _levels(header: Header) -> tuple[list[int], list[list[int]]]:
    """Each level's channels, and for each of its blocks how many transformers it has."""
    channels: list[int] = []
    depths: list[list[int]] = [[]]
    place = re.escape(UNET)
    for index in range(1, header.count(rf"{place}input_blocks\.(\d+)\.")):
        if f"{UNET}input_blocks.{index}.0.op.weight" in header.shapes:
            depths.append([])
            continue
        if not depths[-1]:
            channels.append(header.shapes[f"{UNET}input_blocks.{index}.0.out_layers.3.weight"][0])
        depths[-1].append(header.count(rf"{place}input_blocks\.{index}\.1\.transformer_blocks\.(\d+)\."))
    return channels, depths


def _vae(header: Header, family: Family) -> dict[str, Any]:
    shapes, place = header.shapes, re.escape(VAE)
    levels = header.count(rf"{place}encoder\.down\.(\d+)\.")
    return {
        "_class_name": "AutoencoderKL",
        "block_out_channels": [
            shapes[f"{VAE}encoder.down.{level}.block.0.conv1.weight"][0] for level in range(levels)
        ],
        "layers_per_block": header.count(rf"{place}encoder\.down\.0\.block\.(\d+)\."),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "latent_channels": shapes.get(f"{VAE}decoder.conv_in.weight", (0, 4))[1],
        "scaling_factor": SCALING[family],
        "force_upcast": family == "sdxl",
    }


def _clip(header: Header, prefix: str) -> CLIPTextConfig:
    """OpenAI's CLIP: transformers' own keys."""
    width = header.shapes[f"{prefix}embeddings.token_embedding.weight"][1]
    return _text(
        width,
        header.shapes[f"{prefix}encoder.layers.0.mlp.fc1.weight"][0],
        header.count(rf"{re.escape(prefix)}encoder\.layers\.(\d+)\."),
        "quick_gelu",
        width,
    )


def _open_clip(header: Header, prefix: str, layers: int) -> CLIPTextConfig:
    """OpenCLIP's keys, which diffusers renames."""
    width = header.shapes[f"{prefix}token_embedding.weight"][1]
    projection = header.shapes.get(f"{prefix}text_projection", (width, width))[1]
    wide = header.shapes[f"{prefix}transformer.resblocks.0.mlp.c_fc.weight"][0]
    return _text(width, wide, layers, "gelu", projection)


def _blocks(prefix: str) -> str:
    return rf"{re.escape(prefix)}transformer\.resblocks\.(\d+)\."


def _text(width: int, wide: int, layers: int, act: str, projection: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        hidden_size=width,
        intermediate_size=wide,
        num_hidden_layers=layers,
        num_attention_heads=max(width // HEAD, 1),
        hidden_act=act,
        projection_dim=projection,
        vocab_size=49408,
        bos_token_id=49406,
        eos_token_id=49407,
        pad_token_id=1,
    )


def _tokenizer(pad: str) -> CLIPTokenizer:
    """CLIP's own, which the embedded pack carries."""
    path = EMBEDDED / "toon" / "tokenizer.json"
    model = json.loads(path.read_text(encoding="utf-8"))["model"]
    merges = [tuple(one) if isinstance(one, list) else tuple(one.split(" ")) for one in model["merges"]]
    return CLIPTokenizer(vocab=model["vocab"], merges=merges, pad_token=pad, model_max_length=77)


def _dump(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
