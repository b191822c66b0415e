"""Draws the training pictures to memory-mapped arrays: any number of processes, the same bytes each time.

`python -m faceavatar_export.toon.draw FOLDER --count N --size S [--alpha]` writes FOLDER/pictures.npy
(uint8 (N, S, S, 3), or (N, S, S, 4) straight alpha and no background with --alpha), FOLDER/embeddings.npy
((N, 24) float32, identity.embed) and FOLDER/scenes.jsonl (identity and scene of each).
"""

from __future__ import annotations

import argparse
import json
import math
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from faceavatar_export.toon import captions, styles
from faceavatar_export.toon.identity import (
    EMBEDDING_SIZE,
    STYLES,
    Identity,
    Scene,
    embed,
    sample_identity,
    sample_scene,
)

HELD_OUT = 2000  # the last pictures of a set are never trained on
DEFAULT_PLACE, DEFAULT_SHARE = 6, 0.4  # what most people ask for, the default prompt, is 5 % of a set
STYLE_ORDER = (*STYLES, "vector", "storybook")  # the two styles that people ask for most, twice


def sample(seed: int, index: int) -> tuple[Identity, Scene]:
    """The identity and scene of picture `index` of a set; each identity is drawn in every style running.

    Some vector scenes are those of the default prompt, the one that is asked for most.
    """
    identity = sample_identity(np.random.default_rng((seed, index // len(STYLE_ORDER))))
    style = STYLE_ORDER[index % len(STYLE_ORDER)]
    rng = np.random.default_rng((seed, index, 1))
    scene = sample_scene(rng, style)
    if index % len(STYLE_ORDER) == DEFAULT_PLACE and rng.random() < DEFAULT_SHARE:
        scene = captions.default_scene(scene, rng)
    return identity, scene


def draw_range(folder: Path, seed: int, start: int, stop: int, size: int, alpha: bool) -> int:
    """Draws pictures start..stop-1 into FOLDER/pictures.npy, which must exist."""
    pictures = np.load(folder / "pictures.npy", mmap_mode="r+")
    for i in range(start, stop):
        identity, scene = sample(seed, i)
        rgba = styles.draw_rgba(identity, scene, size)
        pictures[i] = rgba if alpha else styles.composite(rgba, styles.background(scene, size))
    pictures.flush()
    return stop - start


def draw_set(folder: Path, count: int, size: int, seed: int, alpha: bool, processes: int) -> None:
    """Writes a whole set to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = (count, size, size, 4 if alpha else 3)
    np.lib.format.open_memmap(folder / "pictures.npy", "w+", np.uint8, shape).flush()
    people = [sample(seed, i) for i in range(count)]
    embeddings = (
        np.stack([embed(identity) for identity, _ in people]) if people else np.zeros((0, EMBEDDING_SIZE))
    )
    np.save(folder / "embeddings.npy", embeddings.astype(np.float32))
    with (folder / "scenes.jsonl").open("w") as out:
        for identity, scene in people:
            out.write(json.dumps({"identity": asdict(identity), "scene": asdict(scene)}) + "\n")
    step = min(500, max(1, math.ceil(count / processes)))
    # Forked children of a process with threads (torch's, in tests) may hang.
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        jobs = [
            pool.submit(draw_range, folder, seed, a, min(a + step, count), size, alpha)
            for a in range(0, count, step)
        ]
        done = 0
        for job in jobs:
            done += job.result()
            print(f"{done}/{count}", flush=True)


def load_scenes(folder: Path) -> list[tuple[Identity, Scene]]:
    """The identities and scenes of a drawn set, in order."""
    rows = (json.loads(line) for line in (folder / "scenes.jsonl").read_text().splitlines())
    return [(Identity(**row["identity"]), Scene(**row["scene"])) for row in rows]


def main() -> None:
    """The command line of the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--alpha", action="store_true")
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    draw_set(args.folder, args.count, args.size, args.seed, args.alpha, args.processes)


if __name__ == "__main__":
    main()
