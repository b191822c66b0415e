"""Which graphs a checkpoint becomes: for each role its module, an example of its inputs, its varying sides.

Knows modules and roles; does not run anything. The examples' sides are odd on purpose: an exporter that sees
even ones may bake "divisible by eight" into the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from faceavatar_export.diffusion.checkpoint import Checkpoint
from faceavatar_export.diffusion.face_adapter import (
    FaceAdapterFile,
    face_weights,
    make_projection,
    merge_lora,
)
from faceavatar_export.diffusion.instantid import InstantIdUNet, control_example
from faceavatar_export.diffusion.modules import (
    Halved,
    SdImageEncoder,
    SdTextEncoder,
    SdUNet,
    SdVaeDecoder,
    SdVaeEncoder,
)

WINDOW = 77
# int8 is how weights lie in the file; the arithmetic is float32.
TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "int8": torch.float32}
Axes = Mapping[str, Mapping[int, str]]


@dataclass(frozen=True)
class GraphPlan:
    """One graph to be: `example` makes inputs from a generator and (batch, latent height, latent width)."""

    role: str
    module: nn.Module
    precision: str
    example: Callable[[torch.Generator, tuple[int, int, int]], dict[str, Tensor]]
    outputs: tuple[str, ...]
    axes: Axes
    output_axes: Axes


def graph_plans(
    checkpoint: Checkpoint,
    adapter: FaceAdapterFile | None,
    image_encoder: Any,
    precision: str,
    vae_encoder: bool = False,
) -> Iterator[GraphPlan]:
    """The graphs one after the other; the pipeline's modules are used up by it.

    vae_encoder: whether photos are to be encoded too.
    """
    pipeline, dtype = checkpoint.pipeline, TYPES[precision]
    xl = checkpoint.family == "sdxl"
    yield _text("text_encoder", SdTextEncoder(pipeline.text_encoder, xl, False, dtype), precision)
    if xl:
        yield _text("text_encoder_2", SdTextEncoder(pipeline.text_encoder_2, True, True, dtype), precision)
    if adapter is not None:
        yield _projection(adapter, precision, _states_shape(image_encoder))
        if adapter.sees_image:
            yield _image(SdImageEncoder(image_encoder, dtype), precision)
    yield _unet(checkpoint, adapter, precision)
    # SDXL's own VAE overflows in half precision and says so itself (force_upcast).
    full, decoder = checkpoint.vae, pipeline.vae
    scale = 1.0 if decoder is full else full.config.scaling_factor / decoder.config.scaling_factor
    inside = "fp32" if decoder.config.force_upcast and xl else precision
    yield _vae(SdVaeDecoder(decoder, TYPES[inside], scale), inside)
    if vae_encoder:
        inside = "fp32" if full.config.force_upcast and xl else precision
        grain = 2 ** (len(full.config.block_out_channels) - 1)
        yield _vae_encoder(SdVaeEncoder(full, TYPES[inside]), inside, grain)


def _text(role: str, module: SdTextEncoder, precision: str) -> GraphPlan:
    def example(random: torch.Generator, shape: tuple[int, int, int]) -> dict[str, Tensor]:
        ids = torch.randint(0, 49406, (shape[0], WINDOW), generator=random)
        ids[:, 0], ids[:, 40:] = 49406, 49407
        return {"input_ids": ids}

    outputs = ("last_hidden_state", "text_embeds") if module.pooled else ("last_hidden_state",)
    batch = {0: "batch"}
    return GraphPlan(
        role, module, precision, example, outputs, {"input_ids": batch}, dict.fromkeys(outputs, batch)
    )


def _states_shape(image_encoder: Any) -> tuple[int, int]:
    if image_encoder is None:
        return 1, 1
    config = image_encoder.config
    return (config.image_size // config.patch_size) ** 2 + 1, int(config.hidden_size)


def _projection(adapter: FaceAdapterFile, precision: str, states: tuple[int, int]) -> GraphPlan:
    def example(random: torch.Generator, shape: tuple[int, int, int]) -> dict[str, Tensor]:
        embeds = torch.randn(shape[0], adapter.embedding_size, generator=random)
        if adapter.kind != "instantid":  # which takes raw embeddings
            embeds = torch.nn.functional.normalize(embeds)
        seen = (
            {"image_embeds": torch.randn(shape[0], *states, generator=random)} if adapter.sees_image else {}
        )
        return {"face_embeds": embeds, **seen}

    module: nn.Module = make_projection(adapter)
    if precision != "fp32":
        module = Halved(module, TYPES[precision])
    batch = {0: "batch"}
    axes = {"face_embeds": batch, **({"image_embeds": batch} if adapter.sees_image else {})}
    return GraphPlan(
        "face_projection", module, precision, example, ("face_tokens",), axes, {"face_tokens": batch}
    )


def _image(module: SdImageEncoder, precision: str) -> GraphPlan:
    size = int(module.encoder.config.image_size)

    def example(random: torch.Generator, shape: tuple[int, int, int]) -> dict[str, Tensor]:
        return {"pixel_values": torch.randn(shape[0], 3, size, size, generator=random)}

    batch = {0: "batch"}
    return GraphPlan(
        *("image_encoder", module, precision, example, ("image_embeds",)),
        *({"pixel_values": batch}, {"image_embeds": batch}),
    )


def _unet(checkpoint: Checkpoint, adapter: FaceAdapterFile | None, precision: str) -> GraphPlan:
    unet = checkpoint.pipeline.unet
    face = None
    if adapter is not None:
        face = face_weights(unet, adapter)
        merge_lora(unet, adapter)
    controlnet = checkpoint.controlnet
    if controlnet is None or face is None:
        module = SdUNet(unet, face, TYPES[precision])
    else:
        module = InstantIdUNet(unet, face, controlnet, TYPES[precision])
    grain = 2 ** (len(checkpoint.pipeline.vae.config.block_out_channels) - 1)
    context, channels = int(unet.config.cross_attention_dim), int(unet.config.in_channels)
    tokens = 0 if adapter is None else adapter.tokens

    def example(random: torch.Generator, shape: tuple[int, int, int]) -> dict[str, Tensor]:
        batch, height, width = shape
        made = {
            "sample": torch.randn(batch, channels, height, width, generator=random),
            "timestep": torch.linspace(961, 401, batch),
            "encoder_hidden_states": torch.randn(batch, WINDOW, context, generator=random),
            "face_tokens": torch.randn(batch, tokens, context, generator=random),
            "face_scale": torch.tensor([0.7]),
        }
        if module.is_xl:
            made["text_embeds"] = torch.randn(batch, _pooled_width(unet), generator=random)
            ids = [8.0 * height, 8.0 * width, 0, 0, 8.0 * height, 8.0 * width]
            made["time_ids"] = torch.tensor([ids] * batch)
        if module.takes_guidance:
            made["timestep_cond"] = torch.randn(batch, unet.config.time_cond_proj_dim, generator=random)
        if controlnet is not None:
            made |= control_example(random, shape, grain)
        return {name: made[name] for name in module.names}

    batch, latents = {0: "batch"}, {0: "batch", 2: "height", 3: "width"}
    axes = {
        "sample": latents,
        "timestep": batch,
        "encoder_hidden_states": {0: "batch", 1: "tokens"},
        "face_tokens": {0: "batch", 1: "face_tokens"},
        "text_embeds": batch,
        "time_ids": batch,
        "timestep_cond": batch,
        "control_image": {0: "batch", 2: "image_height", 3: "image_width"},
        "controlnet_scale": batch,
    }
    wanted = {name: axis for name, axis in axes.items() if name in module.names}
    return GraphPlan("unet", module, precision, example, ("noise_pred",), wanted, {"noise_pred": latents})


def _pooled_width(unet: Any) -> int:
    return int(unet.config.projection_class_embeddings_input_dim - 6 * unet.config.addition_time_embed_dim)


def _vae(module: SdVaeDecoder, precision: str) -> GraphPlan:
    channels = int(module.vae.config.latent_channels)

    def example(random: torch.Generator, shape: tuple[int, int, int]) -> dict[str, Tensor]:
        return {"latents": torch.randn(shape[0], channels, shape[1], shape[2], generator=random)}

    image = {0: "batch", 2: "image_height", 3: "image_width"}
    return GraphPlan(
        *("vae_decoder", module, precision, example, ("image",)),
        *({"latents": {0: "batch", 2: "height", 3: "width"}}, {"image": image}),
    )


def _vae_encoder(module: SdVaeEncoder, precision: str, grain: int) -> GraphPlan:
    def example(random: torch.Generator, shape: tuple[int, int, int]) -> dict[str, Tensor]:
        batch, height, width = shape
        return {"image": torch.rand(batch, 3, grain * height, grain * width, generator=random) * 2 - 1}

    image = {0: "batch", 2: "image_height", 3: "image_width"}
    return GraphPlan(
        *("vae_encoder", module, precision, example, ("latents",)),
        *({"image": image}, {"latents": {0: "batch", 2: "height", 3: "width"}}),
    )
