"""What steers the denoising of a request, put together: text, face, and what a net wants besides.

Knows which halves a request runs and what several requests need to run as one batch. Knows no loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from faceavatar.denoise import Conditions, Guidance
from faceavatar.errors import InvalidRequest
from faceavatar.face.keypoints import draw_keypoints, place_landmarks
from faceavatar.image import to_nchw
from faceavatar.look import FaceReader, Look
from faceavatar.plan import Plan
from faceavatar.stopwatch import Stopwatch
from faceavatar.text import TextEncoders, TextStates
from faceavatar.unet import StepUNet, UNet

Floats = NDArray[np.float32]


def make_conditions(
    plan: Plan,
    look: Look | None,
    text: TextEncoders,
    faces: FaceReader,
    unet: UNet | StepUNet,
    clock: Stopwatch,
) -> Conditions:
    """The conditions of one request, (1, ...) arrays. Raises NumericalError, InvalidRequest."""
    request, guided = plan.request, plan.guided
    with clock.measure("text"):
        prompts: list[str | None] = [text.styled(request.text())]
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
        {
            **(_sizes_and_pooled(plan, halves) if "text_embeds" in unet.session.inputs else {}),
            **_guidance_input(plan, unet),
            **_keypoints(plan, look, len(halves)),
        },
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


def _guidance_input(plan: Plan, unet: UNet | StepUNet) -> dict[str, list[Floats]]:
    """The guidance scale as a net distilled for it wants it: sines and cosines of it, (1, W).

    Meng et al. 2023 (arXiv 2210.03142) condition on w, where u + (1 + w) (c - u) is guided: scale = 1 + w.
    Frequencies as diffusers' get_guidance_scale_embedding has them, after Kingma et al.'s VDM.
    """
    if not plan.guidance_is_input:
        return {}
    width = int(unet.session.inputs["timestep_cond"].shape[1])
    half = width // 2
    frequencies = np.exp(np.arange(half, dtype=np.float32) * np.float32(-np.log(10000.0) / (half - 1)))
    angles = np.float32(1000 * (plan.guidance_scale - 1)) * frequencies
    embedding = np.zeros((1, width), np.float32)  # an odd width ends in a zero
    embedding[0, : 2 * half] = np.concatenate([np.sin(angles), np.cos(angles)])
    return {"timestep_cond": [embedding]}


def _keypoints(plan: Plan, look: Look | None, halves: int) -> dict[str, list[Floats]]:
    """What a ControlNet sees, the same in each half: the face's points in 0..1, (1, 3, H, W), and its scale.

    Raises InvalidRequest where nothing says where the face is.
    """
    if plan.controlnet_scale is None:
        return {}
    points = plan.face_landmarks
    wanted = (plan.request.height, plan.request.width)
    if points is None:
        if look is None or look.place is None:
            raise InvalidRequest("face_landmarks", None, "the five points of the face: no photo shows them")
        seen = look.place
        points = place_landmarks(seen.landmarks, seen.bbox, seen.photo_size, wanted)
    # What was only rounded up to the net's multiple is cut off again, half on each side: see sizes.bring_to.
    margin = [(drawn - asked) // 2 for drawn, asked in zip(plan.drawn_size, wanted, strict=True)]
    picture = draw_keypoints(points + margin[::-1], plan.drawn_size)
    scale = np.array([plan.controlnet_scale], np.float32)
    return {"control_image": [to_nchw(picture, 0.0, 255.0)] * halves, "controlnet_scale": [scale] * halves}


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
    return replace(guidances[0], scale=scales[:, None, None, None])
