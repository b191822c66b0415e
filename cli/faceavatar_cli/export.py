"""`faceavatar export`: the flags. The work is the export's own, found by its entry point."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from faceavatar_cli.checkpoint import find_export, parts_options, say
from faceavatar_cli.exits import Manner, debug_option, epilog, json_option, print_json


@click.command(epilog=epilog())
@click.argument("source")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The pack's new folder.")
@click.option("--name", help="The pack's name (its folder's).")
@click.option("--license", "license_", required=True, help="The checkpoint's licence, for the manifest.")
@parts_options
@click.option("--vae-encoder", is_flag=True, help="Add the VAE's encoder, for a request's strength.")
@click.option(
    "--add",
    "additions",
    multiple=True,
    type=click.Choice(["tiles", "step-cache", "step-graph"]),
    help="A graph more, on the same weights: tiles (decoding in tiles, for --tiling), step-cache (for a "
    "request's step_cache), step-graph (steps that stay on a GPU); may be given several times.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "bf16", "int8"]),
    default="fp32",
    show_default=True,
    help="Of the arithmetic; int8 stores weights so and computes in fp32.",
)
@click.option(
    "--face-pack",
    type=click.Path(path_type=Path, exists=True),
    help="InsightFace's detector and recogniser for the pack: a folder.",
)
@click.option("--face-pack-license", help="Their licence, for the manifest; needed with --face-pack.")
@click.option(
    "--with-face-pack",
    metavar="NAME",
    help="Fetch them from InsightFace's model zoo: buffalo_l (FaceID) or antelopev2 (InstantID).",
)
@click.option(
    "--accept-license",
    metavar="TERMS",
    help="Agree to their terms, 'non-commercial'; needed with --with-face-pack.",
)
@click.option("--steps", "num_inference_steps", type=click.IntRange(1, 50), help="The pack's default.")
@click.option("--guidance", "guidance_scale", type=click.FloatRange(1, 30), help="The pack's default.")
@click.option(
    "--via",
    type=click.Choice(["optimum"]),
    help="Have optimum-onnx export the standard graphs too, as a cross-check; it needs --optimum-python.",
)
@click.option(
    "--optimum-python",
    type=click.Path(path_type=Path),
    help="The Python of an environment with optimum-onnx (or FACEAVATAR_OPTIMUM_PYTHON).",
)
@click.option("--force", is_flag=True, help="Write the pack although its proof failed.")
@json_option
@debug_option
@click.pass_obj
def export(manner: Manner, /, out: Path, name: str | None, license_: str, **options: Any) -> None:
    """Make a pack of a Stable Diffusion checkpoint.

    SOURCE is a folder in diffusers' layout (SD1.5, SD2.1 or SDXL), a whole checkpoint in one .safetensors
    file, or OWNER/NAME@COMMIT of the hub. The pack is proved against diffusers before it is written;
    parity.json in it says how far they lie apart.
    """
    work = find_export("checkpoint")
    report = work(out=out, name=name or out.name, license=license_, say=say, **options)
    if manner.json:
        print_json({"folder": str(out.resolve()), "parity": report})
    else:
        worst = max(row["max_difference"] for row in report["pipeline"])
        seconds, peak = report["seconds"], report["peak_memory_gb"]
        click.echo(f"{out}: at most {worst}/255 from diffusers; {seconds:.0f} s, {peak:.1f} GB at the peak")
