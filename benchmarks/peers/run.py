"""The same weights, noise, prompts and face in every engine, one measurement at a time, in turns.

    python benchmarks/peers/run.py --venvs VENVS --checkpoint SD15 --adapter ip-adapter-faceid_sd15.bin \\
        --pack PACK --out OUT [--rounds 3] [--measures step,picture,...] [--engines cpu,bf16]

Checkpoint, adapter and pack are one model: `faceavatar export SD15 --face-adapter ... -o PACK`. Each peer
gets an environment of its own under VENVS, from requirements/. In every round each engine has one turn, so
that what the machine does besides meets all of them alike; a turn is a fresh process. Every measurement is a
line of OUT/lines.jsonl at once; a second start goes on behind the last one, and tries again what failed.
Prints medians and ratios, and writes OUT/peers.json. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from lineup import LINEUP, Engine
from summary import append, distances, medians, read_lines, slug, table
from turns import Child, PeerFailed, measure_picture, measure_process, measure_step
from venvs import python_of

from faceavatar.adapter import FaceAdapter
from faceavatar.pack import Pack
from faceavatar_cli.measure.machine import this_machine

Measure = Callable[[Child, int, Path], dict[str, Any]]
MEASURES: dict[str, Measure] = {
    "step": measure_step,
    "process 256": partial(measure_process, size=256),
    "process 512": measure_process,
    "process 512 cold": partial(measure_process, cold=True),
    "picture": measure_picture,
}
NUMBERS, SIZES = 8, (256, 512)


def write_inputs(pack_folder: Path, out: Path) -> Path:
    """Noise for every picture, and a face: its embedding, and the tokens that the pack's adapter makes of it.

    Peers without an adapter get the tokens of both halves, of no face and of this one, as constants.
    """
    path = out / "inputs.npz"
    if path.exists():
        return path
    pack = Pack.load(pack_folder, check_hashes=False)
    assert pack.manifest.face is not None, "the pack needs a face adapter"
    random = np.random.default_rng(15)
    embeds = random.standard_normal((1, pack.manifest.face.adapter.embedding_size), np.float32)
    embeds /= np.linalg.norm(embeds)
    adapter = FaceAdapter(pack.open("face_projection", "cpu"), pack.manifest.face.adapter)
    given: dict[str, Any] = {
        "face_embeds": embeds,
        "face_tokens": np.concatenate([adapter.no_face(), adapter.tokens(embeds)]),
    }
    for size in SIZES:
        for number in range(NUMBERS):
            shape = (1, pack.manifest.latents.channels, size // 8, size // 8)
            given[f"latents {size} {number}"] = random.standard_normal(shape, np.float32)
    np.savez(path, **given)
    return path


def ready(engine: Engine, venvs: Path, spec: dict[str, Any]) -> Child:
    """The engine's environment and folder, made where they are not there. Raises PeerFailed."""
    try:
        child = Child(python_of(engine.venv, venvs), engine, spec)
    except RuntimeError as error:
        raise PeerFailed(str(error)) from error
    if engine.venv in {"optimum", "genai"}:
        child.run([{"do": "prepare"}])
    return child


def turns(args: argparse.Namespace, engines: Sequence[Engine], measures: Sequence[str]) -> None:
    """Everything that is not measured yet, round by round."""
    inputs, path, pictures = (
        write_inputs(args.pack, args.out),
        args.out / "lines.jsonl",
        args.out / "pictures",
    )
    pictures.mkdir(exist_ok=True)
    done = {
        (line["engine"], line["measure"], line["round"]) for line in read_lines(path) if "numbers" in line
    }
    for round_ in range(args.rounds):
        for measure in measures:
            for engine in engines:
                alone = measure.startswith("process") and not engine.process
                if alone or (engine.name, measure, round_) in done:
                    continue
                spec = _spec(args, inputs, engine)
                line: dict[str, Any] = {"engine": engine.name, "measure": measure, "round": round_}
                line |= {"when": time.time(), "load_before": os.getloadavg()[0]}
                picture = pictures / f"{slug(engine.name)}-{slug(measure)}-{round_ % NUMBERS}"
                try:
                    child = ready(engine, args.venvs, spec)
                    line["numbers"] = MEASURES[measure](child, round_ % (NUMBERS - 1), picture)
                except PeerFailed as error:
                    line["error"] = str(error)
                append(path, line)
                said = line.get("error") or line["numbers"]
                print(f"{round_} {measure} {engine.name}: {said}", file=sys.stderr, flush=True)


def chosen(words: str) -> list[Engine]:
    """The engines of a comma-separated list: of whole names, or of all names that hold a part."""
    parts = [part.strip() for part in words.split(",") if part.strip()]
    names = {engine.name for engine in LINEUP}
    return [
        engine
        for engine in LINEUP
        if not parts or any(part == engine.name if part in names else part in engine.name for part in parts)
    ]


def _spec(args: argparse.Namespace, inputs: Path, engine: Engine) -> dict[str, Any]:
    paths = {
        **{name: getattr(args, name) for name in ("checkpoint", "adapter", "pack")},
        "inputs": inputs,
        "folder": args.out / engine.venv,
    }
    return {name: str(path.resolve()) for name, path in paths.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("venvs", "checkpoint", "adapter", "pack", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measures", default=",".join(MEASURES))
    parser.add_argument("--engines", default="", help="names or parts of them, with commas (all)")
    args = parser.parse_args()
    engines = chosen(args.engines)
    args.out.mkdir(parents=True, exist_ok=True)
    turns(args, engines, [name.strip() for name in args.measures.split(",")])
    found, apart = medians(read_lines(args.out / "lines.jsonl")), distances(args.out / "pictures")
    for line in table(found, apart):
        print(line)
    machine = this_machine()
    report = {"machine": {**vars(machine), "key": machine.key}, "medians": found, "psnr": apart}
    (args.out / "peers.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
