"""What an export is asked for. Knows values; does no work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from faceavatar_export.diffusion.checkpoint import AS_IT_IS, Lora, Reading
from faceavatar_export.diffusion.face_adapter import Kind
from faceavatar_export.face_models import NO_FACES, FaceSource


@dataclass(frozen=True)
class Options:
    """What to export and how. proof_sizes: two (height, width) in pixels, multiples of 8.

    vae_encoder: add the graph that `strength` needs. via: "optimum" has optimum-onnx export the checkpoint
    too, with the interpreter optimum_python, as a cross-check.
    """

    source: str
    out: Path
    name: str
    license: str
    face_adapter: Path | None = None
    face_adapter_kind: Kind | None = None
    image_encoder: Path | None = None
    faces: FaceSource = NO_FACES
    controlnet: Path | None = None
    loras: tuple[Lora, ...] = ()
    reading: Reading = AS_IT_IS
    vae_encoder: bool = False
    precision: str = "fp32"
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    proof_sizes: tuple[tuple[int, int], ...] = ((256, 256), (264, 328))
    proof_steps: int = 3
    via: Literal["optimum"] | None = None
    optimum_python: Path | None = None
    force: bool = False
