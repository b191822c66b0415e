"""The toon pack's text encoder: CLIP's tokens in, a small bidirectional transformer, one state a token out.

Only tokens that captions use have an embedding; every other token reads as a zero vector, so that an unknown
word says nothing. States after the end token are zeros, so that padding is an attention sink and nothing
else.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CONTEXT = 192
WINDOW = 77
VOCABULARY = 49408
BOS, EOS = 49406, 49407


class Block(nn.Module):
    """Pre-norm transformer block with a padding mask."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 3 * width), nn.GELU(), nn.Linear(3 * width, width))

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=keep[:, None, None, :])
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + torch.as_tensor(self.mlp(self.norm2(x)))


class TextEncoder(nn.Module):
    """input_ids int64 (B, 77) -> last_hidden_state (B, 77, 192).

    `known` (49408,) int64 maps CLIP's ids to rows of the embedding; row 0, of unknown tokens, is zeros.
    """

    known: Tensor

    def __init__(self, known: Tensor, layers: int = 2) -> None:
        super().__init__()
        self.register_buffer("known", known)
        self.token = nn.Embedding(int(known.max()) + 1, CONTEXT, padding_idx=0)
        self.position = nn.Parameter(torch.randn(WINDOW, CONTEXT) * 0.02)
        self.blocks = nn.ModuleList(Block(CONTEXT, 6) for _ in range(layers))
        self.norm = nn.LayerNorm(CONTEXT)
        nn.init.normal_(self.token.weight, std=0.2)
        with torch.no_grad():
            self.token.weight[0].zero_()

    def forward(self, input_ids: Tensor) -> Tensor:
        ends = (input_ids == EOS).to(torch.int64)
        keep = (ends.cumsum(1) - ends) == 0
        x = self.token(self.known[input_ids]) + self.position[: input_ids.shape[1]]
        for block in self.blocks:
            x = block(x, keep)
        return torch.as_tensor(self.norm(x) * keep[..., None].to(x.dtype))


class Reader(nn.Module):
    """Reads attributes from text states with one learned query each; used in training only."""

    def __init__(self, classes: dict[str, int]) -> None:
        super().__init__()
        self.names = list(classes)
        self.query = nn.Parameter(torch.randn(len(classes), CONTEXT) * 0.1)
        self.key, self.value = nn.Linear(CONTEXT, CONTEXT), nn.Linear(CONTEXT, CONTEXT)
        self.heads = nn.ModuleList(nn.Linear(CONTEXT, n) for n in classes.values())

    def forward(self, states: Tensor) -> list[Tensor]:
        keys, values = self.key(states), self.value(states)
        query = self.query.expand(states.shape[0], -1, -1)
        pooled = F.scaled_dot_product_attention(query, keys, values)
        return [head(pooled[:, i]) for i, head in enumerate(self.heads)]
