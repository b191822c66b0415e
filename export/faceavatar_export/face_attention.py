"""A diffusers UNet with decoupled face attention as one plain module, ready to train or to export.

The face branch is IP-Adapter's (Ye et al. 2023, arXiv:2308.06721, equation 5): every cross-attention adds
`face_scale * Attention(Q, K_face, V_face)` to its text attention. The scale is an input of the graph, no
constant.
"""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn import functional as F


def _heads(x: Tensor, heads: int) -> Tensor:
    batch, length, channels = x.shape
    return x.view(batch, length, heads, channels // heads).transpose(1, 2)


def _merge(x: Tensor) -> Tensor:
    batch, heads, length, width = x.shape
    return x.transpose(1, 2).reshape(batch, length, heads * width)


# diffusers reads the signature of a processor's __call__ to choose what it passes: it must be spelt out here.


class PlainAttention:
    """Self-attention; takes the face inputs and leaves them alone."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        face_tokens: Tensor | None = None,
        face_scale: Tensor | None = None,
    ) -> Tensor:
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = (
            _heads(x, attn.heads) for x in (attn.to_q(hidden_states), attn.to_k(source), attn.to_v(source))
        )
        out = _merge(F.scaled_dot_product_attention(q, k, v))
        return torch.as_tensor(attn.to_out[0](out))


class FaceAttention(nn.Module):
    """Text cross-attention plus the scaled face branch; holds the face branch's own K and V weights."""

    def __init__(self, channels: int, context: int) -> None:
        super().__init__()
        self.to_k_ip = nn.Linear(context, channels, bias=False)
        self.to_v_ip = nn.Linear(context, channels, bias=False)

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        face_tokens: Tensor | None = None,
        face_scale: Tensor | None = None,
    ) -> Tensor:
        assert encoder_hidden_states is not None
        assert face_tokens is not None
        assert face_scale is not None
        q = _heads(attn.to_q(hidden_states), attn.heads)
        k, v = (
            _heads(x, attn.heads)
            for x in (attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states))
        )
        kf, vf = (_heads(x, attn.heads) for x in (self.to_k_ip(face_tokens), self.to_v_ip(face_tokens)))
        text = F.scaled_dot_product_attention(q, k, v)
        face = F.scaled_dot_product_attention(q, kf, vf)
        return torch.as_tensor(attn.to_out[0](_merge(text + face_scale * face)))


class FaceUNet(nn.Module):
    """UNet2DConditionModel with face attention; forward has exactly the pack's `unet` signature.

    sample (B, C, h, w), timestep int64 (B,), encoder_hidden_states (B, N, D), face_tokens (B, M, D),
    face_scale (1,) -> noise_pred (B, C, h, w). A UNet with `time_cond_proj_dim` also sees the scaled face
    tokens there, flattened: a small UNet learns a face sooner from its time embedding than from attention
    alone.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.unet = unet
        context = int(unet.config.cross_attention_dim)
        processors: dict[str, PlainAttention | FaceAttention] = {}
        for name in unet.attn_processors:
            block = unet.get_submodule(name.removesuffix(".processor"))
            own = name.endswith("attn1.processor")
            processors[name] = PlainAttention() if own else FaceAttention(int(block.inner_dim), context)
        unet.set_attn_processor(processors)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        face_tokens: Tensor,
        face_scale: Tensor,
    ) -> Tensor:
        condition = None
        if self.unet.config.time_cond_proj_dim:
            condition = face_tokens.flatten(1) * face_scale
        out = self.unet(
            sample,
            timestep,
            encoder_hidden_states,
            timestep_cond=condition,
            cross_attention_kwargs={"face_tokens": face_tokens, "face_scale": face_scale},
            return_dict=False,
        )
        return torch.as_tensor(out[0])


class FaceProjection(nn.Module):
    """Face embedding -> face tokens, as IP-Adapter-FaceID's MLPProjModel: Linear, GELU, Linear, LayerNorm.

    face_embeds (B, E) -> face_tokens (B, M, D). Source: tencent-ailab/IP-Adapter, ip_adapter_faceid.py.
    """

    def __init__(self, embedding_size: int, hidden: int, tokens: int, context: int) -> None:
        super().__init__()
        self.tokens, self.context = tokens, context
        self.proj = nn.Sequential(
            nn.Linear(embedding_size, hidden), nn.GELU(), nn.Linear(hidden, tokens * context)
        )
        self.norm = nn.LayerNorm(context)

    def forward(self, face_embeds: Tensor) -> Tensor:
        return torch.as_tensor(self.norm(self.proj(face_embeds).view(-1, self.tokens, self.context)))
