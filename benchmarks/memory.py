"""What a pack takes: measures its stages in child processes, fits the manifest's constants, and checks them.

    python benchmarks/memory.py PACK --provider cpu --write     # measure, fit, write into PACK/pack.json
    python benchmarks/memory.py PACK --provider cpu --check     # forecasts beside measured peaks
    python benchmarks/memory.py PACK --provider cpu --check --sizes 256,512 --batches 1,8

Every figure is a child's own high-water mark (VmHWM), reset once the pack is open. Linux only.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faceavatar import AvatarEngine, AvatarRequest
from faceavatar.backends import Session
from faceavatar.manifest import Manifest
from faceavatar.opening import Opening
from faceavatar.pack import MANIFEST, Pack, find_pack
from faceavatar.vae import CORE, HALO

PHOTO = Path(__file__).parents[1] / "engine" / "faceavatar" / "examples" / "astronaut.jpg"
LIMIT = 12 * 2**30  # of a child's address space: a mistake ends the child and not the machine
# Latents' cells of packs that draw any size. What a graph takes may jump from one size to the next (an arena
# grows by blocks), so the largest is measured, and not told by those below.
SQUARE_SIDES = (32, 64, 96, 128)
BATCHES = (1, 2, 4, 8)
MATTED = (512, 1024)


def main() -> None:
    arguments = _arguments()
    if arguments.child is not None:
        print(json.dumps(_CHILDREN[arguments.child](arguments, json.loads(arguments.asked))))
        return
    folder = find_pack(arguments.pack)
    if arguments.write:
        entry = measure(folder, arguments.provider)
        write(folder, arguments.provider, entry)
        print(json.dumps({arguments.provider: entry}))
    if arguments.check:
        check(folder, arguments.provider, arguments.sizes, arguments.batches)


def measure(folder: Path, provider: str) -> dict[str, Any]:
    """The manifest's `memory` entry of one provider; an unfinished one is in the manifest meanwhile."""
    manifest = Pack.load(folder).manifest
    loaded = run_child("loaded", folder, provider)
    stages: dict[str, tuple[float, float, float]] = {}
    stages["text_encoder"] = (run_child("stage", folder, provider, role="text_encoder", n=1, side=0), 0, 0)
    if manifest.face is not None and manifest.face.detector is not None:
        stages["face"] = (run_child("face", folder, provider), 0, 0)
    sides = _sides(manifest)
    once = ("vae_decoder", "vae_decoder_low", "vae_encoder")
    for role, batches in (("unet", BATCHES), *((role, (1,)) for role in once)):
        if role in manifest.graphs:
            shapes = [(n, side) for n in batches for side in sides if n == 2 or side == sides[0] or n == 1]
            found = [run_child("stage", folder, provider, role=role, n=n, side=side) for n, side in shapes]
            stages[role] = fit([(n, side * side) for n, side in shapes], found)
    if "vae_decoder_tile" in manifest.graphs:
        side = (CORE + 2 * HALO) // 2  # one tile's, in cells of the latents
        tile = run_child("stage", folder, provider, role="vae_decoder_tile", n=1, side=side)
        stages["vae_decoder_tile"] = (0.0, tile / side**2, 0.0)
    found = [run_child("matting", folder, provider, side=side) for side in MATTED]
    stages["matting"] = fit([(1, side * side) for side in MATTED], found)
    entry = {"loaded": loaded, "stages": stages | {"request": (0, 0, 0)}}
    write(folder, provider, entry)
    # What no stage accounts for: the photo, the objects of a first request, what was not used before.
    size = manifest.sizes.native[0][0] if manifest.sizes.native else sides[0] * manifest.latents.downsample
    expected, peak = run_child("generate", folder, provider, size=size, batch=1)
    stages["request"] = (max(0, peak - expected), 0, 0)
    return {"loaded": loaded, "stages": stages}


def fit(shapes: Sequence[tuple[int, int]], found: Sequence[int]) -> tuple[float, float, float]:
    """base, a and b of base + n (a c + b c c), none below 0, by least squares of the relative error."""
    rows = np.array([[1.0, n * c, n * c * c] for n, c in shapes])
    wanted = np.maximum(np.array(found, float), 1.0)
    used = [column for column in range(3) if len(np.unique(rows[:, column])) > 1 or column == 0]
    while True:
        scale = rows[:, used].max(axis=0)
        factors, *_ = np.linalg.lstsq(rows[:, used] / scale / wanted[:, None], np.ones(len(rows)), rcond=None)
        if (factors >= 0).all() or len(used) == 1:
            break
        used.remove(used[int(np.argmin(factors))])
    made = [0.0, 0.0, 0.0]
    for column, factor, unit in zip(used, factors, scale, strict=True):
        made[column] = float(f"{max(0.0, factor / unit):.4g}")
    return made[0], made[1], made[2]


def check(folder: Path, provider: str, sizes: Sequence[int], batches: Sequence[int]) -> None:
    """A table of forecasts and peaks, and a last line of JSON."""
    rows = []
    print(f"{'size':>9} {'batch':>5} {'forecast MB':>12} {'measured MB':>12} {'off by':>7}")
    for size in sizes:
        for batch in batches:
            expected, peak = run_child("generate", folder, provider, size=size, batch=batch)
            rows.append({"size": size, "batch": batch, "forecast": expected, "measured": peak})
            off = expected / peak - 1
            print(f"{size:>9} {batch:>5} {expected / 1e6:>12.0f} {peak / 1e6:>12.0f} {off:>7.0%}", flush=True)
    print(json.dumps({"pack": folder.name, "provider": provider, "rows": rows}))


