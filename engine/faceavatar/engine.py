"""The whole trip from a photo to avatars: AvatarEngine holds a pack's opened graphs and runs requests.

Knows the order of the stages and what passes between them; each stage is a room of its own.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from faceavatar.adapter import FaceAdapter
from faceavatar.backends import resolve_provider
from faceavatar.cache import Cache
from faceavatar.denoise import Conditions, Denoised, Floats, Noise, denoise
from faceavatar.errors import InvalidRequest, MissingGraph
from faceavatar.face.align import align
from faceavatar.face.detect import FaceDetector
from faceavatar.face.embed import FaceEmbedder
from faceavatar.image import ImageSource, load_image, to_uint8
from faceavatar.matting import Matter, cut_out, put_on
from faceavatar.pack import Pack, find_pack
from faceavatar.plan import Plan, make_plan
from faceavatar.request import AvatarRequest
from faceavatar.result import AvatarResult, FaceInfo, Step
from faceavatar.schedulers import NoiseSchedule
from faceavatar.schedulers.schedule import predict_x0
from faceavatar.sizes import bring_to
from faceavatar.stopwatch import Stopwatch
from faceavatar.text import TextEncoder, open_tokenizer
from faceavatar.unet import UNet
from faceavatar.vae import VaeDecoder

Picture = NDArray[np.uint8]
REMEMBERED_FACES = 32
SMALL_FACE = 48  # pixels between which little of a face can be told
_EAGER_ROLES = ("unet", "vae_decoder", "text_encoder", "face_encoder", "face_projection")


@dataclass(frozen=True)
class Look:
    """What was seen in a photo: the face, and its embedding (1, E)."""

    face: FaceInfo
    embeds: Floats


class AvatarEngine:
    """A pack, opened and ready; make one with AvatarEngine.load and use it from as many threads as you like.

    pack: the Pack. provider: the execution provider in use, such as "cpu".
    """

    def __init__(self, pack: Pack, provider: str, threads: int | None = None) -> None:
        manifest = pack.manifest
        self.pack, self.provider, self._threads = pack, provider, threads
        self._schedule = NoiseSchedule.from_manifest(manifest.scheduler)
        with ThreadPoolExecutor() as pool:  # opening a graph is optimising it, outside Python's lock
            opened = {role: pool.submit(pack.open, role, provider, threads) for role in _EAGER_ROLES}
            detector = pool.submit(FaceDetector, pack.file(manifest.face.detector.file))
            tokenizer = pool.submit(open_tokenizer, pack.file(manifest.text.tokenizer))
            sessions = {role: future.result() for role, future in opened.items()}
            self.detector = detector.result()
        self.text = TextEncoder(sessions["text_encoder"], tokenizer.result(), manifest.text)
        self.embedder = FaceEmbedder(sessions["face_encoder"], manifest.face.encoder)
        self.adapter = FaceAdapter(sessions["face_projection"], manifest.face.adapter)
        self.unet = UNet(sessions["unet"])
        self.vae = VaeDecoder(sessions["vae_decoder"], manifest.latents)
        self._matter: Matter | None = None
        self._matter_lock = Lock()
        self._looks: Cache[Look] = Cache(REMEMBERED_FACES)

    @classmethod
    def load(
        cls, pack: str | os.PathLike[str] = "toon", provider: str = "auto", threads: int | None = None
    ) -> AvatarEngine:
        """Open a pack by its name or folder.

        provider: "auto" takes a GPU where one works, else "cpu"; "cpu", "openvino", "cuda" take that one or
        raise ProviderUnavailable. threads: 1 or more; None takes one for each physical core.
        Raises InvalidRequest (threads), PackNotFound, PackInvalid and its kin.
        """
        if threads is not None and (type(threads) is not int or threads < 1):
            raise InvalidRequest("threads", threads, "a whole number from 1, or None for each physical core")
        return cls(Pack.load(find_pack(pack)), resolve_provider(provider), threads)

    def generate(self, request: AvatarRequest, latents: Floats | None = None) -> AvatarResult:
        """Make the avatars of a request.

        latents: injected unit noise (B, C, h, w) in place of the seeds' own.
        Raises InvalidRequest, ImageError, NoFaceFound, NumericalError.
        """
        *_, last = self._run(make_plan(request, self.pack.manifest, self._schedule, latents), previews=False)
        if last.result is None:
            raise RuntimeError("the last step carries no result")
        return last.result

    def stream(self, request: AvatarRequest, latents: Floats | None = None) -> Iterator[Step]:
        """As generate, step by step: the last Step holds the result. Leave the loop to cancel.

        The request is checked at once, the work begins with the first step.
        """
        return self._run(make_plan(request, self.pack.manifest, self._schedule, latents), previews=True)

    def look(self, image: ImageSource, face_index: int | None = None) -> Look:
        """What generate sees in a photo: the face it would take, and its embedding (1, E) float32.

        image as in AvatarRequest; face_index: None for the largest face.
        Raises ImageError, NoFaceFound, InvalidRequest.
        """
        return self._look(load_image(image), face_index, Stopwatch())

    def _run(self, plan: Plan, previews: bool) -> Iterator[Step]:
        """The trip: load, look, condition, denoise, decode, fit, cut out."""
        request, clock = plan.request, Stopwatch()
        with clock.measure("load_image"):
            photo = load_image(request.image)
        look = self._look(photo, request.face_index, clock)
        conditions = self._conditions(plan, look, clock)
        noise = Noise(plan.seeds, plan.latent_shape)
        drawn = noise()  # drawn even when not used, so that later draws stay the same
        start = drawn if plan.latents is None else plan.latents
        steps = denoise(self.unet, plan.scheduler, start, conditions, plan.guidance, noise)
        for step in clock.each("denoise", steps):
            done, preview, result = step.index + 1, None, None
            if done == step.total:
                images = self._decode(step.latents, request, clock)
                images = self._cut(images, request, clock)
                result = self._result(plan, look, images, clock)
            elif previews and request.preview_every and done % request.preview_every == 0:
                preview = self._decode(self._foresee(step), request, clock)
            seconds_left = clock.seconds["denoise"] / done * (step.total - done)
            yield Step(step.index, step.total, step.timestep, seconds_left, preview, result)

    def _look(self, photo: Picture, face_index: int | None, clock: Stopwatch) -> Look:
        """Find the face and embed it; the photos seen last are remembered."""
        key = (hashlib.sha256(photo.tobytes()).digest(), photo.shape, face_index)
        return self._looks.get(key, lambda: self._look_anew(photo, face_index or 0, clock))

    def _look_anew(self, photo: Picture, index: int, clock: Stopwatch) -> Look:
        with clock.measure("detect"):
            found = self.detector.detect(photo)
        if index >= len(found.faces):
            raise InvalidRequest("face_index", index, f"0..{len(found.faces) - 1}: the faces found, by size")
        face = found.faces[index]
        others = tuple(other.bbox for other in found.faces if other is not face)
        info = FaceInfo(face.bbox, face.landmarks, face.score, len(found.faces), others, found.attempt)
        alignment = self.pack.manifest.face.alignment
        with clock.measure("embed"):
            crop = align(photo, face.landmarks, alignment.kind, alignment.size)
            return Look(info, self.embedder.embed(crop))

    def _conditions(self, plan: Plan, look: Look, clock: Stopwatch) -> Conditions:
        request, guided = plan.request, plan.guided
        with clock.measure("text"):
            prompts = [request.text(), request.negative_prompt] if guided else [request.text()]
            if guided and plan.built_in_guidance > 1 and request.negative_prompt.strip():
                prompts.append("")
            text, *others = self.text.encode(*prompts)
            no_text, empty_text = (*others, None, None)[:2]
        with clock.measure("embed"):
            face = self.adapter.tokens(look.embeds)
            no_face = self.adapter.no_face() if guided else None
        return Conditions(text, face, no_text, no_face, plan.face_scale, empty_text)

    def _foresee(self, step: Denoised) -> Floats:
        """The clean latents that the net predicts at this step."""
        alpha_bar = self._schedule.alphas_cumprod[round(step.timestep)]
        alpha, sigma = np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar)
        return predict_x0(step.prediction, step.before, alpha, sigma, self._schedule.prediction_type)

    def _decode(self, latents: Floats, request: AvatarRequest, clock: Stopwatch) -> tuple[Picture, ...]:
        with clock.measure("decode"):
            wanted, sizes = (request.height, request.width), self.pack.manifest.sizes
            return tuple(bring_to(image, wanted, sizes) for image in to_uint8(self.vae.decode(latents)))

    def _cut(
        self, images: tuple[Picture, ...], request: AvatarRequest, clock: Stopwatch
    ) -> tuple[Picture, ...]:
        """Put the person on bg_color, or on nothing; a colour wins where both are asked for."""
        color = request.bg_color
        if color is None and not request.remove_background:
            return images
        with clock.measure("matting"):
            matter = self._open_matter()
            alphas = [matter.alpha(image) for image in images]
            pairs = zip(images, alphas, strict=True)
            if color is None:
                return tuple(cut_out(image, alpha) for image, alpha in pairs)
            return tuple(put_on(image, alpha, color) for image, alpha in pairs)

    def _open_matter(self) -> Matter:
        settings = self.pack.manifest.matting
        if settings is None:
            raise MissingGraph(f"{self.pack.name}: this pack has no matting graph")
        with self._matter_lock:
            if self._matter is None:
                self._matter = Matter(self.pack.open("matting", self.provider, self._threads), settings)
            return self._matter

    def _result(self, plan: Plan, look: Look, images: tuple[Picture, ...], clock: Stopwatch) -> AvatarResult:
        request, manifest = plan.request, self.pack.manifest
        return AvatarResult(
            images=images,
            seeds=plan.seeds,
            timings=clock.timings(),
            face=look.face,
            warnings=_warnings(plan, look.face),
            request=request,
            pack=manifest.name,
            pack_version=manifest.version,
            width=request.width,
            height=request.height,
        )


def _warnings(plan: Plan, face: FaceInfo) -> tuple[str, ...]:
    """Sentences on what the caller may not expect."""
    request, said = plan.request, []
    if face.faces_found > 1 and request.face_index is None:
        said.append(f"{face.faces_found} faces were found; the largest was used (face_index picks another)")
    if min(face.bbox[2:]) < SMALL_FACE:
        said.append(f"the face is only {face.bbox[2]:.0f} pixels wide; a closer photo shows more of it")
    if request.remove_background and request.bg_color:
        said.append(f"bg_color {request.bg_color} was used, so the background is not transparent")
    if plan.latents is not None:
        said.append("made from injected latents: the seed alone does not repeat it")
    return tuple(said)
