"""What steers the denoising of a request, put together: text, face, and what a net wants besides.

Knows which halves a request runs and what several requests need to run as one batch. Knows no loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from faceavatar.denoise import Conditions, Guidance
from faceavatar.look import FaceReader, Look
from faceavatar.plan import Plan
from faceavatar.stopwatch import Stopwatch
from faceavatar.text import TextEncoders, TextStates
from faceavatar.unet import UNet

Floats = NDArray[np.float32]


def make_conditions(
    plan: Plan, look: Look | None, text: TextEncoders, faces: FaceReader, unet: UNet, clock: Stopwatch
) -> Conditions:
    """The conditions of one request, (1, ...) arrays. Raises NumericalError."""
    request, guided = plan.request, plan.guided
    with clock.measure("text"):
        prompts: list[str | None] = [request.text()]
        if guided:
            prompts.append(request.negative_prompt)
        if guided and plan.built_in_guidance > 1 and (request.negative_prompt or "").strip():
            prompts.append("")
        wanted, *others = text.encode(*prompts)
        no_text, empty_text = (*others, None, None)[:2]
    face, no_face = faces.tokens(look, guided, clock)
    halves = [half for half in (empty_text, no_text, wanted) if half is not None]
    return Conditions(
        wanted.states,
        face,
        None if no_text is None else no_text.states,
        no_face,
        plan.face_scale,
        None if empty_text is None else empty_text.states,
        _sizes_and_pooled(plan, halves) if "text_embeds" in unet.session.inputs else {},
    )


def _sizes_and_pooled(plan: Plan, halves: Sequence[TextStates]) -> dict[str, list[Floats]]:
    """SDXL's pooled text and time ids, for each half.

    time_ids are the original size, the crop's corner and the target size (Podell et al. 2023, section
    2.2): a whole picture of the size that is drawn.
    """
    height, width = plan.drawn_size
    ids = np.array([[height, width, 0, 0, height, width]], np.float32)
    pooled = [half.pooled for half in halves if half.pooled is not None]
    return {"text_embeds": pooled, "time_ids": [ids] * len(halves)}


def join_conditions(conditions: Sequence[Conditions], batches: Sequence[int]) -> Conditions:
    """One for all pictures, (B, ...) arrays, of several requests' own with their numbers of pictures.

    They have the same halves, lengths and face scale: their batch keys are equal.
    """
    if len(conditions) == 1:
        return conditions[0]

    def stack(part: Callable[[Conditions], Floats | None]) -> Floats | None:
        pairs = zip(map(part, conditions), batches, strict=True)
        rows = [np.repeat(array, count, axis=0) for array, count in pairs if array is not None]
        return np.concatenate(rows) if rows else None

    def half(name: str, place: int) -> Callable[[Conditions], Floats | None]:
        return lambda one: one.more[name][place]

    first = conditions[0]
    text = stack(lambda one: one.text)
    assert text is not None
    more = {
        name: [array for place in range(len(halves)) if (array := stack(half(name, place))) is not None]
        for name, halves in first.more.items()
    }
    return replace(
        first,
        text=text,
        face=stack(lambda one: one.face),
        no_text=stack(lambda one: one.no_text),
        no_face=stack(lambda one: one.no_face),
        empty_text=stack(lambda one: one.empty_text),
        more=more,
    )


def join_guidance(guidances: Sequence[Guidance], batches: Sequence[int]) -> Guidance:
    """Each picture keeps the scale of its request."""
    if len(guidances) == 1:
        return guidances[0]
    scales = np.repeat([float(one.scale) for one in guidances], batches)
    return Guidance(scales[:, None, None, None], guidances[0].built_in)
