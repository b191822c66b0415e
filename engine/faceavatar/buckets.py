"""Which shapes a pack's graphs are compiled for: "512x512x1..8" is pictures of width x height, one to eight.

Knows the manifest's graphs and how the engine feeds them; knows no provider.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from faceavatar.backends import Bucket
from faceavatar.errors import InvalidRequest
from faceavatar.manifest import Graph, Manifest
from faceavatar.sizes import drawing_size

_SHAPE = re.compile(r"(\d+)x(\d+)x(\d+)(?:\.\.(\d+))?")
SMALLEST, LARGEST, MOST_PICTURES = 64, 2048, 16
LONGEST_PROMPT = 4  # windows of tokens; most prompts have one
ONE_AT_A_TIME = frozenset(
    {
        *("text_encoder", "text_encoder_2", "vae_decoder", "vae_encoder"),
        *("face_encoder", "face_projection", "image_encoder"),
    }
)


@dataclass(frozen=True)
class PictureShape:
    """width x height pixels, `least` to `most` pictures at once."""

    width: int
    height: int
    least: int
    most: int

    def __str__(self) -> str:
        batch = str(self.least) if self.least == self.most else f"{self.least}..{self.most}"
        return f"{self.width}x{self.height}x{batch}"


def parse_shapes(text: str) -> tuple[PictureShape, ...]:
    """The shapes in "512x512x1..8,768x512x1". Raises InvalidRequest (shapes)."""
    return tuple(_parse(part.strip()) for part in text.split(","))


def _parse(part: str) -> PictureShape:
    found = _SHAPE.fullmatch(part)
    allowed = (
        f"WIDTHxHEIGHTxBATCH, such as 512x512x1 or 768x512x1..8: {SMALLEST} to {LARGEST} pixels, "
        f"1 to {MOST_PICTURES} pictures"
    )
    if found is None:
        raise InvalidRequest("shapes", part, allowed)
    width, height, least, most = (int(side or found[3]) for side in found.groups())
    sides_fit = min(width, height) >= SMALLEST and max(width, height) <= LARGEST
    if not sides_fit or not 1 <= least <= most <= MOST_PICTURES:
        raise InvalidRequest("shapes", part, allowed)
    return PictureShape(width, height, least, most)


def bucket_of(manifest: Manifest, role: str, shape: PictureShape) -> Bucket:
    """What a role's graph is fed while pictures of this shape are drawn.

    A UNet's least batch is the conditional half alone, its greatest both halves; the usual one is what the
    pack's own guidance takes. A pack draws some sizes only (manifest.sizes), so the shape is brought to the
    one that it draws.
    Raises InvalidRequest for a graph with a side that the engine does not know.
    """
    matting = manifest.matting if role == "matting" else None
    size = matting.size if matting else drawing_size(manifest.sizes, (shape.height, shape.width))
    guided = role in {"unet", "unet_step"} and "timestep_cond" not in manifest.graphs[role].inputs
    most = 2 if guided else 1
    if role in ONE_AT_A_TIME:
        feeds = [_Feed(manifest, size, 1, 1, 1)] * 3
    else:
        feeds = [
            _Feed(manifest, size, shape.least, 1, 1),
            _Feed(manifest, size, shape.least, most if _guided(manifest) else 1, 1),
            _Feed(manifest, size, shape.most, most, LONGEST_PROMPT),
        ]
    return Bucket(str(shape), *(feed.dimensions(manifest.graphs[role]) for feed in feeds))


def _guided(manifest: Manifest) -> bool:
    """Whether the pack draws with both halves of guidance unless it is told otherwise."""
    defaults = manifest.defaults
    return defaults.guidance_scale not in {1.0, defaults.built_in_guidance}


@dataclass(frozen=True)
class _Feed:
    """What a graph is fed at once: pictures, halves of guidance, windows of tokens; size: (height, width)."""

    manifest: Manifest
    size: tuple[int, int]
    pictures: int
    halves: int
    windows: int

    def dimensions(self, graph: Graph) -> Mapping[str, tuple[int, ...]]:
        return {
            name: tuple(
                side if isinstance(side, int) else self._side(name, index, side, len(tensor.shape))
                for index, side in enumerate(tensor.shape)
            )
            for name, tensor in graph.inputs.items()
        }

    def _side(self, name: str, index: int, label: str, rank: int) -> int:
        """The length of a side that varies: its own name or the input's says what it is."""
        manifest, from_end = self.manifest, index - rank
        counted = {"pictures": self.pictures, "halves": self.halves}
        if label in counted:
            return counted[label]
        if index == 0:
            return self.pictures * self.halves
        if name in {"sample", "latents", "state", "noise"} and from_end >= -2:
            return self.size[from_end] // manifest.latents.downsample
        nets_own = manifest.matting.image if manifest.matting is not None else "image"
        if name in {"control_image", "image", nets_own} and from_end >= -2:
            return self.size[from_end]
        if name == "encoder_hidden_states" and index == 1:
            return self.windows * manifest.text.max_length
        if name == "face_tokens" and index == 1 and manifest.face is not None:
            return manifest.face.adapter.tokens
        allowed = "sides that the engine feeds: export the pack again"
        raise InvalidRequest("shapes", f"side {index} ({label}) of {name}", allowed)
