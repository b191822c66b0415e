"""How good pictures are in themselves, and what steps, guidance, providers and precision change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from faceavatar import AvatarEngine, AvatarRequest
from faceavatar_export.toon import draw, styles
from faceavatar_export.toon.scores.judge import Judge, Picture, frechet_distance
from faceavatar_export.toon.scores.obedience import SEED, obedience, portrait, wishes

STEPS = (1, 2, 4, 8, 20)
GUIDANCE = (1.0, 2.0, 3.5, 5.0)


@dataclass(frozen=True, slots=True)
class Quality:
    """frechet: from fresh drawings; floor: that of as many drawings; broken: shares of both."""

    frechet: float
    floor: float
    broken: float
    broken_drawings: float


def fresh_drawings(count: int, seed: int) -> list[Picture]:
    """Drawings that no training set has, 256 px."""
    people = [draw.sample(seed, index) for index in range(count)]
    return [
        styles.composite(styles.draw_rgba(who, scene, 256), styles.background(scene, 256))
        for who, scene in people
    ]


def quality(judge: Judge, pictures: Sequence[Picture]) -> Quality:
    """Against twice as many fresh drawings."""
    drawings = fresh_drawings(3 * len(pictures), SEED + 5)
    seen, features = judge.look(pictures)
    known, drawn = judge.look(drawings)
    split = len(pictures)
    return Quality(
        frechet_distance(features, drawn[split:]),
        frechet_distance(drawn[:split], drawn[split:]),
        float(np.mean([look["figure"] == "broken" for look in seen])),
        float(np.mean([look["figure"] == "broken" for look in known])),
    )


def curves(engine: AvatarEngine, judge: Judge, count: int) -> dict[str, float]:
    """Obedience over steps at the pack's own guidance, and over guidance at the pack's own steps."""
    runs = {f"{n} steps": obedience(engine, judge, count, steps=n).share for n in STEPS}
    runs |= {f"guidance {g:g}": obedience(engine, judge, count, guidance=g).share for g in GUIDANCE}
    return runs


def psnr(one: Picture, other: Picture) -> float:
    """Peak signal-to-noise ratio in dB."""
    error = float(np.mean((one.astype(np.float64) - other) ** 2))
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)


def against(reference: AvatarEngine, other: AvatarEngine, judge: Judge, count: int) -> tuple[float, float]:
    """Another provider or precision on the same requests: (lowest PSNR to the reference, its obedience)."""
    lowest = float("inf")
    for index, wish in enumerate(wishes(reference, count)):
        request = AvatarRequest(image=portrait(wish.person), prompt=wish.prompt, seed=index)
        pair = [engine.generate(request).images[0] for engine in (reference, other)]
        lowest = min(lowest, psnr(*pair))
    return lowest, obedience(other, judge, count).share
