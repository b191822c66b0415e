"""Half precision on a provider against diffusers in float32 on the same weights, and our own loops against
each other.

A provider that fails here is not worth timing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from faceavatar.errors import FaceAvatarError, ProviderUnavailable
from gpu.loops import device_loop, first_latents, open_graph, plain_loop, torch_loop, torch_unet
from gpu.models import Model, call, relative_error

STEPS = 10
LEAST_PSNR = 35.0  # dB of the last latents
MOST_UNET_ERROR = 2e-2  # of one forward, relative root mean square: half precision's own
MOST_LOOP_ERROR = 1e-3  # between our loops on one provider: the same kernels, the update rounded elsewhere


def parity(
    model: Model, providers: Mapping[str, str], engines: Mapping[str, Path], device: str
) -> dict[str, Any]:
    """For each provider its errors and what misses its bound, or why it was refused."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    unet = torch_unet(model, torch.float32, device)
    inputs = _inputs(model)
    with torch.no_grad():
        given = {name: torch.from_numpy(array).to(device) for name, array in inputs.items()}
        forward = call(unet, given).cpu().numpy()
    wanted = torch_loop(unet, model, torch.float32, device)(first_latents(model, 1), STEPS)
    del unet
    rows: dict[str, Any] = {}
    for name, provider in providers.items():
        try:
            rows[name] = _compare(model, provider, engines.get(name), inputs, forward, wanted)
        except ProviderUnavailable as error:
            rows[name] = {"refused": str(error)}
        except FaceAvatarError as error:
            rows[name] = {"failed": f"{type(error).__name__}: {error}"}
    return rows


def _compare(
    model: Model,
    provider: str,
    engine: Path | None,
    inputs: dict[str, NDArray[Any]],
    forward: NDArray[Any],
    wanted: NDArray[Any],
) -> dict[str, Any]:
    first, other = first_latents(model, 1), first_latents(model, 2, seed=9)
    session = open_graph(model, model.graph, provider)
    warnings = list(session.warnings)
    error = relative_error(session.run(dict(inputs))["noise_pred"], forward)
    plain = plain_loop(session, model)(first, STEPS)
    del session
    session = open_graph(model, model.step_graph, provider, engine=engine)
    warnings += session.warnings
    loop = device_loop(session, model)
    ours, ours_other = loop(first, STEPS), loop(other, STEPS)
    del session, loop
    row = {
        "provider": provider,
        "unet_error": error,
        "psnr": _psnr(ours, wanted),
        "loops_error": relative_error(ours, plain),
        "batch_error": relative_error(loop_alone(model, provider, engine, other), ours_other[1:]),
    }
    session = open_graph(model, model.step_graph, provider, record=True, engine=engine)
    warnings += session.warnings
    row["recorded_error"] = _recorded(device_loop(session, model), (first, ours), (other, ours_other))
    return {**row, "warnings": warnings, "misses": _misses(row)}


def loop_alone(
    model: Model, provider: str, engine: Path | None, pair: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The second of two pictures, drawn by itself."""
    session = open_graph(model, model.step_graph, provider, engine=engine)
    return device_loop(session, model)(pair[1:], STEPS)


def _recorded(loop: Callable[..., Any], *cases: tuple[Any, Any]) -> float:
    """The worst error of recorded launches, shapes changing between runs and coming back."""
    return max(relative_error(loop(first, STEPS), ours) for first, ours in (*cases, *cases))


def _inputs(model: Model) -> dict[str, NDArray[Any]]:
    noise = first_latents(model, 2, seed=5)
    return {"sample": noise, "timestep": np.full(2, 601.0, np.float32), **model.conditions()}


def _psnr(ours: NDArray[Any], wanted: NDArray[Any]) -> float:
    """dB, the peak being the range of what was wanted."""
    reach = float(wanted.max() - wanted.min())
    difference = np.square(ours.astype(np.float64) - wanted).mean()
    return float(20 * np.log10(reach / max(np.sqrt(difference), 1e-12)))


def _misses(row: Mapping[str, Any]) -> list[str]:
    bounds = {
        "unet_error": row["unet_error"] <= MOST_UNET_ERROR,
        "psnr": row["psnr"] >= LEAST_PSNR,
        "loops_error": row["loops_error"] <= MOST_LOOP_ERROR,
        "batch_error": row["batch_error"] <= MOST_UNET_ERROR,
        "recorded_error": row["recorded_error"] <= MOST_LOOP_ERROR,
    }
    return [name for name, held in bounds.items() if not held]
