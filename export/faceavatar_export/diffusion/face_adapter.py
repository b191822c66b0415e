"""Reads FaceID's and InstantID's files and puts them into a UNet: projection, face attention, merged LoRA.

Key layout and arithmetic: Ye et al. 2023 (arXiv:2308.06721) and tencent-ailab/IP-Adapter,
ip_adapter/ip_adapter_faceid.py and resampler.py. Knows no pipeline and no graph.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import UNet2DConditionModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from faceavatar.errors import InvalidRequest, PackInvalid
from faceavatar_export.face_attention import FaceProjection

Kind = Literal["faceid", "faceid_plus", "faceid_plus_v2", "faceid_portrait", "instantid"]
HALVES = ("image_proj", "ip_adapter")
HEAD = 64
ARCFACE = 512  # numbers of the embedding that InstantID reads; IP-Adapter-Plus reads CLIP's 1280 a patch
_LORA = re.compile(r"(\d+)\.to_(q|k|v|out)_lora\.down\.weight")


@dataclass(frozen=True)
class FaceAdapterFile:
    """An adapter's weights, float32, by half; its kind, its tokens and the embedding's size."""

    kind: Kind
    image_proj: Mapping[str, Tensor]
    ip_adapter: Mapping[str, Tensor]
    tokens: int
    embedding_size: int

    @property
    def sees_image(self) -> bool:
        """Whether it looks at CLIP's states of the face beside the embedding."""
        return self.kind in ("faceid_plus", "faceid_plus_v2")


def read_face_adapter(path: Path, kind: Kind | None = None) -> FaceAdapterFile:
    """Read a .safetensors or .bin file. kind settles what the keys cannot: Plus or PlusV2.

    Raises PackInvalid for a file that is no FaceID adapter, InvalidRequest where its kind stays open or
    contradicts its keys.
    """
    halves = _read_halves(path)
    image_proj, ip_adapter = ({k: v.float() for k, v in halves[half].items()} for half in HALVES)
    if {"latents", "proj_in.weight"} <= image_proj.keys():
        tokens, size = image_proj["latents"].shape[1], image_proj["proj_in.weight"].shape[1]
        if size != ARCFACE:
            raise PackInvalid(
                f"{path.name}: an IP-Adapter-Plus of pictures: its resampler reads {size} numbers, and "
                f"InstantID's the {ARCFACE} of a face embedding"
            )
        return FaceAdapterFile(
            _kind(path, image_proj, ip_adapter, kind), image_proj, ip_adapter, tokens, size
        )
    missing = [key for key in ("proj.0.weight", "proj.2.weight", "norm.weight") if key not in image_proj]
    if missing or "1.to_k_ip.weight" not in ip_adapter:
        raise PackInvalid(
            f"{path.name}: not an IP-Adapter-FaceID file: image_proj.{(missing or ['...'])[0]} or "
            "ip_adapter.1.to_k_ip.weight is missing"
        )
    context = image_proj["norm.weight"].shape[0]
    tokens, size = image_proj["proj.2.weight"].shape[0] // context, image_proj["proj.0.weight"].shape[1]
    return FaceAdapterFile(_kind(path, image_proj, ip_adapter, kind), image_proj, ip_adapter, tokens, size)


def _read_halves(path: Path) -> Mapping[str, Mapping[str, Tensor]]:
    try:
        if path.suffix == ".safetensors":
            flat = load_file(path)
            return {
                half: {k.removeprefix(f"{half}."): v for k, v in flat.items() if k.startswith(f"{half}.")}
                for half in HALVES
            }
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
        return {half: dict(content[half]) for half in HALVES}
    except (
        OSError,
        SafetensorError,
        pickle.UnpicklingError,
        KeyError,
        TypeError,
        ValueError,
        RuntimeError,
    ) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise PackInvalid(f"{path}: cannot be read as a face adapter: {first}") from error


