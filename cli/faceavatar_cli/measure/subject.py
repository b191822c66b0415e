"""What is drawn when a pack is measured, from a photo or an embedding, and how much work it is.

Knows the manifest's shapes; holds no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from faceavatar import AvatarEngine, AvatarRequest, AvatarResult
from faceavatar.backends.flops import count_flops
from faceavatar.image import encode_lossy, load_image
from faceavatar.manifest import Manifest
from faceavatar.pack import Pack
from faceavatar.sizes import drawing_size

WINDOW_TOKENS = 77
_PROMPT = "vector cartoon of a woman, laughing, {} background"
_COLORS = ("black", "teal", "yellow", "white", "red", "blue", "green", "orange", "purple", "grey")
_POINTS = np.array([[0.38, 0.40], [0.62, 0.40], [0.50, 0.55], [0.41, 0.70], [0.59, 0.70]])


@dataclass(frozen=True)
class Case:
    """One kind of request: so many pictures of height x width pixels in so many steps."""

    batch: int
    height: int
    width: int
    steps: int

    def __str__(self) -> str:
        steps = "1 step" if self.steps == 1 else f"{self.steps} steps"
        return f"{self.width}x{self.height}, batch {self.batch}, {steps}"


def example_photo() -> Path:
    """The photo that comes with faceavatar."""
    return Path(str(files("faceavatar") / "examples" / "astronaut.jpg"))


def draw(engine: AvatarEngine, case: Case, number: int) -> AvatarResult:
    """The case's pictures. `number` makes photo, prompt and seed new: no cache answers for a model."""
    color = f"{_COLORS[number % len(_COLORS)]} {number}" if number >= len(_COLORS) else _COLORS[number]
    request = AvatarRequest(
        image=_photo(number),
        prompt=_PROMPT.format(color),
        batch=case.batch,
        height=case.height,
        width=case.width,
        num_inference_steps=case.steps,
        seed=number,
    )
    return engine.generate(request, **handed_in(engine.pack.manifest, case, number))


def handed_in(manifest: Manifest, case: Case, number: int) -> dict[str, Any]:
    """The face as numbers, for packs that want one and have no models to see it with."""
    face = manifest.face
    if face is None or face.detector is not None:
        return {}
    random = np.random.default_rng(number)
    given: dict[str, Any] = {"face_embeds": random.standard_normal((1, face.adapter.embedding_size))}
    if face.image_encoder is not None:
        side = face.image_encoder.align_size
        given["face_crop"] = random.integers(0, 256, (side, side, 3), np.uint8)
    if manifest.defaults.controlnet_scale is not None:
        given["face_landmarks"] = _POINTS * (case.width, case.height)
    return given


@cache
def _photo(number: int) -> bytes:
    """The example photo as a JPEG file, moved sideways by some pixels."""
    return encode_lossy(np.roll(load_image(example_photo()), number, axis=1), "jpeg")


@dataclass(frozen=True)
class Work:
    """FLOPs of one guidance step of all pictures (every half), and of decoding one of them."""

    step: float
    decode: float

    def of(self, case: Case) -> float:
        """FLOPs of all steps and of all decodings."""
        return case.steps * self.step + case.batch * self.decode


def work_of(pack: Pack, case: Case) -> Work:
    """What a case costs at the pack's own guidance. Raises MissingExtra, PackInvalid."""
    height, width = drawing_size(pack.manifest.sizes, (case.height, case.width))
    grain = pack.manifest.latents.downsample
    cells = height // grain, width // grain
    return Work(
        _count(pack, "unet", _halves(pack.manifest) * case.batch, cells),
        _count(pack, "vae_decoder", 1, cells),
    )


def _halves(manifest: Manifest) -> int:
    """Halves that run at the pack's own guidance: see plan.Plan.guided."""
    defaults = manifest.defaults
    built_in = "timestep_cond" in manifest.graphs["unet"].inputs
    alone = built_in or defaults.guidance_scale in (1.0, defaults.built_in_guidance)
    return 1 if alone else 2


@cache
def _counted(path: Path, shapes: tuple[tuple[str, tuple[int, ...]], ...]) -> float:
    return count_flops(path, dict(shapes))


def _count(pack: Pack, role: str, batch: int, cells: tuple[int, int]) -> float:
    graph = pack.graph(role)
    shapes = {name: tensor.shape for name, tensor in graph.inputs.items()}
    bound = {
        name: bind(shape, batch, cells, pack.manifest.latents.downsample, name)
        for name, shape in shapes.items()
    }
    return _counted(pack.file(graph.file), tuple(bound.items()))


def bind(
    shape: tuple[int | str, ...], batch: int, cells: tuple[int, int], grain: int, name: str
) -> tuple[int, ...]:
    """A graph input's shape with numbers for the sides that vary: batch, one window of tokens, the cells.

    The control image alone is as large as the picture.
    """
    scale = grain if name == "control_image" else 1
    sizes: Mapping[int, tuple[int, ...]] = {
        1: (batch,),
        2: (batch, WINDOW_TOKENS),
        3: (batch, WINDOW_TOKENS, 0),
        4: (batch, 0, cells[0] * scale, cells[1] * scale),
    }
    return tuple(
        side if isinstance(side, int) else sizes[len(shape)][axis] for axis, side in enumerate(shape)
    )
