"""The whole trip from a photo to avatars: AvatarEngine holds a pack's opened graphs and runs requests.

Knows the order of the stages and what passes between them; each stage is a room of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Lock
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from faceavatar.adapter import FaceAdapter
from faceavatar.allowance import Allowance
from faceavatar.backends import DeviceSession, Session
from faceavatar.budget import read_budget
from faceavatar.conditions import join_conditions, join_guidance, make_conditions
from faceavatar.denoise import Conditions, Denoised, Floats, Noise, denoise
from faceavatar.device_loop import denoise_on_device
from faceavatar.errors import InvalidRequest, MissingGraph
from faceavatar.forecast import Forecast
from faceavatar.identity import Identity, open_reference
from faceavatar.image import ImageSource, fit_to, load_image, to_nchw, to_uint8
from faceavatar.likeness import Kept, candidates, rounds
from faceavatar.look import FACE_ROLES, Embedder, FaceReader, Look
from faceavatar.matting import CutOut
from faceavatar.opening import Later, Opening
from faceavatar.pack import Pack, find_pack
from faceavatar.plan import Plan, make_plan, with_face, with_landmarks
from faceavatar.remarks import remarks
from faceavatar.request import AvatarRequest, check_color
from faceavatar.result import AvatarResult, Step
from faceavatar.schedulers import NoiseSchedule
from faceavatar.schedulers.schedule import predict_x0
from faceavatar.sizes import bring_to
from faceavatar.stopwatch import Stopwatch
from faceavatar.text import TextEncoder, TextEncoders, open_tokenizer
from faceavatar.unet import StepCache, StepUNet, UNet
from faceavatar.vae import TiledVaeDecoder, VaeDecoder, VaeEncoder
from faceavatar.watch import Rerun, Watch, current, told

Picture = NDArray[np.uint8]
Points = NDArray[np.floating]
Check = Callable[[], object]
TILE_ROLES = frozenset({"vae_decoder_low", "vae_decoder_tile"})
TILED = "decoded in tiles, since memory_budget does not allow it whole: slower, the same within rounding"
_LAZY_ROLES = TILE_ROLES | frozenset(
    {"matting", "vae_encoder", "vae_decoder", "unet", "unet_step", "unet_shallow"}
)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A request whose photo was looked at and whose words were read: only its pictures are still to be drawn.

    Prepared requests of one engine with equal `key` can be drawn together. `plan` and `look` say what was
    settled and seen; `clean` are the photo's own latents (1, C, h, w) where they are to begin with; `reruns`
    tells what had to be computed in fp32.
    """

    plan: Plan
    look: Look | None
    conditions: Conditions
    clock: Stopwatch
    clean: Floats | None = None
    reruns: tuple[Rerun, ...] = ()

    @property
    def pictures(self) -> int:
        """How many it draws at once: its batch, or with best_of as many candidates as fit a megapixel."""
        part = candidates(self.plan.request, 0)
        return len(self.plan.seeds[part])

    @property
    def key(self) -> Hashable:
        """What must be the same for one batch: size, rounds, schedule, halves, lengths, scale, savings."""
        shapes = [
            None if array is None else array.shape
            for array in (self.conditions.text, self.conditions.no_text, self.conditions.empty_text)
        ]
        plan = self.plan
        name, steps = plan.request.scheduler, plan.request.num_inference_steps
        drawn = plan.latent_shape, rounds(plan.request), plan.start, self.clean is None
        less = plan.guidance.interval, plan.request.step_cache
        return *drawn, name, steps, plan.face_scale, tuple(shapes), plan.guidance.free, *less