def _kind(
    path: Path, image_proj: Mapping[str, Tensor], ip_adapter: Mapping[str, Tensor], said: Kind | None
) -> Kind:
    if "latents" in image_proj:
        allowed: tuple[Kind, ...] = ("instantid",)
        kind: Kind | None = said or allowed[0]
    elif "perceiver_resampler.proj_in.weight" in image_proj:
        allowed = ("faceid_plus", "faceid_plus_v2")
        named: Kind | None = None
        name = re.sub(r"[-_ ]", "", path.stem.lower())
        if "plusv2" in name:
            named = "faceid_plus_v2"
        elif "plus" in name and "v1" in name:
            named = "faceid_plus"
        kind = said or named
    else:
        has_lora = any("_lora." in key for key in ip_adapter)
        allowed = ("faceid",) if has_lora else ("faceid_portrait",)
        kind = said or allowed[0]
    if kind is None:
        raise InvalidRequest(
            "--face-adapter-kind",
            None,
            f"faceid_plus or faceid_plus_v2: the keys of {path.name} fit both, and they draw different faces",
        )
    if kind not in allowed:
        raise InvalidRequest(
            "--face-adapter-kind", kind, f"{' or '.join(allowed)}, by the keys of {path.name}"
        )
    return kind


def merge_lora(unet: UNet2DConditionModel, adapter: FaceAdapterFile) -> int:
    """Add the adapter's LoRA (W += up down) to q, k, v and out of every attention; gives how many.

    They act at every face scale, 0 among them, as in the reference. Indices count the UNet's processors in
    its own order: down, up, then mid.
    """
    names = list(unet.attn_processors)
    merged = 0
    for key in adapter.ip_adapter:
        match = _LORA.fullmatch(key)
        if match is None:
            continue
        attn = unet.get_submodule(names[int(match[1])].removesuffix(".processor"))
        part = attn.to_out[0] if match[2] == "out" else getattr(attn, f"to_{match[2]}")
        down, up = adapter.ip_adapter[key], adapter.ip_adapter[key.replace("down", "up")]
        with torch.no_grad():
            part.weight += up @ down
        merged += 1
    return merged


class PerceiverAttention(nn.Module):
    """Latents attend to the image's states and to themselves; softmax in float32."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.heads = inner // HEAD
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)

    def forward(self, states: Tensor, latents: Tensor) -> Tensor:
        states, latents = self.norm1(states), self.norm2(latents)
        q = self._split(self.to_q(latents))
        k, v = map(self._split, self.to_kv(torch.cat([states, latents], dim=1)).chunk(2, dim=-1))
        scale = HEAD**-0.25  # on q and on k: their product would leave fp16's range before it is scaled
        weight = ((q * scale) @ (k * scale).transpose(-2, -1)).float().softmax(-1).to(v.dtype)
        out = (weight @ v).transpose(1, 2).flatten(2)
        return torch.as_tensor(self.to_out(out))

    def _split(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        return x.view(batch, length, self.heads, HEAD).transpose(1, 2)


class Perceiver(nn.Module):
    """FacePerceiverResampler: the id's tokens query CLIP's states, four layers deep.

    weights: with the keys of this module, whose widths and depth they tell.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        width, seen = weights["proj_in.weight"].shape
        outside = weights["proj_out.weight"].shape[0]
        depth = 1 + max(int(k.split(".")[1]) for k in weights if k.startswith("layers."))
        inner = weights["layers.0.0.to_q.weight"].shape[0]
        wide = weights["layers.0.1.1.weight"].shape[0]
        self.proj_in, self.proj_out = nn.Linear(seen, width), nn.Linear(width, outside)
        self.norm_out = nn.LayerNorm(outside)
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    PerceiverAttention(width, inner),
                    nn.Sequential(
                        nn.LayerNorm(width),
                        nn.Linear(width, wide, bias=False),
                        nn.GELU(),
                        nn.Linear(wide, width, bias=False),
                    ),
                ]
            )
            for _ in range(depth)
        )

    def forward(self, latents: Tensor, states: Tensor) -> Tensor:
        states = self.proj_in(states)
        for layer in self.layers:
            assert isinstance(layer, nn.ModuleList)
            latents = layer[0](states, latents) + latents
            latents = layer[1](latents) + latents
        return torch.as_tensor(self.norm_out(self.proj_out(latents)))


