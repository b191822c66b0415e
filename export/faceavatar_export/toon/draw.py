"""Draws the training pictures to memory-mapped arrays: any number of processes, the same bytes each time.

`python -m faceavatar_export.toon.draw FOLDER --count N --size S [--alpha]` writes FOLDER/pictures.npy
(uint8 (N, S, S, 3), or (N, S, S, 4) straight alpha and no background with --alpha), FOLDER/embeddings.npy
((N, 24) float32, identity.embed) and FOLDER/scenes.jsonl (identity and scene of each).

`--height H --width W` in place of `--size S` draws (N, H, W, 3) of another aspect ratio: the figure stands on
the middle of the lower edge, as large as in a square of the shorter side. A set has one size, so several
aspect ratios are several sets; with the same seed they show the same people in the same scenes. The stages
that train take square sets.
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


def draw_range(folder: Path, seed: int, start: int, stop: int) -> int:
    """Draws pictures start..stop-1 into FOLDER/pictures.npy, which must exist: its shape says how."""
    pictures = np.load(folder / "pictures.npy", mmap_mode="r+")
    _, height, width, channels = pictures.shape
    draw = styles.draw_figure if channels == 4 else styles.draw_canvas
    for i in range(start, stop):
        pictures[i] = draw(*sample(seed, i), height, width)
    pictures.flush()
    return stop - start


def draw_set(
    folder: Path, count: int, size: int | tuple[int, int], seed: int, alpha: bool, processes: int
) -> None:
    """Writes a whole set to `folder`; `size` is the side of square pictures or (height, width)."""
    folder.mkdir(parents=True, exist_ok=True)
    height, width = (size, size) if isinstance(size, int) else size
    shape = (count, height, width, 4 if alpha else 3)
    np.lib.format.open_memmap(folder / "pictures.npy", "w+", np.uint8, shape).flush()
    people = [sample(seed, i) for i in range(count)]
    embeddings = (
        np.stack([embed(identity) for identity, _ in people]) if people else np.zeros((0, EMBEDDING_SIZE))
    )
    np.save(folder / "embeddings.npy", embeddings.astype(np.float32))
    save_scenes(folder, people)
    step = min(500, max(1, math.ceil(count / processes)))
    # Forked children of a process with threads (torch's, in tests) may hang.
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        jobs = [pool.submit(draw_range, folder, seed, a, min(a + step, count)) for a in range(0, count, step)]
        done = 0
        for job in jobs:
            done += job.result()
            print(f"{done}/{count}", flush=True)


def save_scenes(folder: Path, people: list[tuple[Identity, Scene]]) -> None:
    """Writes FOLDER/scenes.jsonl, for load_scenes."""
    with (folder / "scenes.jsonl").open("w") as out:
        for identity, scene in people:
            out.write(json.dumps({"identity": asdict(identity), "scene": asdict(scene)}) + "\n")


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
    parser.add_argument("--size", type=int, default=256, help="the side of square pictures, in pixels")
    parser.add_argument("--height", type=int, help="in place of --size, together with --width")
    parser.add_argument("--width", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--alpha", action="store_true")
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    if (args.height is None) != (args.width is None):
        parser.error("--height and --width belong together; give both, or --size for squares")
    size = args.size if args.height is None else (args.height, args.width)
    draw_set(args.folder, args.count, size, args.seed, args.alpha, args.processes)


if __name__ == "__main__":
    main()