def write(folder: Path, provider: str, entry: dict[str, Any]) -> None:
    """Put the constants into the pack's manifest."""
    path = folder / MANIFEST
    content = json.loads(path.read_text(encoding="utf-8"))
    content.setdefault("memory", {})[provider] = entry
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def run_child(what: str, folder: Path, provider: str, **asked: Any) -> Any:
    """What one measurement says, made in a process of its own."""
    command = [sys.executable, __file__, str(folder), "--provider", provider, "--child", what]
    ran = subprocess.run([*command, "--asked", json.dumps(asked)], capture_output=True, text=True)
    if ran.returncode:
        raise RuntimeError(f"{what} {asked}: {ran.stderr.strip()[-400:]}")
    return json.loads(ran.stdout.splitlines()[-1])


def _loaded(arguments: argparse.Namespace, asked: dict[str, Any]) -> int:
    _engine(arguments)
    return _status("VmRSS")


def _stage(arguments: argparse.Namespace, asked: dict[str, Any]) -> int:
    session = Opening.of(Pack.load(find_pack(arguments.pack)), arguments.provider, 1).open(asked["role"])
    feeds = _feeds(session, asked["n"], asked["side"])
    before = _reset()
    session.run(feeds)
    session.run(feeds)  # what a shape takes, it may take at its second run
    return _status("VmHWM") - before


def _face(arguments: argparse.Namespace, asked: dict[str, Any]) -> int:
    engine = _engine(arguments)
    before = _reset()
    engine.look(PHOTO)
    return _status("VmHWM") - before


def _matting(arguments: argparse.Namespace, asked: dict[str, Any]) -> int:
    engine, side = _engine(arguments), asked["side"]
    picture = np.random.default_rng(0).integers(0, 255, (side, side, 3)).astype(np.uint8)
    before = _reset()
    engine.cut_out(picture, net="pack")
    return _status("VmHWM") - before


def _generate(arguments: argparse.Namespace, asked: dict[str, Any]) -> tuple[int, int]:
    engine, embeds = _engine(arguments), None
    if engine.embedder is None and engine.pack.manifest.face is not None:
        size = engine.pack.manifest.face.adapter.embedding_size
        embeds = np.random.default_rng(0).normal(size=(1, size)).astype(np.float32)
    side, batch = asked["size"], asked["batch"]
    request = AvatarRequest(image=PHOTO, seed=1, num_inference_steps=2, height=side, width=side, batch=batch)
    expected = engine.forecast(request).peak
    _reset()
    engine.generate(request, face_embeds=embeds)
    return expected, _status("VmHWM")


_CHILDREN = {"loaded": _loaded, "stage": _stage, "face": _face, "matting": _matting, "generate": _generate}


def _engine(arguments: argparse.Namespace) -> AvatarEngine:
    return AvatarEngine.load(
        arguments.pack, arguments.provider, 1, check_hashes=False, memory_budget="1000GB"
    ).wait_until_open()


def _sides(manifest: Manifest) -> list[int]:
    if not manifest.sizes.native:
        return list(SQUARE_SIDES)
    return sorted({height // manifest.latents.downsample for height, _ in manifest.sizes.native})


def _feeds(session: Session, n: int, side: int) -> dict[str, NDArray[Any]]:
    """Numbers of the right form. A side that varies is the batch where it comes first, else as named."""
    free = {"height": side, "width": side, "tokens": 77, "face_tokens": 4, "image_height": side * 8}
    feeds: dict[str, NDArray[Any]] = {}
    for name, spec in session.inputs.items():
        shape = [
            one if isinstance(one, int) else n if place == 0 else _free(free, one, name, place, side)
            for place, one in enumerate(spec.shape)
        ]
        kind = np.dtype(spec.dtype)
        values = np.random.default_rng(0).normal(size=shape)
        if name == "core":
            values = np.array([0, 0, 2 * side, 2 * side])
        feeds[name] = np.abs(values).astype(kind) if kind.kind == "i" else values.astype(kind)
    return feeds


def _free(named: dict[str, int], word: str, name: str, place: int, side: int) -> int:
    if name in {"sample", "latents"} and place >= 2:
        return side
    if name == "half":
        return 2 * side
    if name == "image" and place >= 2:
        return side * 8
    if name == "encoder_hidden_states":
        return 77
    return named.get(word, 4)


def _reset() -> int:
    """Forgets the high-water mark; gives what the process holds now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"the kernel tells no {name}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("pack")
    parser.add_argument("--provider", default="cpu")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--sizes", type=_numbers, default=[256, 384, 512, 768])
    parser.add_argument("--batches", type=_numbers, default=[1, 2, 4])
    parser.add_argument("--child", choices=list(_CHILDREN))
    parser.add_argument("--asked", default="{}")
    found = parser.parse_args()
    if found.child is not None:
        resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    return found


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
