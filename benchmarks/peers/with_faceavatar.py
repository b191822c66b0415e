"""This project, by its public names."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from child import GUIDANCE, NEGATIVE, latents_of, prompt_of

from faceavatar import AvatarEngine, AvatarRequest


@dataclass
class Drawn:
    step_ends: list[float]
    decode_seconds: float | None
    picture: Any


def load(spec: dict[str, Any]) -> Callable[[int, int, int, bool], Drawn]:
    """The pack on a provider at a precision."""
    options = spec["options"]
    engine = AvatarEngine.load(spec["pack"], options["provider"], None, options["precision"])
    face = np.load(spec["inputs"])["face_embeds"]

    def draw(number: int, steps: int, size: int, decode: bool) -> Drawn:
        request = AvatarRequest(
            image=np.zeros((8, 8, 3), np.uint8),  # not looked at: the face comes as numbers
            prompt=prompt_of(number),
            negative_prompt=NEGATIVE,
            height=size,
            width=size,
            num_inference_steps=steps,
            guidance_scale=GUIDANCE,
            scheduler="ddim",
            face_scale=1.0,
            seed=number,
        )
        run = engine.stream(request, latents_of(spec, number, size), face)
        ends = []
        for step in run:
            ends.append(time.perf_counter())
            if step.result is not None:
                # The last step's end comes with the picture: decoding is taken off again.
                decoding = step.result.timings["decode"]
                return Drawn([*ends[:-1], ends[-1] - decoding], decoding, step.result.images[0])
            if not decode and step.index == steps - 2:
                run.close() if hasattr(run, "close") else None
                break
        return Drawn(ends, None, None)

    return draw
