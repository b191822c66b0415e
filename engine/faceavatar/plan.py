"""A request made definite for one pack: defaults filled in, seeds drawn, sizes settled, latents checked.

Everything that can be refused without running a model is refused here.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from faceavatar.denoise import Guidance
from faceavatar.errors import InvalidRequest, MissingGraph
from faceavatar.likeness import check_likeness
from faceavatar.manifest import Face, Manifest
from faceavatar.request import AvatarRequest
from faceavatar.schedulers import NoiseSchedule, Scheduler, make_scheduler
from faceavatar.sizes import drawing_size

SEEDS = 2**32
Value = TypeVar("Value")


@dataclass(frozen=True)
class Plan:
    """What one run does. request: the one handed in, with nothing left None that the pack decides.

    seeds: of all candidates, best_of of them for each picture.

    latent_shape: (C, h, w); a cell of it is downsample pixels wide. latents: injected unit noise
    (B, C, h, w), or None for the seeds' own. face_embeds (1, E) and face_crop (S, S, 3): a face handed in,
    or None for the photo's own. start: the step at which a run that begins with the photo begins.
    guidance_is_input: the net is told the guidance scale and needs no second half. controlnet_scale: None
    for a pack without a ControlNet. face_landmarks: (5, 2) pixels of the picture asked for, handed in.
    """

    request: AvatarRequest
    seeds: tuple[int, ...]
    latent_shape: tuple[int, int, int]
    downsample: int
    scheduler: Scheduler
    guidance_scale: float
    built_in_guidance: float
    face_scale: float
    controlnet_scale: float | None
    latents: NDArray[np.float32] | None
    face_embeds: NDArray[np.float32] | None = None
    face_crop: NDArray[np.uint8] | None = None
    start: int = 0
    guidance_is_input: bool = False
    face_landmarks: NDArray[np.float64] | None = None

    @property
    def drawn_size(self) -> tuple[int, int]:
        """(height, width) of the picture that the latents decode to."""
        return self.latent_shape[1] * self.downsample, self.latent_shape[2] * self.downsample

    @property
    def guidance(self) -> Guidance:
        """How the halves are combined."""
        scale = 1.0 if self.guidance_is_input else self.guidance_scale
        return Guidance(scale, self.built_in_guidance, self.request.guidance_interval or (0.0, 1.0))

    @property
    def halves(self) -> int:
        """Of the net's batch: the wanted one, the negative one, and of a distilled net the empty one too."""
        if not self.guided:
            return 1
        said = self.built_in_guidance > 1 and bool((self.request.negative_prompt or "").strip())
        return 3 if said else 2

    @property
    def guided(self) -> bool:
        """Whether an unconditional half must run; a distilled net has none to put a negative prompt in."""
        said = self.built_in_guidance > 1 and bool((self.request.negative_prompt or "").strip())
        return said or not self.guidance.free


