"""InstantID: its ControlNet, the IdentityNet, inside the UNet's graph, and the pipeline it is proved against.

Sources: Wang et al. 2024 (arXiv:2401.07519); instantX-research/InstantID, ip_adapter/resampler.py and
pipeline_stable_diffusion_xl_instantid.py. Knows no ONNX and no pack.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel, StableDiffusionXLControlNetPipeline, UNet2DConditionModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from faceavatar.errors import InvalidRequest, PackInvalid
from faceavatar_export.diffusion.checkpoint import Checkpoint
from faceavatar_export.diffusion.face_adapter import FaceAdapterFile
from faceavatar_export.diffusion.modules import SdUNet
from faceavatar_export.face_attention import PlainAttention

SCALE = 0.8  # of face and ControlNet: the authors' default
CONTROL = ("control_image", "controlnet_scale")
_COND = "controlnet_cond_embedding"
# What a ControlNet must share with the UNet whose blocks it steers.
_SHARED = (
    "block_out_channels",
    "layers_per_block",
    "cross_attention_dim",
    "projection_class_embeddings_input_dim",
)


def check_parts(adapter: FaceAdapterFile | None, controlnet: Path | None) -> None:
    """Raises InvalidRequest for an InstantID adapter without its ControlNet, or the other way round."""
    instantid = adapter is not None and adapter.kind == "instantid"
    if instantid and controlnet is None:
        raise InvalidRequest(
            "--controlnet", None, "the folder or file of InstantID's ControlNet: the adapter needs it"
        )
    if controlnet is not None and not instantid:
        kind = "none" if adapter is None else adapter.kind
        raise InvalidRequest(
            "--controlnet", str(controlnet), f"nothing without InstantID's --face-adapter (here: {kind})"
        )


def with_controlnet(checkpoint: Checkpoint, path: Path | None) -> Checkpoint:
    """The checkpoint with an IdentityNet in float32 beside it.

    path: a folder in diffusers' layout, or a .safetensors file, with config.json beside it or of the UNet's
    own topology; None leaves the checkpoint as it is. Raises PackInvalid where it cannot be read or was made
    for another UNet, and for a UNet that cannot carry one.
    """
    if path is None:
        return checkpoint
    if checkpoint.family != "sdxl":
        raise PackInvalid(
            f"{checkpoint.folder.name}: a {checkpoint.family} checkpoint, and InstantID is made for sdxl; "
            "take an SDXL checkpoint, or a FaceID adapter"
        )
    unet = checkpoint.pipeline.unet
    if unet.config.time_cond_proj_dim is not None:
        raise PackInvalid(
            f"{checkpoint.folder.name}: its UNet takes the guidance scale as an input, and InstantID is "
            "not supported with that; take a plain SDXL checkpoint and fuse LCM-LoRA with --lora"
        )
    try:
        controlnet = _read_controlnet(path, unet)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise PackInvalid(f"{path}: cannot be read as a ControlNet in diffusers' layout: {first}") from error
    for name in _SHARED:
        got, wanted = controlnet.config[name], unet.config[name]
        if _plain(got) != _plain(wanted):
            raise PackInvalid(
                f"{path}: a ControlNet of another model: its {name} is {got}, the UNet's is {wanted}"
            )
    return replace(checkpoint, controlnet=controlnet.eval())


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _read_controlnet(path: Path, unet: UNet2DConditionModel) -> ControlNetModel:
    folder = path if path.is_dir() else path.parent
    if path.is_file() and not (folder / "config.json").is_file():
        weights = load_file(path)
        # The rest of the topology is the UNet's; how the picture is embedded is told by the weights alone.
        key = f"{_COND}.conv_in.weight"
        if key not in weights:
            raise ValueError(f"{key} is missing")
        widths = [weights[key].shape[0]]
        while f"{_COND}.blocks.{2 * len(widths) - 1}.weight" in weights:
            widths.append(weights[f"{_COND}.blocks.{2 * len(widths) - 1}.weight"].shape[0])
        made = ControlNetModel.from_unet(
            unet, conditioning_embedding_out_channels=tuple(widths), load_weights_from_unet=False
        )
        made.load_state_dict(weights)
        return made.float()
    if path.is_file():
        made = ControlNetModel.from_config(ControlNetModel.load_config(folder, local_files_only=True))
        made.load_state_dict(load_file(path))
        return made.float()
    return ControlNetModel.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True)


class InstantIdUNet(SdUNet):
    """`unet` with the IdentityNet in it; forward has exactly the role's signature with a ControlNet.

    control_image (B, 3, 8 h, 8 w) in 0..1, controlnet_scale (B,). The IdentityNet attends to the face's
    tokens alone, whatever face_scale is; the UNet to the text, and beside it to the face.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        face: Mapping[str, tuple[Tensor, Tensor]],
        controlnet: ControlNetModel,
        dtype: torch.dtype,
    ) -> None:
        super().__init__(unet, face, dtype)
        controlnet.set_attn_processor({name: PlainAttention() for name in controlnet.attn_processors})
        self.controlnet = controlnet.to(dtype)

    @property
    def names(self) -> list[str]:
        return [*super().names, *CONTROL]

    # None of the inputs is left out here, as SdUNet's may be.
    def forward(  # type: ignore[override]
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        face_tokens: Tensor,
        face_scale: Tensor,
        text_embeds: Tensor,
        time_ids: Tensor,
        control_image: Tensor,
        controlnet_scale: Tensor,
    ) -> Tensor:
        noisy, tokens = sample.to(self.dtype), face_tokens.to(self.dtype)
        added = {"text_embeds": text_embeds.to(self.dtype).float(), "time_ids": time_ids}
        down, middle = self.controlnet(
            noisy,
            timestep,
            encoder_hidden_states=tokens,
            controlnet_cond=control_image.to(self.dtype),
            added_cond_kwargs=added,
            return_dict=False,
        )
        scale = controlnet_scale.to(self.dtype)[:, None, None, None]
        out = self.unet(
            noisy,
            timestep,
            encoder_hidden_states.to(self.dtype),
            cross_attention_kwargs={"face_tokens": tokens, "face_scale": face_scale.to(self.dtype)},
            added_cond_kwargs=added,
            down_block_additional_residuals=[residual * scale for residual in down],
            mid_block_additional_residual=middle * scale,
            return_dict=False,
        )
        return torch.as_tensor(out[0].float())