class AvatarEngine:
    """A pack, opened and ready; make one with AvatarEngine.load and use it from as many threads as you like.

    pack: the Pack. provider: the execution provider in use, such as "cpu".
    """

    def __init__(self, opening: Opening, memory_budget: int | None = None, tiling: bool = False) -> None:
        pack, manifest = opening.pack, opening.pack.manifest
        self.pack, self.provider, self._opening = pack, opening.provider, opening
        self._schedule = NoiseSchedule.from_manifest(manifest.scheduler)
        wanted = {*manifest.graphs} - _LAZY_ROLES | {opening.net}
        eager = sorted(wanted, key=lambda role: role != opening.net)  # the longest first
        with ThreadPoolExecutor() as pool:  # opening a graph is optimising it, outside Python's lock
            opened = {role: pool.submit(_open, opening, role) for role in eager}
            tokenizer = pool.submit(open_tokenizer, pack.file(manifest.text.tokenizer))
            seeing = {role: opened[role].result() for role in FACE_ROLES if role in opened}
            self.faces = FaceReader(pack, seeing, opening.provider, opening.threads)
            sessions = {role: future.result() for role, future in opened.items()}
        first = TextEncoder(sessions["text_encoder"], tokenizer.result(), manifest.text)
        second = sessions.get("text_encoder_2")
        pad = manifest.text.pad_token_id_2
        self.text = TextEncoders(
            first,
            None if second is None else TextEncoder(second, tokenizer.result(), manifest.text, pad),
            manifest.text.zeros_when_unset,
        )
        self.unet = _net(opening, sessions[opening.net])
        # The steps come first: whoever draws at once does not wait for what their end needs.
        self._decoder = Later(lambda: opening.guarded("vae_decoder"))
        self.vae = VaeDecoder(self._decoder, manifest.latents)
        self._cutters: dict[str, CutOut] = {}
        self._encoder: VaeEncoder | None = None
        self._shallow: Session | None = None
        self._lazy_lock = Lock()
        if tiling and not manifest.graphs.keys() >= TILE_ROLES:
            raise MissingGraph(
                f"{manifest.name}: tiling needs the graphs {' and '.join(sorted(TILE_ROLES))}; add them with "
                "python -m faceavatar_export.tiles PACK, or load without tiling"
            )
        self._tiles: TiledVaeDecoder | None = None
        sees = self.adapter is not None
        self.allowance = Allowance(manifest, opening.provider, sees, memory_budget, tiling)

    @classmethod
    def load(
        cls,
        pack: str | os.PathLike[str] = "toon",
        provider: str = "auto",
        threads: int | None = None,
        precision: str | Mapping[str, str] | None = None,
        engines: str | os.PathLike[str] | None = None,
        check_hashes: bool = True,
        device_loop: bool | None = None,
        cuda_graphs: bool = False,
        memory_budget: int | str | None = None,
        tiling: bool = False,
    ) -> AvatarEngine:
        """Open a pack by its name or folder.

        provider: "auto" takes a GPU where one works, else what is faster on the processor for the pack's
        size; a name takes that one or raises ProviderUnavailable; `engine.provider` says which. threads: 1 or
        more; None takes one for each physical core. precision: None computes in what each graph is stored in;
        "fp32", "bf16", "fp16" for the nets that nearly all time goes into, or a mapping from roles to these.
        A provider that cannot do that refuses it. fp16 graphs on a processor must be asked for, since it
        only emulates them. engines: None takes the compiled engines in the pack where there are some, a
        folder those in it (faceavatar compile --into), "ignore" the plain graphs, with a warning in results.
        check_hashes: hold files to their sha256; those hashed before and untouched since are not read again.
        device_loop: latents stay on the device between steps; None does so on a GPU where the pack has the
        graph unet_step. cuda_graphs: record the launches of such a step once for each shape and replay them.
        memory_budget: bytes, or words such as "6GB", that the process may grow to: a request that would take
        more is refused before any work; None for what the machine and its container have free at that time.
        tiling: decode a picture in tiles where it would not fit whole: slower, and the same within rounding;
        for packs with the graphs that faceavatar_export.tiles adds.
        The decoder goes on opening in the background; see wait_until_open.
        Raises InvalidRequest (any but the first two), PackNotFound, PackInvalid and its kin.
        """
        budget = read_budget(memory_budget)
        loaded = Pack.load(find_pack(pack), check_hashes)
        return cls(
            Opening.of(
                *(loaded, provider, threads, precision, engines, check_hashes, device_loop, cuda_graphs)
            ),
            *(budget, tiling),
        )

    def wait_until_open(self) -> AvatarEngine:
        """Returns once nothing is being opened any more. Raises what load raises, of what load left to do."""
        self._decoder.wait()
        return self

    @property
    def precisions(self) -> Mapping[str, str]:
        """What the nets that are open really compute in, by role."""
        return self._opening.precisions

    def generate(
        self,
        request: AvatarRequest,
        latents: Floats | None = None,
        face_embeds: Floats | None = None,
        face_crop: Picture | None = None,
        face_landmarks: Points | None = None,
        timeout: float | None = None,
        check: Check | None = None,
    ) -> AvatarResult:
        """Make the avatars of a request.

        latents: injected unit noise (B, C, h, w) in place of the seeds' own. face_embeds: an embedding (E,)
        or (1, E) in place of the photo's own; the photo is not looked at then, and a pack whose adapter sees
        the face as well wants face_crop, the aligned face as uint8 RGB (S, S, 3), beside it. face_landmarks:
        for packs with a ControlNet, the five points (5, 2) of the face to be drawn, in pixels of the picture
        asked for, in place of the photo's own; needed beside face_embeds. timeout: seconds that it may take
        in all. check: called before each step, picture and stage; what it raises ends the work.
        Raises InvalidRequest, ImageError, NoFaceFound, NumericalError, OutOfMemory, DeadlineExceeded.
        """
        watch = Watch(timeout, check)
        plan = self._plan(request, latents, face_embeds, face_crop, face_landmarks)
        *_, (last,) = self._together([self._prepare(plan, watch)], False, watch)
        assert last.result is not None
        return last.result

    def stream(
        self,
        request: AvatarRequest,
        latents: Floats | None = None,
        face_embeds: Floats | None = None,
        face_crop: Picture | None = None,
        face_landmarks: Points | None = None,
        timeout: float | None = None,
        check: Check | None = None,
    ) -> Iterator[Step]:
        """As generate, step by step: the last Step holds the result. Leave the loop to cancel.

        The request is checked at once, the work begins with the first step; timeout counts from here.
        """
        watch = Watch(timeout, check)
        plan = self._plan(request, latents, face_embeds, face_crop, face_landmarks)

        def run() -> Iterator[Step]:
            for (step,) in self._together([self._prepare(plan, watch)], True, watch):
                yield step

        return run()

    def prepare(
        self,
        request: AvatarRequest,
        latents: Floats | None = None,
        face_embeds: Floats | None = None,
        face_crop: Picture | None = None,
        face_landmarks: Points | None = None,
        timeout: float | None = None,
        check: Check | None = None,
    ) -> Prepared:
        """All of generate that concerns this request alone: whatever is wrong with it is raised here.

        Arguments and errors as generate's; timeout is this part's alone.
        """
        watch = Watch(timeout, check)
        return self._prepare(self._plan(request, latents, face_embeds, face_crop, face_landmarks), watch)

    def generate_together(
        self, prepared: Sequence[Prepared], timeout: float | None = None, check: Check | None = None
    ) -> tuple[AvatarResult, ...]:
        """The results of several prepared requests, drawn as one batch; see stream_together."""
        *_, last = self._together(prepared, False, Watch(timeout, check))
        return tuple(step.result for step in last if step.result is not None)

    def stream_together(
        self, prepared: Sequence[Prepared], timeout: float | None = None, check: Check | None = None
    ) -> Iterator[tuple[Step, ...]]:
        """Draw several prepared requests as one batch, a Step for each of them at a time.

        Every request gets the pictures that it gets alone. `timings` count what was done together whole.
        Memory grows with the pictures of all of them; a NumericalError is raised for all of them. timeout and
        check as generate's, for the drawing.
        Raises InvalidRequest for none, or for keys that differ, OverBudget for more than fit (see fits).
        """
        return self._together(prepared, True, Watch(timeout, check))

    def _together(
        self, prepared: Sequence[Prepared], previews: bool, watch: Watch
    ) -> Iterator[tuple[Step, ...]]:
        if not prepared or len({one.key for one in prepared}) > 1:
            got = f"{len(prepared)} requests of {len({one.key for one in prepared})} kinds"
            raise InvalidRequest("prepared", got, "one or more requests with equal keys")
        self.allowance.check([one.plan for one in prepared])
        return watch.over(self._run(prepared, previews, watch))

    def look(self, image: ImageSource, face_index: int | None = None) -> Look:
        """What generate sees in a photo: the face it would take, and its embedding (1, E) float32.

        image as in AvatarRequest; face_index: None for the largest face.
        Raises ImageError, NoFaceFound, InvalidRequest.
        """
        self.faces.must_see()
        with Watch().worn():
            return self.faces.look(open_reference(image), face_index, Stopwatch())

    def identity(self, image: ImageSource, face_index: int | None = None) -> Identity:
        """The face in a photo as an Identity, which takes the photo's place in requests once it is saved.

        Arguments and errors as look's.
        """
        with Watch().worn():
            return self.faces.identity(load_image(image), face_index, Stopwatch())

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
    def embedder(self) -> Embedder | None:
        """The pack's face encoder, or None."""
        return self.faces.embedder

    def _plan(
        self,
        request: AvatarRequest,
        latents: Floats | None,
        face_embeds: Floats | None,
        face_crop: Picture | None,
        face_landmarks: Points | None,
    ) -> Plan:
        if self.adapter is not None and face_embeds is None:
            self.faces.must_see()
        if request.step_cache > 1 and isinstance(self.unet, StepUNet):
            allowed = "1: this engine's steps stay on the device (load it with device_loop=False)"
            raise InvalidRequest("step_cache", request.step_cache, allowed)
        plan = make_plan(request, self.pack.manifest, self._schedule, latents)
        plan = with_face(plan, self.pack.manifest.face, face_embeds, face_crop)
        plan = with_landmarks(plan, face_landmarks)
        self.allowance.check([plan])
        return plan

    def forecast(self, request: AvatarRequest) -> Forecast:
        """The memory that a request will take, in bytes by stage. Raises InvalidRequest as generate does."""
        return self.allowance.forecast([make_plan(request, self.pack.manifest, self._schedule)])

    def fits(self, prepared: Sequence[Prepared]) -> bool:
        """Whether these can be drawn as one batch within the memory budget."""
        return self.allowance.fits([one.plan for one in prepared])

    def _prepare(self, plan: Plan, watch: Watch) -> Prepared:
        """Load, look, read the words, under the watch."""
        with watch.worn(), self.allowance.held([plan], drawing=False):
            prepared = self._look_and_read(plan)
        return replace(prepared, reruns=tuple(watch.take()))

    def _look_and_read(self, plan: Plan) -> Prepared:
        request, clock = plan.request, Stopwatch()
        look: Look | None = None
        if plan.face_embeds is not None:
            look = Look(None, plan.face_embeds, plan.face_crop)
        reference: Picture | Identity | None = None
        if request.strength is not None or (look is None and self.adapter is not None):
            current().ask("load_image")
            with clock.measure("load_image"):
                reference = open_reference(request.image)
            if request.strength is not None and isinstance(reference, Identity):
                allowed = "None: an identity file holds no picture to begin with"
                raise InvalidRequest("strength", request.strength, allowed)
        if reference is not None and look is None and self.adapter is not None:
            look = self.faces.look(reference, request.face_index, clock)
        conditions = make_conditions(plan, look, self.text, self.faces, self.unet, clock)
        return Prepared(plan, look, conditions, clock, self._encode(reference, plan, clock))

    def _encode(self, photo: Picture | Identity | None, plan: Plan, clock: Stopwatch) -> Floats | None:
        """The latents of the photo, cropped to what is drawn, where the run begins with them."""
        if not isinstance(photo, np.ndarray) or plan.request.strength is None:
            return None
        with clock.measure("encode"):
            with self._lazy_lock:
                if self._encoder is None:
                    session = self._opening.guarded("vae_encoder")
                    self._encoder = VaeEncoder(session, self.pack.manifest.latents)
            return self._encoder.encode(to_nchw(fit_to(photo, *plan.drawn_size, "cover"), 127.5, 127.5))

    def _run(self, prepared: Sequence[Prepared], previews: bool, watch: Watch) -> Iterator[tuple[Step, ...]]:
        """Draw all candidates in rounds, keep the best, then cut out for each."""
        with self.allowance.held([one.plan for one in prepared]):
            yield from self._rounds(prepared, previews, watch)

    def _rounds(
        self, prepared: Sequence[Prepared], previews: bool, watch: Watch
    ) -> Iterator[tuple[Step, ...]]:
        plans = [one.plan for one in prepared]
        decoder = self._tiled_decoder() if self.allowance.tiled(plans) else self.vae
        drawings = [
            _Drawing(one, Kept(one.plan.request.best_of), watch, decoder, list(one.reruns))
            for one in prepared
        ]
        shared, count = Stopwatch(), rounds(prepared[0].plan.request)
        for round_ in range(count):
            parts = [candidates(one.plan.request, round_) for one in prepared]
            for step, rows in self._draw(prepared, parts, shared):
                index, total = round_ * step.total + step.index, count * step.total
                seconds_left = shared.seconds["denoise"] / (index + 1) * (total - index - 1)
                anew = watch.take()  # in a step that all of them share
                for drawing in drawings:
                    drawing.reruns.extend(anew)
                yield tuple(
                    self._step(
                        drawing, replace(part, index=index, total=total), at, seconds_left, shared, previews
                    )
                    for drawing, part, at in zip(drawings, map(step.of, rows), parts, strict=True)
                )

    def _draw(
        self, prepared: Sequence[Prepared], parts: Sequence[slice], shared: Stopwatch
    ) -> Iterator[tuple[Denoised, list[slice]]]:
        """Denoise some candidates of every request as one batch; each step with the rows of each request."""
        plans = [one.plan for one in prepared]
        seeds = [plan.seeds[part] for plan, part in zip(plans, parts, strict=True)]
        batches = [len(some) for some in seeds]
        rows = list(_rows(batches))
        noise = Noise([seed for some in seeds for seed in some], plans[0].latent_shape)
        start = noise()  # drawn even when not used, so that later draws stay the same
        for plan, row in zip(plans, rows, strict=True):
            start[row] = start[row] if plan.latents is None else plan.latents
        conditions = join_conditions([one.conditions for one in prepared], batches)
        guidance = join_guidance([plan.guidance for plan in plans], batches)
        photos = [
            np.repeat(one.clean, count, 0)
            for one, count in zip(prepared, batches, strict=True)
            if one.clean is not None
        ]
        clean = np.concatenate(photos) if photos else None
        given = plans[0].scheduler, start, conditions, guidance, noise, clean, plans[0].start
        if isinstance(self.unet, StepUNet):
            steps = denoise_on_device(self.unet, *given)
        else:
            steps = denoise(self._saving(self.unet, plans[0].request.step_cache), *given)
        for step in shared.each("denoise", steps):
            yield step, rows

    def _saving(self, unet: UNet, step_cache: int) -> UNet | StepCache:
        """What a run denoises with; the shallow graph is opened when it is first asked for."""
        if step_cache == 1:
            return unet
        with self._lazy_lock:
            if self._shallow is None:
                self._shallow = self._opening.guarded("unet_shallow")
        return StepCache(unet, self._shallow, step_cache)

    def _step(
        self,
        drawing: _Drawing,
        step: Denoised,
        part: slice,
        seconds_left: float,
        shared: Stopwatch,
        previews: bool,
    ) -> Step:
        """What one request gets to see of a step: a preview where it is due, at last its pictures."""
        prepared, kept = drawing.prepared, drawing.kept
        request, clock = prepared.plan.request, prepared.clock
        done, preview, result = step.index + 1, None, None
        if done % (step.total // rounds(request)) == 0:
            self._keep(drawing, self._decode(step.latents, drawing), part)
        if done == step.total:
            clock.seconds["denoise"] += shared.seconds["denoise"]
            images = self._cut(tuple(kept.images), request, clock)
            drawing.reruns.extend(drawing.watch.take())
            result = self._result(drawing, images)
        elif previews and request.preview_every and done % request.preview_every == 0:
            preview = self._decode(self._foresee(step), drawing)
        drawing.reruns.extend(drawing.watch.take())
        return Step(step.index, step.total, step.timestep, seconds_left, preview, result)

    def _keep(self, drawing: _Drawing, images: tuple[Picture, ...], part: slice) -> None:
        """Compare finished candidates with the reference, if that was asked for, and keep the best."""
        plan, look, clock = drawing.prepared.plan, drawing.prepared.look, drawing.prepared.clock
        found: list[float | None] = [None] * len(images)
        if look is not None and (plan.request.similarity or plan.request.best_of > 1):
            found = [self.faces.similarity(image, look.embeds, clock) for image in images]
        drawing.kept.take(part.start, images, plan.seeds[part], found)

    def _foresee(self, step: Denoised) -> Floats:
        """The clean latents that the net predicts at this step."""
        alpha_bar = self._schedule.alphas_cumprod[round(step.timestep)]
        alpha, sigma = np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar)
        return predict_x0(step.prediction, step.before, alpha, sigma, self._schedule.prediction_type)

    def _decode(self, latents: Floats, drawing: _Drawing) -> tuple[Picture, ...]:
        request = drawing.prepared.plan.request
        with drawing.prepared.clock.measure("decode"):
            wanted, sizes = (request.height, request.width), self.pack.manifest.sizes
            # One by one: of a picture's floats, twenty times its bytes, there are never those of a batch.
            decoded = (to_uint8(drawing.decoder.decode(one[None]))[0] for one in latents)
            return tuple(bring_to(image, wanted, sizes) for image in decoded)

    def _cut(
        self, images: tuple[Picture, ...], request: AvatarRequest, clock: Stopwatch
    ) -> tuple[Picture, ...]:
        """Put the person on bg_color, or on nothing; a colour wins where both are asked for."""
        color = request.bg_color
        if color is None and not request.remove_background:
            return images
        with clock.measure("matting"):
            return self._cutter("pack").cut(images, color)

    def _tiled_decoder(self) -> TiledVaeDecoder:
        with self._lazy_lock:
            if self._tiles is None:
                low, tile = (self._opening.guarded(f"vae_decoder_{part}") for part in ("low", "tile"))
                self._tiles = TiledVaeDecoder(low, tile, self.pack.manifest.latents)
            return self._tiles

    def _cutter(self, net: str) -> CutOut:
        """The cut-out stage with the pack's net or the one for photos, opened when it is first asked for."""
        with self._lazy_lock:
            if net not in self._cutters:
                photos, opening = net == "photo", self._opening
                self._cutters[net] = (
                    CutOut.for_photos(opening.provider, opening.threads) if photos else CutOut.of(opening)
                )
            return self._cutters[net]

    def _result(self, drawing: _Drawing, images: tuple[Picture, ...]) -> AvatarResult:
        prepared, kept = drawing.prepared, drawing.kept
        plan, look, manifest = prepared.plan, prepared.look, self.pack.manifest
        request, face = plan.request, None if look is None else look.face
        compared = request.similarity or request.best_of > 1
        return AvatarResult(
            images=images,
            seeds=tuple(kept.seeds),
            timings=prepared.clock.timings(),
            face=face,
            warnings=(
                *self._opening.warnings,
                *remarks(plan, face),
                *told(drawing.reruns),
                *([] if drawing.decoder is self.vae else [TILED]),
                *kept.warnings(),
            ),
            request=request,
            pack=manifest.name,
            pack_version=manifest.version,
            width=request.width,
            height=request.height,
            similarities=tuple(kept.similarities) if compared else None,
        )


def _open(opening: Opening, role: str) -> Session:
    """The loop on a device watches its own steps, since they are no runs of `run`."""
    return opening.open(role) if role == "unet_step" else opening.guarded(role)


def _net(opening: Opening, session: Session) -> UNet | StepUNet:
    if not opening.device_loop:
        return UNet(session)
    assert isinstance(session, DeviceSession)  # of all providers openvino alone has none, and was refused
    exactly = partial(opening.pack.open_fp32, "unet", opening.provider, opening.threads)
    return StepUNet(session, exactly)


@dataclass(frozen=True, eq=False)
class _Drawing:
    """A request while it is drawn."""

    prepared: Prepared
    kept: Kept
    watch: Watch
    decoder: VaeDecoder | TiledVaeDecoder
    reruns: list[Rerun] = field(default_factory=list)


def _rows(batches: Sequence[int]) -> Iterator[slice]:
    """Where each request's pictures lie in the batch of all."""
    start = 0
    for batch in batches:
        yield slice(start, start + batch)
        start += batch