def make_plan(
    request: AvatarRequest,
    manifest: Manifest,
    schedule: NoiseSchedule,
    latents: NDArray[np.floating] | None = None,
) -> Plan:
    """Settle a request. Raises InvalidRequest, and MissingGraph where the pack cannot do what it asks."""
    check_likeness(request, manifest)
    if latents is not None and request.best_of > 1:
        raise InvalidRequest("best_of", request.best_of, "1 beside latents that are handed in")
    defaults = manifest.defaults
    if request.controlnet_scale is not None and defaults.controlnet_scale is None:
        raise InvalidRequest(
            "controlnet_scale", request.controlnet_scale, f"None: the pack {manifest.name} has no ControlNet"
        )
    seed = _either(request.seed, secrets.randbelow(SEEDS))
    steps = _either(request.num_inference_steps, defaults.num_inference_steps)
    guidance_scale = _either(request.guidance_scale, defaults.guidance_scale)
    face_scale = _either(request.face_scale, defaults.face_scale)
    controlnet_scale = _either(request.controlnet_scale, defaults.controlnet_scale)
    scheduler = _either(request.scheduler, defaults.scheduler)
    settled: dict[str, Any] = {
        "seed": seed,
        "num_inference_steps": steps,
        "guidance_scale": guidance_scale,
        "face_scale": face_scale,
        "controlnet_scale": controlnet_scale,
        "scheduler": scheduler,
    }
    start = _start(request.strength, steps, manifest)
    _check_interval(request, start, steps)
    if request.step_cache > 1 and "unet_shallow" not in manifest.graphs:
        raise MissingGraph(
            f"{manifest.name}: this pack has no unet_shallow graph, so step_cache must be 1; "
            "add it: python -m faceavatar_export.step_cache PACK"
        )
    height, width = drawing_size(manifest.sizes, (request.height, request.width))
    grain = manifest.latents.downsample
    shape = (manifest.latents.channels, height // grain, width // grain)
    return Plan(
        request=request.model_copy(update=settled),
        seeds=tuple((seed + index) % SEEDS for index in range(request.batch * request.best_of)),
        latent_shape=shape,
        downsample=grain,
        scheduler=make_scheduler(scheduler, schedule, steps),
        guidance_scale=guidance_scale,
        built_in_guidance=defaults.built_in_guidance,
        face_scale=face_scale,
        controlnet_scale=controlnet_scale,
        latents=None if latents is None else _checked(latents, (request.batch, *shape)),
        start=start,
        guidance_is_input="timestep_cond" in manifest.graphs["unet"].inputs,
    )


def with_face(
    plan: Plan,
    face: Face | None,
    face_embeds: NDArray[np.floating] | None,
    face_crop: NDArray[np.uint8] | None,
) -> Plan:
    """The plan with a face that is handed in. Raises InvalidRequest where the pack cannot take it."""
    if face_embeds is None:
        if face_crop is not None:
            raise InvalidRequest("face_crop", "a crop", "None without face_embeds beside it")
        return plan
    if face is None:
        raise InvalidRequest("face_embeds", "an embedding", "None: this pack has no face adapter")
    size = face.adapter.embedding_size
    array = np.asarray(face_embeds)
    allowed = f"finite floats of shape (1, {size}) or ({size},): one embedding of this pack's encoder"
    if array.shape not in {(size,), (1, size)} or not np.issubdtype(array.dtype, np.floating):
        raise InvalidRequest("face_embeds", f"{array.dtype} {array.shape}", allowed)
    if not np.isfinite(array).all() or not array.any():
        raise InvalidRequest("face_embeds", "NaN, infinite values or zeros alone", allowed)
    wants_crop = face.image_encoder is not None
    right = face_crop is not None and face_crop.dtype == np.uint8 and face_crop.ndim == 3
    if wants_crop != (face_crop is not None) or (wants_crop and not right):
        got = "nothing" if face_crop is None else f"{face_crop.dtype} {face_crop.shape}"
        need = "the aligned face, uint8 RGB (S, S, 3)" if wants_crop else "None: this adapter sees no pixels"
        raise InvalidRequest("face_crop", got, need)
    embeds = array.astype(np.float32).reshape(1, size)
    return replace(plan, face_embeds=embeds, face_crop=face_crop)


def _start(strength: float | None, steps: int, manifest: Manifest) -> int:
    """The step at which a run of this strength begins, as diffusers' get_timesteps counts."""
    if strength is None:
        return 0
    if "vae_encoder" not in manifest.graphs:
        raise MissingGraph(
            f"{manifest.name}: this pack has no vae_encoder graph, so strength must be None; "
            "export it again with --vae-encoder"
        )
    left = min(int(steps * strength), steps)
    if left < 1:
        allowed = f"{1 / steps:.3g}..1 with {steps} steps: below, none of them is left"
        raise InvalidRequest("strength", strength, allowed)
    return steps - left


def _check_interval(request: AvatarRequest, start: int, steps: int) -> None:
    """Refuse an interval between two steps: guidance would be off, which is asked for otherwise."""
    interval = request.guidance_interval
    if interval is None or any(interval[0] <= step / steps < interval[1] for step in range(start, steps)):
        return
    lies = f"one that a step lies in (step i at i/{steps}, i from {start}); guidance 1 has none guided"
    raise InvalidRequest("guidance_interval", interval, lies)


def with_landmarks(plan: Plan, face_landmarks: NDArray[np.floating] | None) -> Plan:
    """The plan with landmarks handed in. Raises InvalidRequest where the pack cannot take it or lacks it."""
    request = plan.request
    if face_landmarks is None:
        if plan.controlnet_scale is not None and plan.face_embeds is not None:
            raise InvalidRequest("face_landmarks", None, f"{_landmarks_words(request)}, beside face_embeds")
        return plan
    if plan.controlnet_scale is None:
        raise InvalidRequest("face_landmarks", "landmarks", "None: this pack has no ControlNet to see them")
    array = np.asarray(face_landmarks)
    if array.shape != (5, 2) or array.dtype.kind not in "fiu":
        raise InvalidRequest("face_landmarks", f"{array.dtype} {array.shape}", _landmarks_words(request))
    if not ((array >= 0) & (array <= (request.width, request.height))).all():
        got = (
            f"x {array[:, 0].min():g}..{array[:, 0].max():g}, y {array[:, 1].min():g}..{array[:, 1].max():g}"
        )
        raise InvalidRequest("face_landmarks", got, _landmarks_words(request))
    return replace(plan, face_landmarks=array.astype(np.float64))


def _landmarks_words(request: AvatarRequest) -> str:
    return (
        "numbers of shape (5, 2): x and y of eyes, nose tip and mouth corners, left before right, in pixels "
        f"of the picture asked for ({request.width}x{request.height})"
    )


def _either(asked: Value | None, default: Value) -> Value:
    return default if asked is None else asked


def _checked(latents: NDArray[np.floating], wanted: tuple[int, ...]) -> NDArray[np.float32]:
    array = np.asarray(latents)
    allowed = f"finite floats of shape {wanted}: batch, channels, height and width of the latents"
    if array.shape != wanted or not np.issubdtype(array.dtype, np.floating):
        raise InvalidRequest("latents", f"{array.dtype} {array.shape}", allowed)
    if not np.isfinite(array).all():
        raise InvalidRequest("latents", "NaN or infinite values", allowed)
    return array.astype(np.float32)
