"""How much memory a request will take, said before any work: from the manifest's measured constants.

Knows sizes, halves and stages; runs nothing. What graphs take once they have run stays taken (ONNX Runtime's
arena, OpenVINO's requests keep it for the next run), so the stages of a request add up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from faceavatar.likeness import candidates
from faceavatar.manifest import Manifest, Memory
from faceavatar.plan import Plan
from faceavatar.vae import CORE, HALO

# Of each picture its bytes, twice while it is brought to its size; of one at a time its floats, five times.
KEPT_BYTES_A_PIXEL, FLOAT_BYTES_A_PIXEL = 2 * 3, 5 * 3 * 4
# An estimate for full-width SD1.5 with its attention fused, on cpu: (base, bytes a cell, bytes a cell
# squared). On the safe side: at 512x512 and a batch of 1 it says 6.8 GB where 5.7 were measured. Of packs
# without constants of their own, activations are taken to grow with the width, and weights with its square.
FULL_UNET_BYTES = 3_515_000_000
FULL_WIDTH: Mapping[str, tuple[float, float, float]] = {
    "text_encoder": (40e6, 0.0, 0.0),
    "face": (120e6, 0.0, 0.0),
    "unet": (0.0, 45e3, 0.0),
    "vae_decoder": (0.0, 290e3, 0.0),
    "vae_decoder_low": (0.0, 60e3, 0.0),
    "vae_decoder_tile": (0.0, 450e3, 0.0),
    "matting": (30e6, 150.0, 0.0),
    "request": (40e6, 0.0, 0.0),
}
_WIDE = frozenset({"unet", "vae_decoder", "vae_decoder_low", "vae_decoder_tile"})
HALF_BYTES_A_CELL = 4 * 512 * 4  # of Stable Diffusion's decoder: 512 channels at twice the size
LOADED_PROCESS = 160e6  # Python, numpy, OpenCV and a runtime, before any weights
LOADED_WEIGHTS = 1.15  # of the bytes on disk: some are laid out anew for the processor


@dataclass(frozen=True)
class Forecast:
    """Bytes by stage: loaded (the process with its graphs open), text, face, encode, unet, decode, matting,
    request (what a first one takes besides), pictures.

    measured: whether the pack's manifest has constants for this provider; else it is an estimate from the
    sizes of the pack's files.
    """

    stages: Mapping[str, int]
    measured: bool

    @property
    def peak(self) -> int:
        """The most that the process will take: what the stages took stays taken."""
        return sum(self.stages.values())

    def beside(self, held: Mapping[str, int]) -> int:
        """As peak, in a process in which the stages of earlier requests took `held`."""
        return sum(max(count, held.get(stage, 0)) for stage, count in self.stages.items())


@dataclass(frozen=True)
class Shape:
    """What of a run counts for its memory: how many pictures of which size, and what is done with them.

    cells: of one picture's latents; pixels: of one picture as it is drawn. halves: of the batch, 1 to 3.
    tiled: whether it is decoded in tiles.
    """

    pictures: int
    cells: int
    pixels: int
    halves: int
    face: bool
    matting: bool
    encodes: bool
    tiled: bool = False


def shape_of(plans: Sequence[Plan], face: bool) -> Shape:
    """Of several requests that are drawn as one batch. face: whether the pack looks at the photo."""
    first = plans[0]
    _, height, width = first.latent_shape
    requests = [plan.request for plan in plans]
    return Shape(
        pictures=sum(len(plan.seeds[candidates(plan.request, 0)]) for plan in plans),
        cells=height * width,
        pixels=height * width * first.downsample**2,
        halves=first.halves,
        face=face,
        matting=any(one.remove_background or one.bg_color is not None for one in requests),
        encodes=any(one.strength is not None for one in requests),
    )


def forecast(manifest: Manifest, provider: str, shape: Shape) -> Forecast:
    """The bytes that a run of this shape takes, by stage."""
    memory = manifest.memory.get(provider)
    used = memory or estimated(manifest)

    def taken(stage: str, pictures: int, cells: int) -> int:
        base, each, squared = used.stages.get(stage, (0.0, 0.0, 0.0))
        return round(base + pictures * (each * cells + squared * cells * cells))

    stages = {
        "loaded": used.loaded,
        "text": taken("text_encoder", 1, 0),
        "face": taken("face", 1, 0) if shape.face else 0,
        "encode": taken("vae_encoder", 1, shape.cells) if shape.encodes else 0,
        "unet": taken("unet", shape.pictures * shape.halves, shape.cells),
        "decode": _decoding(taken, shape),
        "matting": taken("matting", 1, shape.pixels) if shape.matting else 0,
        "request": taken("request", 1, 0),
        "pictures": shape.pixels * (shape.pictures * KEPT_BYTES_A_PIXEL + FLOAT_BYTES_A_PIXEL),
    }
    return Forecast(stages, memory is not None)


def _decoding(taken: Callable[[str, int, int], int], shape: Shape) -> int:
    """One picture at a time, whole or in tiles."""
    if not shape.tiled:
        return taken("vae_decoder", 1, shape.cells)
    half = 3 * HALF_BYTES_A_CELL * shape.cells  # what lies between the two graphs, and its way out and in
    tile = min(shape.cells, ((CORE + 2 * HALO) // 2) ** 2)
    return taken("vae_decoder_low", 1, shape.cells) + taken("vae_decoder_tile", 1, tile) + half


def estimated(manifest: Manifest) -> Memory:
    """Constants of a pack that nobody measured: those of full-width SD1.5, by the weight of its UNet."""
    sizes = {name: file.size for name, file in manifest.files.items()}
    graph = manifest.graphs["unet"].file
    unet = sizes[graph] + sizes.get(f"{graph}.data", 0)
    width = math.sqrt(unet / FULL_UNET_BYTES)
    stages = {
        name: (base, each * width if name in _WIDE else each, squared)
        for name, (base, each, squared) in FULL_WIDTH.items()
    }
    return Memory(loaded=round(LOADED_PROCESS + LOADED_WEIGHTS * sum(sizes.values())), stages=stages)
