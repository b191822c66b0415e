"""The whole trip from a photo to avatars: AvatarEngine holds a pack's opened graphs and runs requests.

Knows the order of the stages and what passes between them; each stage is a room of its own.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Lock
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from faceavatar.adapter import FaceAdapter
from faceavatar.backends import resolve_provider
from faceavatar.conditions import join_conditions, join_guidance, make_conditions
from faceavatar.denoise import Conditions, Denoised, Floats, Noise, denoise
from faceavatar.errors import InvalidRequest, ProviderUnavailable
from faceavatar.face.embed import FaceEmbedder
from faceavatar.image import ImageSource, load_image, to_uint8
from faceavatar.look import FaceReader, Look
from faceavatar.matting import CutOut
from faceavatar.pack import Pack, find_pack
from faceavatar.plan import Plan, make_plan, with_face
from faceavatar.request import AvatarRequest, check_color
from faceavatar.result import AvatarResult, FaceInfo, Step
from faceavatar.schedulers import NoiseSchedule
from faceavatar.schedulers.schedule import predict_x0
from faceavatar.sizes import bring_to
from faceavatar.stopwatch import Stopwatch
from faceavatar.text import TextEncoder, TextEncoders, open_tokenizer
from faceavatar.unet import UNet
from faceavatar.vae import VaeDecoder

Picture = NDArray[np.uint8]
SMALL_FACE = 48  # pixels between which little of a face can be told
CPU_PROVIDERS = frozenset({"cpu", "openvino"})
_LAZY_ROLES = frozenset({"matting"})


@dataclass(frozen=True, eq=False)
class Prepared:
    """A request whose photo was looked at and whose words were read: only its pictures are still to be drawn.

    Prepared requests of one engine with equal `key` can be drawn together. `plan` and `look` say what was
    settled and seen.
    """

    plan: Plan
    look: Look | None
    conditions: Conditions
    clock: Stopwatch

    @property
    def key(self) -> Hashable:
        """What has to be the same for one batch: drawn size, schedule, halves, lengths, face scale."""
        shapes = [
            None if array is None else array.shape
            for array in (self.conditions.text, self.conditions.no_text, self.conditions.empty_text)
        ]
        plan = self.plan
        name, steps = plan.request.scheduler, plan.request.num_inference_steps
        return plan.latent_shape, name, steps, plan.face_scale, tuple(shapes), plan.guidance.free


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
            sessions = {role: future.result() for role, future in opened.items()}
        self.faces = FaceReader(pack, sessions)
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
        self._cutters: dict[str, CutOut] = {}
        self._cutters_lock = Lock()

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
        (result,) = self.generate_together([self.prepare(request, latents, face_embeds, face_crop)])
        return result

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
        plan = self._plan(request, latents, face_embeds, face_crop)

        def run() -> Iterator[Step]:
            for (step,) in self.stream_together([self._prepare(plan)]):
                yield step

        return run()

    def prepare(
        self,
        request: AvatarRequest,
        latents: Floats | None = None,
        face_embeds: Floats | None = None,
        face_crop: Picture | None = None,
    ) -> Prepared:
        """All of generate that concerns this request alone: whatever is wrong with it is raised here.

        Arguments and errors as generate's.
        """
        return self._prepare(self._plan(request, latents, face_embeds, face_crop))

    def generate_together(self, prepared: Sequence[Prepared]) -> tuple[AvatarResult, ...]:
        """The results of several prepared requests, drawn as one batch; see stream_together."""
        *_, last = self._together(prepared, previews=False)
        return tuple(step.result for step in last if step.result is not None)

    def stream_together(self, prepared: Sequence[Prepared]) -> Iterator[tuple[Step, ...]]:
        """Draw several prepared requests as one batch, a Step for each of them at a time.

        Every request gets the pictures that it gets alone. `timings` count what was done together whole.
        Memory grows with the pictures of all of them; a NumericalError is raised for all of them.
        Raises InvalidRequest for none, or for keys that differ.
        """
        return self._together(prepared, previews=True)

    def _together(self, prepared: Sequence[Prepared], previews: bool) -> Iterator[tuple[Step, ...]]:
        if not prepared or len({one.key for one in prepared}) > 1:
            got = f"{len(prepared)} requests of {len({one.key for one in prepared})} kinds"
            raise InvalidRequest("prepared", got, "one or more requests with equal keys")
        return self._run(prepared, previews)

    def look(self, image: ImageSource, face_index: int | None = None) -> Look:
        """What generate sees in a photo: the face it would take, and its embedding (1, E) float32.

        image as in AvatarRequest; face_index: None for the largest face.
        Raises ImageError, NoFaceFound, InvalidRequest.
        """
        self.faces.must_see()
        return self.faces.look(load_image(image), face_index, Stopwatch())

    def cut_out(
        self, image: ImageSource, bg_color: str | None = None, net: Literal["pack", "photo"] = "pack"
    ) -> Picture:
        """The person of any picture: straight RGBA (H, W, 4) uint8, or on bg_color as (H, W, 3).

        image as in AvatarRequest; bg_color: "#RRGGBB" or "#RGB". net: "pack" takes the pack's own matting
        net (which may know nothing but drawings), "photo" MediaPipe's selfie segmentation.
        Raises InvalidRequest, ImageError, NumericalError.
        """
        if net not in {"pack", "photo"}:
            raise InvalidRequest("net", net, "pack or photo")
        color = check_color(bg_color)
        (cut,) = self._cutter(net).cut([load_image(image)], color)
        return cut

    @property
    def adapter(self) -> FaceAdapter | None:
        """The pack's face projection, or None."""
        return self.faces.adapter

    @property
    def embedder(self) -> FaceEmbedder | None:
        """The pack's face encoder, or None."""
        return self.faces.embedder

    def _plan(
        self,
        request: AvatarRequest,
        latents: Floats | None,
        face_embeds: Floats | None,
        face_crop: Picture | None,
    ) -> Plan:
        if self.adapter is not None and face_embeds is None:
            self.faces.must_see()
        plan = make_plan(request, self.pack.manifest, self._schedule, latents)
        return with_face(plan, self.pack.manifest.face, face_embeds, face_crop)

    def _prepare(self, plan: Plan) -> Prepared:
        """Load, look, read the words."""
        request, clock = plan.request, Stopwatch()
        look: Look | None = None
        if plan.face_embeds is not None:
            look = Look(None, plan.face_embeds, plan.face_crop)
        elif self.adapter is not None:
            with clock.measure("load_image"):
                photo = load_image(request.image)
            look = self.faces.look(photo, request.face_index, clock)
        conditions = make_conditions(plan, look, self.text, self.faces, self.unet, clock)
        return Prepared(plan, look, conditions, clock)

    def _run(self, prepared: Sequence[Prepared], previews: bool) -> Iterator[tuple[Step, ...]]:
        """Denoise all, then decode, fit and cut out for each."""
        plans = [one.plan for one in prepared]
        batches = [plan.request.batch for plan in plans]
        noise = Noise([seed for plan in plans for seed in plan.seeds], plans[0].latent_shape)
        start = noise()  # drawn even when not used, so that later draws stay the same
        for plan, rows in zip(plans, _rows(batches), strict=True):
            start[rows] = start[rows] if plan.latents is None else plan.latents
        conditions = join_conditions([one.conditions for one in prepared], batches)
        guidance = join_guidance([plan.guidance for plan in plans], batches)
        shared = Stopwatch()
        steps = denoise(self.unet, plans[0].scheduler, start, conditions, guidance, noise)
        for step in shared.each("denoise", steps):
            done = step.index + 1
            seconds_left = shared.seconds["denoise"] / done * (step.total - done)
            yield tuple(
                self._step(one, _part(step, rows), seconds_left, shared, previews)
                for one, rows in zip(prepared, _rows(batches), strict=True)
            )

    def _step(
        self, prepared: Prepared, step: Denoised, seconds_left: float, shared: Stopwatch, previews: bool
    ) -> Step:
        """What one request gets to see of a step: a preview where it is due, at last its pictures."""
        request, clock = prepared.plan.request, prepared.clock
        done, preview, result = step.index + 1, None, None
        if done == step.total:
            clock.seconds["denoise"] += shared.seconds["denoise"]
            images = self._decode(step.latents, request, clock)
            images = self._cut(images, request, clock)
            result = self._result(prepared.plan, prepared.look, images, clock)
        elif previews and request.preview_every and done % request.preview_every == 0:
            preview = self._decode(self._foresee(step), request, clock)
        return Step(step.index, step.total, step.timestep, seconds_left, preview, result)

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
            return self._cutter("pack").cut(images, color)

    def _cutter(self, net: str) -> CutOut:
        """The cut-out stage with the pack's net or the one for photos, opened when it is first asked for."""
        with self._cutters_lock:
            if net not in self._cutters:
                pack = self.pack if net == "pack" else None
                self._cutters[net] = CutOut.open(pack, self.provider, self._threads)
            return self._cutters[net]

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


def _rows(batches: Sequence[int]) -> Iterator[slice]:
    """Where each request's pictures lie in the batch of all."""
    start = 0
    for batch in batches:
        yield slice(start, start + batch)
        start += batch


def _part(step: Denoised, rows: slice) -> Denoised:
    """A step of some of the pictures."""
    return replace(
        step, latents=step.latents[rows], before=step.before[rows], prediction=step.prediction[rows]
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