def control_example(random: torch.Generator, shape: tuple[int, int, int], grain: int) -> dict[str, Tensor]:
    """Random inputs of CONTROL for latents of (batch, height, width); grain: pixels a latent cell."""
    batch, height, width = shape
    return {
        "control_image": torch.rand(batch, 3, grain * height, grain * width, generator=random),
        "controlnet_scale": torch.linspace(0.6, 1.0, batch),
    }


def reference_pipeline(checkpoint: Checkpoint) -> Any:
    """diffusers' StableDiffusionXLControlNetPipeline of the checkpoint's parts.

    diffusers has no InstantID of its own. What is theirs in this reference: this pipeline, UNet, ControlNet,
    guidance and scheduler; the resampler (IPAdapterPlusImageProjection), which load_ip_adapter makes of the
    adapter's keys; the decoupled attention (IPAdapterAttnProcessor2_0). What is ours: `sees_faces_only`, one
    hook that gives the ControlNet the face's tokens in place of the text, as the community pipeline does; the
    raw embedding and its zeros go in as arrays, and the keypoint picture is the engine's drawing.
    """
    parts = checkpoint.pipeline.components
    names = ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet", "scheduler")
    pipeline = StableDiffusionXLControlNetPipeline(
        **{name: parts[name] for name in names},
        controlnet=checkpoint.controlnet,
        force_zeros_for_empty_prompt=checkpoint.pipeline.config.force_zeros_for_empty_prompt,
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@contextmanager
def sees_faces_only(pipeline: Any, embeds: Tensor, batch: int, guided: bool) -> Iterator[None]:
    """The pipeline's ControlNet attends to the tokens of embeds (1, 1, 1, E), and of zeros where guided."""
    halves = [torch.zeros_like(embeds), embeds] if guided else [embeds]
    stacked = torch.cat([half.repeat(batch, 1, 1, 1) for half in halves])
    with torch.inference_mode():
        tokens = pipeline.unet.encoder_hid_proj([stacked])[0][:, 0]

    def exchange(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return given, {**named, "encoder_hidden_states": tokens}

    hook = pipeline.controlnet.register_forward_pre_hook(exchange, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
