"""The torch modules that become a pack's graphs, each with exactly its role's signature, float32 outside.

Inside they may run in half precision: the wrapper casts. Knows roles; knows no files and no ONNX.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from torch import Tensor, nn

from faceavatar_export.face_attention import FaceAttention, PlainAttention

ALWAYS_ODD = 40  # no latents are a multiple of 2 ** 40: upsampling then always goes to the skip's own size


class SdUNet(nn.Module):
    """`unet`: sample, timestep, encoder_hidden_states, and what it takes besides: see `names`."""

    def __init__(
        self, unet: UNet2DConditionModel, face: Mapping[str, tuple[Tensor, Tensor]] | None, dtype: torch.dtype
    ) -> None:
        super().__init__()
        context = int(unet.config.cross_attention_dim)
        processors: dict[str, nn.Module | PlainAttention] = {}
        for name in unet.attn_processors:
            processors[name] = PlainAttention()
            if face is not None and name in face:
                width = int(unet.get_submodule(name.removesuffix(".processor")).inner_dim)
                branch = FaceAttention(width, context)
                branch.load_state_dict(
                    dict(zip(("to_k_ip.weight", "to_v_ip.weight"), face[name], strict=True))
                )
                processors[name] = branch
        unet.set_attn_processor(processors)
        # diffusers asks whether the latents divide by 2 ** num_upsamplers and bakes the answer into a trace.
        unet.num_upsamplers = ALWAYS_ODD
        self.unet, self.dtype = unet.to(dtype), dtype
        self.has_face = face is not None
        self.is_xl = unet.config.addition_embed_type == "text_time"
        self.takes_guidance = unet.config.time_cond_proj_dim is not None

    @property
    def names(self) -> list[str]:
        """The inputs, in forward's order."""
        face = ["face_tokens", "face_scale"] if self.has_face else []
        return [
            *("sample", "timestep", "encoder_hidden_states"),
            *face,
            *(["text_embeds", "time_ids"] if self.is_xl else []),
            *(["timestep_cond"] if self.takes_guidance else []),
        ]

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        fourth: Tensor | None = None,
        fifth: Tensor | None = None,
        sixth: Tensor | None = None,
        seventh: Tensor | None = None,
        eighth: Tensor | None = None,
    ) -> Tensor:
        # Spelt out one by one: the exporter takes no *arguments. `names` says which is which.
        more = [tensor for tensor in (fourth, fifth, sixth, seventh, eighth) if tensor is not None]
        given = dict(zip(self.names[3:], more, strict=True))
        # The time ids are numbers like 1024, embedded by sinusoids in float32. The pooled text is joined to
        # them: torch widens it then, an exported graph would join two types, which no runtime opens.
        given = {name: one if name == "time_ids" else one.to(self.dtype) for name, one in given.items()}
        if self.is_xl:
            given["text_embeds"] = given["text_embeds"].float()
        face = {name: given[name] for name in ("face_tokens", "face_scale")} if self.has_face else None
        added = {name: given[name] for name in ("text_embeds", "time_ids")} if self.is_xl else None
        out = self.unet(
            sample.to(self.dtype),
            timestep,
            encoder_hidden_states.to(self.dtype),
            timestep_cond=given.get("timestep_cond"),
            cross_attention_kwargs=face,
            added_cond_kwargs=added,
            return_dict=False,
        )
        return torch.as_tensor(out[0].float())


class SdTextEncoder(nn.Module):
    """`text_encoder`: the last hidden state, or SDXL's penultimate one; its second's pooled too."""

    def __init__(self, encoder: Any, penultimate: bool, pooled: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.encoder, self.penultimate, self.pooled = encoder.to(dtype), penultimate, pooled

    def forward(self, input_ids: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        out = self.encoder(input_ids, output_hidden_states=self.penultimate)
        states = out.hidden_states[-2] if self.penultimate else out.last_hidden_state
        return (states.float(), out.text_embeds.float()) if self.pooled else states.float()


class SdImageEncoder(nn.Module):
    """`image_encoder`: CLIP's penultimate states of an image."""

    def __init__(self, encoder: Any, dtype: torch.dtype) -> None:
        super().__init__()
        self.encoder, self.dtype = encoder.to(dtype), dtype

    def forward(self, pixel_values: Tensor) -> Tensor:
        out = self.encoder(pixel_values.to(self.dtype), output_hidden_states=True)
        return torch.as_tensor(out.hidden_states[-2].float())


class SdVaeDecoder(nn.Module):
    """`vae_decoder`: latents, already divided by the scaling factor, to an image of about -1..1.

    scale: what they are multiplied by again for a tiny decoder, which wants them as the UNet has them.
    """

    def __init__(self, vae: AutoencoderKL | AutoencoderTiny, dtype: torch.dtype, scale: float = 1.0) -> None:
        super().__init__()
        self.vae, self.dtype, self.scale = vae.to(dtype), dtype, scale

    def forward(self, latents: Tensor) -> Tensor:
        if self.scale != 1:
            latents = latents * self.scale
        return torch.as_tensor(self.vae.decode(latents.to(self.dtype), return_dict=False)[0].float())


class SdVaeEncoder(nn.Module):
    """`vae_encoder`: an image of -1..1 to the mean of its latents, not yet scaled."""

    def __init__(self, vae: AutoencoderKL, dtype: torch.dtype) -> None:
        super().__init__()
        self.vae, self.dtype = vae.to(dtype), dtype

    def forward(self, image: Tensor) -> Tensor:
        posterior = self.vae.encode(image.to(self.dtype), return_dict=False)[0]
        return torch.as_tensor(posterior.mode().float())


class Halved(nn.Module):
    """A projection in half precision behind float32 inputs and outputs."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module, self.dtype = module.to(dtype), dtype

    def forward(self, face_embeds: Tensor, image_embeds: Tensor | None = None) -> Tensor:
        inputs = [tensor.to(self.dtype) for tensor in (face_embeds, image_embeds) if tensor is not None]
        return torch.as_tensor(self.module(*inputs).float())
