"""How far a graph strays from full precision: every graph of a pack on sample inputs, held to a tolerance.

The reference is the plain graph in float32. An error that is too small is refused as well: a run that was
meant to be bf16 and agrees to the sixth digit was float32 in silence. Knows no pictures.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faceavatar.backends import Precision, Session
from faceavatar.buckets import PictureShape, bucket_of
from faceavatar.manifest import Manifest
from faceavatar.opening import Opening, roles_for
from faceavatar.pack import Pack, stored_precision
from faceavatar.text import open_tokenizer, windows_of

# Relative errors of a whole graph, as the export allows them against torch.
TOLERANCES: Mapping[Precision, float] = {"fp32": 1e-4, "bf16": 5e-2, "fp16": 2e-2}
# Half the rounding of one multiplication: nothing that really computes so comes closer.
LEAST_ERRORS: Mapping[Precision, float] = {"fp32": 0.0, "bf16": 2e-4, "fp16": 2e-5}
# Packs with native sizes take theirs. Two pictures: an engine fixed to one is run at its own shape besides.
SAMPLE = PictureShape(256, 256, 2, 2)
PROMPT = "storybook illustration of a laughing woman, teal background"
SEED = 20
Feeds = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class GraphError:
    """The relative error of a role's graph to float32: root of the mean square, of the worst output."""

    role: str
    precision: Precision
    error: float
    allowed: float
    least: float = 0.0

    @property
    def problem(self) -> str | None:
        """What is wrong with it, in words, or None."""
        if not self.error <= self.allowed:  # a NaN is no error that is allowed
            strays = f"{self.role} is {self.error:.2g} away from fp32 in {self.precision}"
            return f"{strays}, allowed {self.allowed:g}"
        if self.error < self.least:
            return (
                f"{self.role} is {self.error:.2g} away from fp32: too near to have been computed in "
                f"{self.precision} (at least {self.least:g}); the provider took fp32 in silence"
            )
        return None


def graph_errors(
    opening: Opening,
    roles: tuple[str, ...] | None = None,
    opened: Callable[[str], Session] | None = None,
    shapes: Sequence[PictureShape] = (),
) -> Iterator[GraphError]:
    """The error of every graph of a pack as it is opened, to its float32, one graph in memory at a time.

    opened: opens a role otherwise than `opening.open`. shapes: at which it is run besides SAMPLE; the largest
    error counts. Raises what opening a graph and running it raise.
    """
    pack, allowed = opening.pack, tolerances(opening.pack)
    for role in roles or roles_for(pack, opening.provider):
        feeds = [sample_feeds(pack, role, shape) for shape in (SAMPLE, *shapes)]
        expected = _runs(_reference(pack, role, opening.threads), feeds)
        session = (opened or opening.open)(role)
        error = max(map(relative_error, _runs(session, feeds), expected))
        lowered = session.precision != "fp32" and stored_precision(pack.graph(role)) != session.precision
        least = LEAST_ERRORS[session.precision] if lowered else 0.0
        yield GraphError(role, session.precision, error, allowed[session.precision], least)


def tolerances(pack: Pack) -> Mapping[Precision, float]:
    """What each precision may stray: the pack's own parity.json where it says, else TOLERANCES."""
    try:
        report = json.loads((pack.folder / "parity.json").read_text(encoding="utf-8"))
        said = report["tolerances"]
        return {name: float(said.get(name, usual)) for name, usual in TOLERANCES.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return TOLERANCES


def relative_error(got: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]]) -> float:
    """sqrt(mean (got - expected)^2 / mean expected^2) of the output that strays most; NaN counts as inf."""
    worst = 0.0
    for name, want in expected.items():
        reference = want.astype(np.float64)
        scale = max(float(np.mean(reference**2)), 1e-30)
        error = float(np.sqrt(np.mean((got[name].astype(np.float64) - reference) ** 2) / scale))
        worst = max(worst, error if np.isfinite(error) else float("inf"))
    return worst


def sample_feeds(pack: Pack, role: str, shape: PictureShape) -> Feeds:
    """Inputs of a role as they come in a request for such pictures: the same at every call."""
    manifest, random = pack.manifest, np.random.default_rng(SEED)
    shapes = bucket_of(manifest, role, shape).usual
    feeds: Feeds = {}
    for name, tensor in manifest.graphs[role].inputs.items():
        if name == "input_ids":
            feeds[name] = _tokens(pack, role)
        else:
            feeds[name] = _sample(manifest, name, shapes[name], random).astype(tensor.dtype)
    return feeds


def _runs(session: Session, feeds: Sequence[Feeds]) -> list[Feeds]:
    return [session.run(one) for one in feeds]


def _sample(
    manifest: Manifest, name: str, shape: tuple[int, ...], random: np.random.Generator
) -> NDArray[np.floating[Any]]:
    if name == "timestep":
        return np.full(shape, 500.0)
    if name in {"face_scale", "controlnet_scale", "input_scale", "guidance"}:
        return np.ones(shape)
    if name == "time_ids":
        return np.array([[256.0, 256.0, 0.0, 0.0, 256.0, 256.0]] * shape[0])
    if name == "control_image":
        return random.uniform(0, 1, shape)
    drawn = random.standard_normal(shape)
    if name == "latents":
        return drawn / manifest.latents.scaling_factor
    if name == "face_embeds":
        return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))
    if len(shape) == 4 and name != "sample":
        return np.clip(drawn / 2, -1, 1)
    return drawn


def _tokens(pack: Pack, role: str) -> NDArray[np.int64]:
    text = pack.manifest.text
    pad = text.pad_token_id_2 if role == "text_encoder_2" else text.pad_token_id
    return windows_of(PROMPT, open_tokenizer(pack.file(text.tokenizer)), text, pad)


def _reference(pack: Pack, role: str, threads: int | None) -> Session:
    """The plain graph in float32; OpenVINO widens bfloat16 ones, for which ONNX Runtime has no kernels."""
    if stored_precision(pack.graph(role)) == "bf16":
        return pack.open(role, "openvino", threads, "fp32")
    return pack.open(role, "cpu", threads)