class PlusProjection(FaceProjection):
    """FaceID-Plus: face_embeds (B, E), image_embeds (B, N, F) -> tokens; V2 adds them to the id's own."""

    def __init__(self, adapter: FaceAdapterFile) -> None:
        weights = adapter.image_proj
        hidden, size = weights["proj.0.weight"].shape
        super().__init__(size, hidden, adapter.tokens, weights["norm.weight"].shape[0])
        base = "perceiver_resampler."
        own = {k.removeprefix(base): v for k, v in weights.items() if k.startswith(base)}
        self.perceiver_resampler = Perceiver(own)
        self.adds_id = adapter.kind == "faceid_plus_v2"

    def forward(self, face_embeds: Tensor, image_embeds: Tensor | None = None) -> Tensor:
        if image_embeds is None:
            raise ValueError("image_embeds: got None, expected CLIP's states of the face, (B, N, F)")
        tokens = super().forward(face_embeds)
        out = self.perceiver_resampler(tokens, image_embeds)
        return torch.as_tensor(tokens + out if self.adds_id else out)


class Resampler(Perceiver):
    """InstantID's: latents of its own query the one embedding, face_embeds (B, E) -> tokens (B, M, D)."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__(weights)
        self.latents = nn.Parameter(torch.empty_like(weights["latents"]))

    # A Module's forward is free in its arguments; the graph's signature is what counts.
    def forward(self, face_embeds: Tensor) -> Tensor:  # type: ignore[override]
        latents = self.latents.expand(face_embeds.shape[0], -1, -1)
        return super().forward(latents, face_embeds[:, None])


def make_projection(adapter: FaceAdapterFile) -> nn.Module:
    """The adapter's projection with its weights. Raises PackInvalid where they do not fit."""
    try:
        module = _empty_projection(adapter)
        module.load_state_dict(dict(adapter.image_proj))
    except KeyError as error:
        raise PackInvalid(f"image_proj: {error} is missing") from error
    except RuntimeError as error:
        raise PackInvalid(f"image_proj: {str(error).splitlines()[-1].strip()}") from error
    return module.eval()


def _empty_projection(adapter: FaceAdapterFile) -> nn.Module:
    if adapter.kind == "instantid":
        return Resampler(adapter.image_proj)
    if adapter.sees_image:
        return PlusProjection(adapter)
    hidden, size = adapter.image_proj["proj.0.weight"].shape
    return FaceProjection(size, hidden, adapter.tokens, adapter.image_proj["norm.weight"].shape[0])


def face_weights(unet: UNet2DConditionModel, adapter: FaceAdapterFile) -> dict[str, tuple[Tensor, Tensor]]:
    """K and V of the face branch by processor name. Raises PackInvalid for an adapter of another UNet."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for index, name in enumerate(unet.attn_processors):
        if name.endswith("attn1.processor"):
            continue
        k, v = (adapter.ip_adapter.get(f"{index}.to_{part}_ip.weight") for part in "kv")
        attn = unet.get_submodule(name.removesuffix(".processor"))
        expected = (attn.to_k.weight.shape[0], int(unet.config.cross_attention_dim))
        got = [None if weight is None else tuple(weight.shape) for weight in (k, v)]
        if k is None or v is None or got != [expected, expected]:
            raise PackInvalid(
                f"face adapter: ip_adapter.{index}.to_k_ip/to_v_ip are {got[0]} and {got[1]}, the UNet's "
                f"{name.removesuffix('.processor')} expects {expected}: made for another family"
            )
        found[name] = (k, v)
    return found
