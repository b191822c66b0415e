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
ONE_AT_A_TIME = frozenset({"vae_decoder", "vae_encoder", "face_encoder", "face_projection", "image_encoder"})


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

    The unet's least batch is the conditional half alone, its usual and greatest are both halves. A pack draws
    some sizes only (manifest.sizes), so the shape is brought to the one that it draws.
    Raises InvalidRequest for a graph with a side that the engine does not know.
    """
    size = drawing_size(manifest.sizes, (shape.height, shape.width))
    halves = 2 if role == "unet" and "timestep_cond" not in manifest.graphs["unet"].inputs else 1
    alone = role in ONE_AT_A_TIME
    batches = (1, 1, 1) if alone else (shape.least, halves * shape.least, halves * shape.most)
    windows = (1, 1, LONGEST_PROMPT)
    least, usual, most = (
        _dimensions(manifest, manifest.graphs[role], size, batch, count)
        for batch, count in zip(batches, windows, strict=True)
    )
    return Bucket(str(shape), least, usual, most)


def _dimensions(
    manifest: Manifest, graph: Graph, size: tuple[int, int], batch: int, windows: int
) -> Mapping[str, tuple[int, ...]]:
    return {
        name: tuple(
            side if isinstance(side, int) else _side(manifest, name, index, size, batch, windows)
            for index, side in enumerate(tensor.shape)
        )
        for name, tensor in graph.inputs.items()
    }


def _side(manifest: Manifest, name: str, index: int, size: tuple[int, int], batch: int, windows: int) -> int:
    """The length of a side that varies: the input's name says what it is."""
    grain = manifest.latents.downsample
    if index == 0:
        return batch
    if name in {"sample", "latents"} and index >= 2:
        return size[index - 2] // grain
    if name in {"control_image", "image"} and index >= 2:
        return size[index - 2]
    if name == "encoder_hidden_states" and index == 1:
        return windows * manifest.text.max_length
    if name == "face_tokens" and index == 1 and manifest.face is not None:
        return manifest.face.adapter.tokens
    if manifest.matting is not None and name == manifest.matting.image and index >= 2:
        return manifest.matting.size[index - 2]
    raise InvalidRequest(
        "shapes", f"side {index} of {name}", "sides that the engine feeds: export the pack again"
    )
