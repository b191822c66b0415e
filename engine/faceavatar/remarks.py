"""Sentences on what a caller may not expect, for `AvatarResult.warnings`. Knows plans and faces."""

from __future__ import annotations

from faceavatar.plan import Plan
from faceavatar.request import AvatarRequest
from faceavatar.result import FaceInfo

SMALL_FACE = 48  # pixels between which little of a face can be told


def remarks(plan: Plan, face: FaceInfo | None) -> tuple[str, ...]:
    """Sentences on what the caller may not expect."""
    request, said = plan.request, list[str]()
    if plan.face_embeds is not None:
        said.append("the face embedding was handed in: the photo was not looked at")
    if plan.face_landmarks is not None:
        said.append("the face's landmarks were handed in: it is drawn where they are")
    if face is not None:
        said += _face_warnings(request, face)
    if request.remove_background and request.bg_color:
        said.append(f"bg_color {request.bg_color} was used, so the background is not transparent")
    if request.guidance_interval is not None and not plan.guided:
        said.append("guidance_interval changed nothing: this run has no unconditional half to leave out")
    if plan.latents is not None:
        said.append("made from injected latents: the seed alone does not repeat it")
    return tuple(said)


def _face_warnings(request: AvatarRequest, face: FaceInfo) -> list[str]:
    said = []
    if face.faces_found > 1 and request.face_index is None:
        said.append(f"{face.faces_found} faces were found; the largest was used (face_index picks another)")
    if min(face.bbox[2:]) < SMALL_FACE:
        said.append(f"the face is only {face.bbox[2]:.0f} pixels wide; a closer photo shows more of it")
    return said
