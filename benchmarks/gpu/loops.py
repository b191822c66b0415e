"""The same guidance loop run by every contender: ours on a provider, diffusers' UNet eager and compiled.

All of them start from the same latents, conditions, sampler (DDIM) and guidance scale, and give the last
latents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from faceavatar.backends import (
    DeviceSession,
    Session,
    open_engine,
    open_session,
    provider_problem,
)
from faceavatar.denoise import Conditions, Guidance, Noise, denoise
from faceavatar.device_loop import denoise_on_device
from faceavatar.errors import ProviderUnavailable
from faceavatar.schedulers import NoiseSchedule, Scheduler, make_scheduler
from faceavatar.unet import StepUNet, UNet
from gpu.models import Model, call
from gpu.report import COMPILED

GUIDANCE = 7.5
SAMPLER = "ddim"
Latents = NDArray[np.float32]
Loop = Callable[[Latents, int], Latents]  # first latents (B, 4, h, w) of unit noise, steps -> last latents
COMPILE_MODES: Mapping[str, str | None] = {
    COMPILED: None,
    f"{COMPILED}, reduce-overhead": "reduce-overhead",  # with CUDA graphs
}


def first_latents(model: Model, pictures: int, seed: int = 1) -> Latents:
    """Unit noise (B, 4, h, w)."""
    return Noise(range(seed, seed + pictures), (4, model.cells, model.cells))()


def scheduler(steps: int) -> Scheduler:
    return make_scheduler(SAMPLER, NoiseSchedule(), steps)


def conditions(model: Model) -> Conditions:
    """The engine's words for the model's random text."""
    made = model.conditions()
    text = made.pop("encoder_hidden_states")
    more = {name: [halves[:1], halves[1:]] for name, halves in made.items()}
    return Conditions(text[1:], None, text[:1], None, 1.0, more=more)


def open_graph(
    model: Model, graph: Path, provider: str, record: bool = False, engine: Path | None = None
) -> Session:
    """A session on the graph that this provider runs best; engine: compiled ahead of time.

    Raises ProviderUnavailable with the provider's reason.
    """
    problem = provider_problem(provider)
    if problem is not None:
        raise ProviderUnavailable(problem)
    if engine is not None:
        return open_engine([engine], graph, provider, precision="fp16", record=record)
    file = model.fused(graph) if provider in {"cuda", "cpu"} else graph
    return open_session(file, provider, stored="fp16", record=record)


def plain_loop(session: Session, model: Model) -> Loop:
    """Latents to the host and back at every step."""
    given = conditions(model)

    def run(latents: Latents, steps: int) -> Latents:
        noise = Noise(range(len(latents)), latents.shape[1:])
        *_, last = denoise(UNet(session), scheduler(steps), latents, given, Guidance(GUIDANCE), noise)
        return last.latents

    return run


def device_loop(session: Session, model: Model) -> Loop:
    """Latents on the device throughout."""
    given = conditions(model)
    assert isinstance(session, DeviceSession)
    unet = StepUNet(session)

    def run(latents: Latents, steps: int) -> Latents:
        noise = Noise(range(len(latents)), latents.shape[1:])
        for step in denoise_on_device(*(unet, scheduler(steps), latents, given, Guidance(GUIDANCE), noise)):
            if step.index == step.total - 1:
                return step.latents
        raise AssertionError("no step was run")

    return run


def torch_unet(model: Model, dtype: torch.dtype, device: str, mode: str | None = "eager") -> Any:
    """diffusers' UNet, laid out as it runs fastest; mode: "eager", or one of torch.compile's.

    Narrow ones are traced whole, but their kernels not generated: that takes minutes on a processor.
    """
    unet = model.load(dtype, device).to(memory_format=torch.channels_last)
    if mode == "eager":
        return unet
    if model.narrow:
        return torch.compile(unet, fullgraph=True, backend="aot_eager")
    return torch.compile(unet, fullgraph=True, mode=mode)


def torch_loop(unet: Any, model: Model, dtype: torch.dtype, device: str) -> Loop:
    """diffusers' loop without its pipeline: UNet, guidance and its own DDIM step, all on the device."""
    from diffusers import DDIMScheduler

    given = {name: torch.from_numpy(array).to(device, dtype) for name, array in model.conditions().items()}
    theirs = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=False,
    )

    def run(latents: Latents, steps: int) -> Latents:
        theirs.set_timesteps(steps, device=device)
        pictures, now = len(latents), torch.from_numpy(latents).to(device, dtype)
        inputs = {name: halves.repeat_interleave(pictures, dim=0) for name, halves in given.items()}
        with torch.no_grad():
            for timestep in theirs.timesteps:
                inputs["sample"] = torch.cat([now, now]).contiguous(memory_format=torch.channels_last)
                inputs["timestep"] = timestep
                without, wanted = call(unet, inputs).chunk(2)
                guided = without + GUIDANCE * (wanted - without)
                now = theirs.step(guided, timestep, now).prev_sample
        return now.float().cpu().numpy()

    return run


def our_contenders(
    model: Model, providers: Mapping[str, str], engines: Mapping[str, Path]
) -> Iterator[tuple[str, Callable[[], Loop]]]:
    """Names and makers of our own loops; providers: the name to report -> the provider to run.

    engines: step graphs compiled ahead of time, by the name to report.
    """
    for name, provider in providers.items():
        engine = engines.get(name)
        on_device = partial(_on_device, model, provider, engine)
        if engine is None:
            yield f"{name}, latents on the host", partial(_on_host, model, provider)
        yield name, partial(on_device, False)
        yield f"{name}, CUDA graphs", partial(on_device, True)


def _on_host(model: Model, provider: str) -> Loop:
    return plain_loop(open_graph(model, model.graph, provider), model)


def _on_device(model: Model, provider: str, engine: Path | None, record: bool) -> Loop:
    return device_loop(open_graph(model, model.step_graph, provider, record, engine), model)
