"""The whole trip from a photo to avatars: AvatarEngine holds a pack's opened graphs and runs requests.

Knows the order of the stages and what passes between them; each stage is a room of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from faceavatar.adapter import FaceAdapter
from faceavatar.allowance import Allowance
from faceavatar.budget import read_budget
from faceavatar.conditions import make_conditions
from faceavatar.denoise import Floats
from faceavatar.drawing import Drawer, Prepared
from faceavatar.errors import InvalidRequest, MissingGraph
from faceavatar.forecast import Forecast
from faceavatar.identity import Identity, open_reference
from faceavatar.image import ImageSource, fit_to, load_image, to_nchw
from faceavatar.look import Embedder, FaceReader, Look
from faceavatar.nets import TILE_ROLES, Nets
from faceavatar.opening import Opening
from faceavatar.pack import Pack, find_pack
from faceavatar.plan import Plan, make_plan, with_face, with_landmarks
from faceavatar.request import AvatarRequest, check_color
from faceavatar.result import AvatarResult, Step
from faceavatar.schedulers import NoiseSchedule
from faceavatar.stopwatch import Stopwatch
from faceavatar.text import TextEncoders
from faceavatar.unet import StepUNet, UNet
from faceavatar.vae import VaeDecoder
from faceavatar.watch import Watch, current

Picture = NDArray[np.uint8]
Points = NDArray[np.floating]
Check = Callable[[], object]


class AvatarEngine:
    """A pack, opened and ready; make one with AvatarEngine.load and use it from as many threads as you like.

    pack: the Pack. provider: the execution provider in use, such as "cpu".
    """

    def __init__(self, opening: Opening, memory_budget: int | None = None, tiling: bool = False) -> None:
        pack, manifest = opening.pack, opening.pack.manifest
        self.pack, self.provider, self._opening = pack, opening.provider, opening
        self._schedule = NoiseSchedule.from_manifest(manifest.scheduler)
        if tiling and not manifest.graphs.keys() >= TILE_ROLES:
            raise MissingGraph(
                f"{manifest.name}: tiling needs the graphs {' and '.join(sorted(TILE_ROLES))}; add them with "
                "python -m faceavatar_export.tiles PACK, or load without tiling"
            )
        self.nets = Nets(opening)
        sees = self.adapter is not None
        self.allowance = Allowance(manifest, opening.provider, sees, memory_budget, tiling)
        self._drawer = Drawer(
            self.nets, manifest, self._schedule, self.allowance, lambda: self._opening.warnings
        )

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
        self.nets.wait()
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
        return watch.over(self._drawer.run(prepared, previews, watch))

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
        (cut,) = self.nets.cutter(net).cut([load_image(image)], color)
        return cut

    @property
    def faces(self) -> FaceReader:
        """Who looks at photos."""
        return self.nets.faces

    @property
    def text(self) -> TextEncoders:
        """Who reads words."""
        return self.nets.text

    @property
    def unet(self) -> UNet | StepUNet:
        """The net that denoises."""
        return self.nets.unet

    @property
    def vae(self) -> VaeDecoder:
        """The decoder."""
        return self.nets.vae

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
            return self.nets.encoder().encode(to_nchw(fit_to(photo, *plan.drawn_size, "cover"), 127.5, 127.5))
