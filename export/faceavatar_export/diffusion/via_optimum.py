"""The cross-check: optimum-onnx exports the same checkpoint, and its graphs are held beside ours.

optimum-onnx pins an older transformers and diffusers than ours, so it runs in an environment of its own, by
its own command. Knows files, commands and graphs; knows no torch module.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from faceavatar.errors import InvalidRequest, PackInvalid
from faceavatar_export.diffusion.checkpoint import Checkpoint
from faceavatar_export.diffusion.proof import GRAPH_BOUNDS

STANDARD = ("text_encoder", "text_encoder_2", "unet", "vae_decoder")
VARIABLE = "FACEAVATAR_OPTIMUM_PYTHON"
# Our names -> theirs. SDXL's penultimate states are one of several outputs there, found by its number.
_INPUTS = {"latents": "latent_sample"}
_OUTPUTS = {"noise_pred": "out_sample", "image": "sample"}
_SIDES = {"batch": 2, "tokens": 77, "height": 16, "width": 24}  # multiples of 8: theirs bakes that in
_PREFIX = "text_model."
Say = Callable[[str], None]


def find_optimum(python: Path | None) -> Path:
    """The interpreter that has optimum-onnx: the one given, or the environment variable's.

    Raises InvalidRequest where there is none, or where it cannot import optimum.exporters.onnx and diffusers.
    """
    named = str(python) if python is not None else os.environ.get(VARIABLE)
    need = (
        "the Python of an environment of its own with optimum-onnx and diffusers in it (it pins older "
        "packages than this one): python -m venv optimum && optimum/bin/pip install optimum-onnx diffusers"
    )
    if not named:
        raise InvalidRequest("--optimum-python", None, f"{need}; or set {VARIABLE}")
    try:
        ran = _run([named, "-c", "import optimum.exporters.onnx, diffusers"])
    except OSError as error:
        raise InvalidRequest("--optimum-python", named, f"{need}; it cannot be run: {error}") from error
    if ran.returncode != 0:
        last = (ran.stderr.strip().splitlines() or ["no word"])[-1]
        raise InvalidRequest("--optimum-python", named, f"{need}; it says: {last}")
    return Path(named)


def add_cross_check(
    report: Mapping[str, Any], python: Path, checkpoint: Checkpoint, draft: Path, has_face: bool, say: Say
) -> dict[str, Any]:
    """The report of the pack in `draft` with how far its standard graphs are from optimum-onnx's.

    A UNet with a face adapter in it has no counterpart there and is left out. What is further away than a
    graph may be from torch is added to the misses. checkpoint: an unchanged one. Raises PackInvalid.
    """
    graphs = report["graphs"]
    roles = [role for role in STANDARD if role in graphs and not (role == "unet" and has_face)]
    errors = optimum_errors(python, checkpoint, draft, roles, say)
    missed = [
        f"{role} is {error:.2g} away from optimum-onnx's, allowed {bound:g}"
        for role, error in errors.items()
        if not error <= (bound := GRAPH_BOUNDS[graphs[role]["precision"]])
    ]
    return {**report, "optimum": errors, "misses": [*report["misses"], *missed]}


def optimum_errors(
    python: Path, checkpoint: Checkpoint, draft: Path, roles: list[str], say: Say
) -> dict[str, float]:
    """For each of the roles, how far our graph in `draft` is from optimum-onnx's of the same checkpoint.

    Root mean square of the difference over that of theirs, the largest over the outputs; both run on ONNX
    Runtime's CPU provider on the same inputs. checkpoint: an unchanged one. Raises PackInvalid.
    """
    with TemporaryDirectory(dir=draft.parent, prefix=".optimum-") as name:
        folder = Path(name)
        _save_as_older_packages_read_it(checkpoint.pipeline, folder / "checkpoint")
        say("exporting with optimum-onnx, in its own environment")
        ran = _run(
            [
                str(python),
                *("-m", "optimum.exporters.onnx", "--model", str(folder / "checkpoint")),
                *("--task", "text-to-image", "--no-post-process", str(folder / "onnx")),
            ]
        )
        if ran.returncode != 0:
            last = (ran.stderr.strip().splitlines() or ["no word"])[-1]
            raise PackInvalid(f"optimum-onnx cannot export this checkpoint: {last}")
        errors = {}
        for role in roles:
            errors[role] = _difference(draft / f"{role}.onnx", folder / "onnx" / role / "model.onnx")
            say(f"{role}: {errors[role]:.2g} away from optimum-onnx")
        return errors


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs another interpreter, offline and without this one's paths."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment = kept | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def _save_as_older_packages_read_it(pipeline: Any, folder: Path) -> None:
    """Save a pipeline as transformers 4 knows it.

    transformers 5 leaves out vocab.json and merges.txt, and the prefix of a text encoder's keys: version 4
    stops at the first, and takes random weights for the second with no more than a warning.
    """
    pipeline.save_pretrained(folder)
    for path in folder.glob("tokenizer*/tokenizer.json"):
        model = json.loads(path.read_text(encoding="utf-8"))["model"]
        lines = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
        (path.parent / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
        (path.parent / "merges.txt").write_text("\n".join(["#version: 0.2", *lines, ""]), encoding="utf-8")
    for path in folder.glob("text_encoder*/model.safetensors"):
        weights = load_file(path)
        if not any(key.startswith(_PREFIX) for key in weights):
            kept = {
                key if key.startswith("text_projection") else _PREFIX + key: value
                for key, value in weights.items()
            }
            save_file(kept, path, metadata={"format": "pt"})


def _difference(ours: Path, theirs: Path) -> float:
    mine = ort.InferenceSession(str(ours), providers=["CPUExecutionProvider"])
    other = ort.InferenceSession(str(theirs), providers=["CPUExecutionProvider"])
    feeds = {value.name: _example(value.name, value.type, value.shape) for value in mine.get_inputs()}
    names = [value.name for value in mine.get_outputs()]
    wanted = {value.name: value for value in other.get_inputs()}
    given = {_INPUTS.get(name, name): value for name, value in feeds.items()}
    got = mine.run(names, feeds)
    outputs = [_output(name, [value.name for value in other.get_outputs()]) for name in names]
    expected = other.run(outputs, {name: _as(value, wanted[name]) for name, value in given.items()})
    return max(
        float(np.sqrt(np.mean((one - two) ** 2) / np.mean(np.square(two, dtype=np.float64))))
        for one, two in zip(got, expected, strict=True)
    )


def _example(name: str, kind: str, shape: list[int | str]) -> NDArray[Any]:
    """Plausible inputs for a dynamic shape, the same on every call."""
    sides = [side if isinstance(side, int) else _SIDES[side] for side in shape]
    draw = np.random.default_rng(len(name))
    if name == "input_ids":
        ids = draw.integers(0, 49406, sides)
        ids[:, 0], ids[:, 40:] = 49406, 49407
        return np.asarray(ids, np.int64)
    if name == "timestep":
        return np.full(sides, 481, np.int64 if "int64" in kind else np.float32)
    if name == "time_ids":
        return np.array([[128, 192, 0, 0, 128, 192]] * sides[0], np.float32)
    return draw.standard_normal(sides, np.float32)


def _output(name: str, theirs: list[str]) -> str:
    """Their name of one of our outputs: of the layers that SDXL's encoders give, the last but one."""
    layers = [other for other in theirs if other.startswith("hidden_states.")]
    if name == "last_hidden_state" and layers:
        return sorted(layers, key=lambda other: int(other.split(".")[1]))[-2]
    return _OUTPUTS.get(name, name)


def _as(value: NDArray[Any], wanted: Any) -> NDArray[Any]:
    """As their graph takes it: a timestep is one number there, the same for the batch."""
    dtype = {"tensor(int32)": np.int32, "tensor(int64)": np.int64}.get(wanted.type, np.float32)
    return np.asarray(value if wanted.shape else value[0], dtype)
