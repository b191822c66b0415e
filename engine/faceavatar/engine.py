"""The whole trip from a photo to avatars: AvatarEngine holds a pack's opened graphs and runs requests.

Knows the order of the stages and what passes between them; each stage is a room of its own.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from faceavatar.adapter import FaceAdapter, FaceImageEncoder
from faceavatar.backends import Session, resolve_provider
from faceavatar.cache import Cache
from faceavatar.denoise import Conditions, Denoised, Floats, Noise, denoise
from faceavatar.errors import InvalidRequest, MissingGraph, ProviderUnavailable
from faceavatar.face.align import align
from faceavatar.face.detect import FaceDetector
from faceavatar.face.embed import FaceEmbedder
from faceavatar.image import ImageSource, load_image, to_uint8
from faceavatar.matting import Matter, cut_out, put_on
from faceavatar.pack import Pack, find_pack
from faceavatar.plan import Plan, make_plan, with_face
from faceavatar.request import AvatarRequest
from faceavatar.result import AvatarResult, FaceInfo, Step
from faceavatar.schedulers import NoiseSchedule
from faceavatar.schedulers.schedule import predict_x0
from faceavatar.sizes import bring_to
from faceavatar.stopwatch import Stopwatch
from faceavatar.text import TextEncoder, TextEncoders, TextStates, open_tokenizer
from faceavatar.unet import UNet
from faceavatar.vae import VaeDecoder

Picture = NDArray[np.uint8]
REMEMBERED_FACES = 32
SMALL_FACE = 48  # pixels between which little of a face can be told
CPU_PROVIDERS = frozenset({"cpu", "openvino"})
_LAZY_ROLES = frozenset({"matting"})


@dataclass(frozen=True, eq=False)
class Look:
    """What was seen in a photo: the face, its embedding (1, E), and the crop its image encoder looks at.

    face is None for an embedding that was handed in; crop is uint8 RGB (S, S, 3), None where none is needed.
    """

    face: FaceInfo | None
    embeds: Floats
    crop: Picture | None = None


class AvatarEngine:
    """A pack, opened and ready; make one with AvatarEngine.load and use it from as many threads as you like.

    pack: the Pack. provider: the execution provider in use, such as "cpu".
    """

    def __init__(self, pack: Pack, provider: str, threads: int | None = None) -> None:
        manifest = pack.manifest
        self.pack, self.provider, self._threads = pack, provider, threads
        self._schedule = NoiseSchedule.from_manifest(manifest.scheduler)
        eager = [role for role in manifest.graphs if role not in _LAZY_ROLES]
        with ThreadPoolExecutor() as pool:  # opening a graph is optimising it, outside Python's lock
            opened = {role: pool.submit(pack.open, role, provider, threads) for role in eager}
            tokenizer = pool.submit(open_tokenizer, pack.file(manifest.text.tokenizer))
            self._take_face_models({role: future.result() for role, future in opened.items()})
        sessions = {role: future.result() for role, future in opened.items()}
        first = TextEncoder(sessions["text_encoder"], tokenizer.result(), manifest.text)
        second = sessions.get("text_encoder_2")
        pad = manifest.text.pad_token_id_2
        self.text = TextEncoders(
            first,
            None if second is None else TextEncoder(second, tokenizer.result(), manifest.text, pad),
            manifest.text.zeros_when_unset,
        )
        self.unet = UNet(sessions["unet"])
        self.vae = VaeDecoder(sessions["vae_decoder"], manifest.latents)
        self._matter: Matter | None = None
        self._matter_lock = Lock()
        self._looks: Cache[Look] = Cache(REMEMBERED_FACES)

    @classmethod
    def load(
        cls,
        pack: str | os.PathLike[str] = "toon",
        provider: str = "auto",
        threads: int | None = None,
        precision: str | None = None,
    ) -> AvatarEngine:
        """Open a pack by its name or folder.

        provider: "auto" takes a GPU where one works, else "cpu"; "cpu", "openvino", "cuda" take that one or
        raise ProviderUnavailable. threads: 1 or more; None takes one for each physical core.
        precision: "fp16" says that half-precision graphs are meant to run on a processor, which emulates
        them slowly; else they are refused there.
        Raises InvalidRequest (threads, precision), PackNotFound, PackInvalid and its kin.
        """
        if threads is not None and (type(threads) is not int or threads < 1):
            raise InvalidRequest("threads", threads, "a whole number from 1, or None for each physical core")
        opened = Pack.load(find_pack(pack))
        used = resolve_provider(provider)
        _check_precision(opened, used, precision)
        return cls(opened, used, threads)

    def generate(
        self,
        request: AvatarRequest,
        latents: Floats | None = None,
        face_embeds: Floats | None = None,
        face_crop: Picture | None = None,
    ) -> AvatarResult:
        """Make the avatars of a request.

        latents: injected unit noise (B, C, h, w) in place of the seeds' own. face_embeds: an embedding (E,)
        or (1, E) in place of the photo's own; the photo is not looked at then, and a pack whose adapter sees
        the face as well wants face_crop, the aligned face as uint8 RGB (S, S, 3), beside it.
        Raises InvalidRequest, ImageError, NoFaceFound, NumericalError.
        """
        *_, last = self._run(self._plan(request, latents, face_embeds, face_crop), previews=False)
        if last.result is None:
            raise RuntimeError("the last step carries no result")
        return last.result

    def stream(
        self,
        request: AvatarRequest,
        latents: Floats | None = None,
        face_embeds: Floats | None = None,
        face_crop: Picture | None = None,
    ) -> Iterator[Step]:
        """As generate, step by step: the last Step holds the result. Leave the loop to cancel.

        The request is checked at once, the work begins with the first step.
        """
        return self._run(self._plan(request, latents, face_embeds, face_crop), previews=True)

    def look(self, image: ImageSource, face_index: int | None = None) -> Look:
        """What generate sees in a photo: the face it would take, and its embedding (1, E) float32.

        image as in AvatarRequest; face_index: None for the largest face.
        Raises ImageError, NoFaceFound, InvalidRequest.
        """
        if self.detector is None:
            raise _no_face_models(self.pack)
        return self._look(load_image(image), face_index, Stopwatch())

    def _take_face_models(self, sessions: Mapping[str, Session]) -> None:
        face = self.pack.manifest.face
        self.detector: FaceDetector | None = None
        self.embedder: FaceEmbedder | None = None
        self.adapter: FaceAdapter | None = None
        self.image_encoder: FaceImageEncoder | None = None
        if face is None:
            return
        self.adapter = FaceAdapter(sessions["face_projection"], face.adapter)
        if face.detector is not None and face.encoder is not None:
            self.detector = FaceDetector(self.pack.file(face.detector.file))
            self.embedder = FaceEmbedder(sessions["face_encoder"], face.encoder)
        if face.image_encoder is not None:
            self.image_encoder = FaceImageEncoder(sessions["image_encoder"], face.image_encoder)

    def _plan(
        self,
        request: AvatarRequest,
        latents: Floats | None,
        face_embeds: Floats | None,
        face_crop: Picture | None,
    ) -> Plan:
        if self.adapter is not None and self.detector is None and face_embeds is None:
            raise _no_face_models(self.pack)
        plan = make_plan(request, self.pack.manifest, self._schedule, latents)
        return with_face(plan, self.pack.manifest.face, face_embeds, face_crop)

    def _run(self, plan: Plan, previews: bool) -> Iterator[Step]:
        """The trip: load, look, condition, denoise, decode, fit, cut out."""
        request, clock = plan.request, Stopwatch()
        look: Look | None = None
        if plan.face_embeds is not None:
            look = Look(None, plan.face_embeds, plan.face_crop)
        elif self.adapter is not None:
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
        face_models = self.pack.manifest.face
        if self.detector is None or self.embedder is None or face_models is None:
            raise _no_face_models(self.pack)
        with clock.measure("detect"):
            found = self.detector.detect(photo)
        if index >= len(found.faces):
            raise InvalidRequest("face_index", index, f"0..{len(found.faces) - 1}: the faces found, by size")
        face = found.faces[index]
        others = tuple(other.bbox for other in found.faces if other is not face)
        info = FaceInfo(face.bbox, face.landmarks, face.score, len(found.faces), others, found.attempt)
        alignment, crop = face_models.alignment, None
        with clock.measure("embed"):
            if face_models.image_encoder is not None:
                crop = align(photo, face.landmarks, "arcface", face_models.image_encoder.align_size)
            assert alignment is not None  # the manifest holds the three parts together
            aligned = align(photo, face.landmarks, alignment.kind, alignment.size)
            return Look(info, self.embedder.embed(aligned), crop)

    def _conditions(self, plan: Plan, look: Look | None, clock: Stopwatch) -> Conditions:
        request, guided = plan.request, plan.guided
        with clock.measure("text"):
            prompts: list[str | None] = [request.text()]
            if guided:
                prompts.append(request.negative_prompt)
            if guided and plan.built_in_guidance > 1 and (request.negative_prompt or "").strip():
                prompts.append("")
            text, *others = self.text.encode(*prompts)
            no_text, empty_text = (*others, None, None)[:2]
        face, no_face = self._face_tokens(look, guided, clock)
        return Conditions(
            text.states,
            face,
            None if no_text is None else no_text.states,
            no_face,
            plan.face_scale,
            None if empty_text is None else empty_text.states,
            self._further_inputs(plan, [half for half in (empty_text, no_text, text) if half is not None]),
        )

    def _face_tokens(
        self, look: Look | None, guided: bool, clock: Stopwatch
    ) -> tuple[Floats | None, Floats | None]:
        if self.adapter is None or look is None:
            return None, None
        with clock.measure("embed"):
            seen = unseen = None
            if self.image_encoder is not None and look.crop is not None:
                seen = self.image_encoder.states(look.crop)
                unseen = self.image_encoder.no_image() if guided else None
            face = self.adapter.tokens(look.embeds, seen)
            return face, self.adapter.no_face(unseen) if guided else None

    def _further_inputs(self, plan: Plan, halves: list[TextStates]) -> dict[str, list[Floats]]:
        """SDXL's pooled text and time ids, for each half; nothing for a net without them.

        time_ids are the original size, the crop's corner and the target size (Podell et al. 2023, section
        2.2): a whole picture of the size that is drawn.
        """
        if "text_embeds" not in self.unet.session.inputs:
            return {}
        grain = self.pack.manifest.latents.downsample
        height, width = plan.latent_shape[1] * grain, plan.latent_shape[2] * grain
        ids = np.array([[height, width, 0, 0, height, width]], np.float32)
        pooled = [half.pooled for half in halves if half.pooled is not None]
        return {"text_embeds": pooled, "time_ids": [ids] * len(halves)}

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

    def _result(
        self, plan: Plan, look: Look | None, images: tuple[Picture, ...], clock: Stopwatch
    ) -> AvatarResult:
        request, manifest = plan.request, self.pack.manifest
        face = None if look is None else look.face
        return AvatarResult(
            images=images,
            seeds=plan.seeds,
            timings=clock.timings(),
            face=face,
            warnings=_warnings(plan, face),
            request=request,
            pack=manifest.name,
            pack_version=manifest.version,
            width=request.width,
            height=request.height,
        )


def _no_face_models(pack: Pack) -> MissingGraph:
    return MissingGraph(
        f"{pack.name}: this pack has no face detector and encoder of its own; hand the embedding in "
        "(generate(request, face_embeds=...)), or export it again with them"
    )


def _check_precision(pack: Pack, provider: str, precision: str | None) -> None:
    """Half-precision graphs on a processor must be asked for: it runs them, slower than full precision."""
    if precision not in {None, "fp16"}:
        raise InvalidRequest("precision", precision, '"fp16", to run half-precision graphs on a processor')
    halves = [role for role, graph in pack.manifest.graphs.items() if graph.precision == "fp16"]
    if halves and provider in CPU_PROVIDERS and precision != "fp16":
        raise ProviderUnavailable(
            f"{pack.name}: {', '.join(halves)} are fp16 graphs, which provider {provider!r} only emulates, "
            'slowly; use a GPU, export the pack in fp32, or insist with precision="fp16"'
        )


def _warnings(plan: Plan, face: FaceInfo | None) -> tuple[str, ...]:
    """Sentences on what the caller may not expect."""
    request, said = plan.request, []
    if plan.face_embeds is not None:
        said.append("the face embedding was handed in: the photo was not looked at")
    if face is not None:
        said += _face_warnings(request, face)
    if request.remove_background and request.bg_color:
        said.append(f"bg_color {request.bg_color} was used, so the background is not transparent")
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
