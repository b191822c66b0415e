"""Prepared requests become pictures: the rounds of a batch, its steps, and what each request sees of them.

Knows the order of steps, decoding, comparing and cutting out; opens nothing and reads no photo.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from faceavatar.allowance import Allowance
from faceavatar.conditions import join_conditions, join_guidance
from faceavatar.denoise import Conditions, Denoised, Floats, Noise, denoise
from faceavatar.device_loop import denoise_on_device
from faceavatar.image import to_uint8
from faceavatar.likeness import Kept, candidates, rounds
from faceavatar.look import Look
from faceavatar.manifest import Manifest
from faceavatar.nets import Nets
from faceavatar.plan import Plan
from faceavatar.remarks import remarks
from faceavatar.request import AvatarRequest
from faceavatar.result import AvatarResult, Step
from faceavatar.schedulers import NoiseSchedule
from faceavatar.schedulers.schedule import predict_x0
from faceavatar.sizes import bring_to
from faceavatar.stopwatch import Stopwatch
from faceavatar.unet import StepUNet
from faceavatar.vae import TiledVaeDecoder, VaeDecoder
from faceavatar.watch import Rerun, Watch, told

Picture = NDArray[np.uint8]
TILED = "decoded in tiles, since memory_budget does not allow it whole: slower, the same within rounding"


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


@dataclass(frozen=True, eq=False)
class _Drawing:
    """A request while it is drawn."""

    prepared: Prepared
    kept: Kept
    watch: Watch
    decoder: VaeDecoder | TiledVaeDecoder
    reruns: list[Rerun] = field(default_factory=list)


class Drawer:
    """Draws with an engine's nets, within its allowance. warnings: what every result of this engine says."""

    def __init__(
        self,
        nets: Nets,
        manifest: Manifest,
        schedule: NoiseSchedule,
        allowance: Allowance,
        warnings: Callable[[], Sequence[str]],
    ) -> None:
        self._nets, self._manifest, self._schedule = nets, manifest, schedule
        self._allowance, self._warnings = allowance, warnings

    def run(self, prepared: Sequence[Prepared], previews: bool, watch: Watch) -> Iterator[tuple[Step, ...]]:
        """Draw all candidates in rounds, keep the best, then cut out for each; a Step of each at a time."""
        with self._allowance.held([one.plan for one in prepared]):
            yield from self._rounds(prepared, previews, watch)

    def _rounds(
        self, prepared: Sequence[Prepared], previews: bool, watch: Watch
    ) -> Iterator[tuple[Step, ...]]:
        plans = [one.plan for one in prepared]
        decoder = self._nets.tiles() if self._allowance.tiled(plans) else self._nets.vae
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
        if isinstance(self._nets.unet, StepUNet):
            steps = denoise_on_device(self._nets.unet, *given)
        else:
            steps = denoise(self._nets.saving(self._nets.unet, plans[0].request.step_cache), *given)
        for step in shared.each("denoise", steps):
            yield step, rows

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
            found = [self._nets.faces.similarity(image, look.embeds, clock) for image in images]
        drawing.kept.take(part.start, images, plan.seeds[part], found)

    def _foresee(self, step: Denoised) -> Floats:
        """The clean latents that the net predicts at this step."""
        alpha_bar = self._schedule.alphas_cumprod[round(step.timestep)]
        alpha, sigma = np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar)
        return predict_x0(step.prediction, step.before, alpha, sigma, self._schedule.prediction_type)

    def _decode(self, latents: Floats, drawing: _Drawing) -> tuple[Picture, ...]:
        request = drawing.prepared.plan.request
        with drawing.prepared.clock.measure("decode"):
            wanted, sizes = (request.height, request.width), self._manifest.sizes
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
            return self._nets.cutter("pack").cut(images, color)

    def _result(self, drawing: _Drawing, images: tuple[Picture, ...]) -> AvatarResult:
        prepared, kept = drawing.prepared, drawing.kept
        plan, look, manifest = prepared.plan, prepared.look, self._manifest
        request, face = plan.request, None if look is None else look.face
        compared = request.similarity or request.best_of > 1
        return AvatarResult(
            images=images,
            seeds=tuple(kept.seeds),
            timings=prepared.clock.timings(),
            face=face,
            warnings=(
                *self._warnings(),
                *remarks(plan, face),
                *told(drawing.reruns),
                *([] if drawing.decoder is self._nets.vae else [TILED]),
                *kept.warnings(),
            ),
            request=request,
            pack=manifest.name,
            pack_version=manifest.version,
            width=request.width,
            height=request.height,
            similarities=tuple(kept.similarities) if compared else None,
        )


def _rows(batches: Sequence[int]) -> Iterator[slice]:
    """Where each request's pictures lie in the batch of all."""
    start = 0
    for batch in batches:
        yield slice(start, start + batch)
        start += batch
